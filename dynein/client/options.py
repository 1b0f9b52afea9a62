"""The options of both clients."""

from __future__ import annotations

import random
from collections.abc import Mapping
from urllib.parse import urlsplit

from dynein import __version__
from dynein.client.exchange import Patience, Response
from dynein.runtime.clock import SystemClock

TIMEOUT_S = 10.0
PATIENCE_S = 30.0
CONNECTIONS_MAX = 16


class Options:
    """See `dynein.client.Client`. Raises `ValueError` for an invalid ``url``."""

    def __init__(self, url: str, headers: Mapping[str, str] | None, timeout_s: float, patience_s: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"url {url!r}: write http://HOST:PORT, the URL of the Dynein API")
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self.headers = {
            "content-type": "application/json",
            "user-agent": f"dynein-client/{__version__}",
            **(headers or {}),
        }
        self._patience_s = patience_s
        self.clock = SystemClock()
        self._rng = random.Random()  # noqa: S311 - jitter

    def patience(self) -> Patience:
        """For one call of a client."""
        return Patience(self._patience_s, self.clock.monotonic, self._rng)


def response_of(status: int, headers: Mapping[str, str], body: bytes) -> Response:
    """A response, with the headers that matter."""
    try:
        retry_after_s = float(headers.get("retry-after", "0"))
    except ValueError:  # a date: allowed, and not what Dynein sends
        retry_after_s = 0.0
    return Response(status, body, retry_after_s, headers.get("x-request-id"))
