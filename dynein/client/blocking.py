"""The client for blocking code."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self, TypeVar

import urllib3

from dynein.client import flows
from dynein.client.exchange import Call, NoResponse, Response, Steps, drive
from dynein.client.flows import Outcome
from dynein.client.jobs import Accepted, Delay, Job, Moved, Prepared, Status, When
from dynein.client.options import CONNECTIONS_MAX, PATIENCE_S, TIMEOUT_S, Options, response_of

ResultT = TypeVar("ResultT")
_HANDSHAKE_ENDED = frozenset(
    {
        "HTTP_REQUEST",
        "NO_PROTOCOLS_AVAILABLE",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "TLSV1_ALERT_PROTOCOL_VERSION",
        "UNSUPPORTED_PROTOCOL",
        "WRONG_VERSION_NUMBER",
    }
)
"""OpenSSL's reasons that only a handshake ends with: no request was sent."""


class Client:
    """Calls the Dynein API at ``url``. Threads may share it.

    ``headers`` are sent with every request. ``timeout_s``: longest wait for a response; ``patience_s``: how long a
    request that was turned away is repeated; ``ssl_context``: for an ``https`` URL with a certificate of your own
    authority. Every method raises `Refused`, `NotDone` and `Unanswered`, unless its docstring says otherwise.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._options = Options(url, headers, timeout_s, patience_s)
        self._pool = urllib3.PoolManager(
            maxsize=CONNECTIONS_MAX,
            retries=False,
            timeout=timeout_s,
            headers=self._options.headers,
            ssl_context=ssl_context,
        )

    def submit(self, job: Job, *, once: bool = False) -> Accepted:
        """Submit a job. ``once``: take a token first, so that it can be repeated safely. Raises `ValueError` too."""
        return self._drive(flows.submit(self._options.patience, job, once=once))

    def submit_many(self, jobs: Iterable[Job]) -> list[Outcome]:
        """Submit any number of jobs; the outcome of each, in order. Raises only `ValueError`, and then sends none."""
        return self._drive(flows.submit_many(self._options.patience, list(jobs)))

    def prepare(
        self,
        *,
        run_at: When | None = None,
        delay: Delay | None = None,
        timezone: str | None = None,
        group: tuple[str, str] | None = None,
    ) -> Prepared:
        """A token for a job. Submit the job with it, as often as needed, until a day after its due time."""
        return self._drive(flows.prepare(self._options.patience, run_at, delay, timezone, group))

    def get(self, token: str) -> Status:
        """The state of a job."""
        return self._drive(flows.get(self._options.patience, token))

    def cancel(self, token: str) -> None:
        """Cancel a job. When this returns, it will not be delivered; `Refused` says why that is too late."""
        self._drive(flows.cancel(self._options.patience, token))

    def move(
        self, token: str, *, run_at: When | None = None, delay: Delay | None = None, timezone: str | None = None
    ) -> Moved:
        """Give a job another due time, and with it another token."""
        return self._drive(flows.move(self._options.patience, token, run_at, delay, timezone))

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _drive(self, steps: Steps[ResultT]) -> ResultT:
        return drive(steps, self._send, time.sleep)  # noqa: TID251 - the caller's own thread waits

    def _send(self, call: Call) -> Response | NoResponse:
        url = self._options.url + call.path
        try:
            response = self._pool.request(call.method, url, body=call.body, redirect=False)
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
            return NoResponse(sent=False, why=f"{self._options.url} cannot be reached: {error}")
        except urllib3.exceptions.HTTPError as error:
            tls = next((cause for cause in error.args if isinstance(cause, ssl.SSLError)), None)
            if isinstance(tls, ssl.SSLCertVerificationError):
                return NoResponse(sent=False, why=f"{self._options.url} has a certificate that is not trusted: {error}")
            if tls is not None and tls.reason in _HANDSHAKE_ENDED:
                return NoResponse(sent=False, why=f"{self._options.url} cannot be reached: {error}")
            return NoResponse(sent=True, why=f"{self._options.url} did not respond: {error}")
        return response_of(response.status, response.headers, response.data)
