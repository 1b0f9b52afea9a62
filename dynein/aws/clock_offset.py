"""How far this machine's wall clock is from AWS's, by the ``Date`` that AWS puts on its responses."""

from __future__ import annotations

import contextlib
from email.utils import parsedate_to_datetime
from typing import Any

from prometheus_client import Gauge

from dynein.runtime.clock import Clock

OBSERVE_EVERY_S = 1.0


class ClockOffset:
    """Sets ``gauge``, seconds: ahead of AWS's clock is positive. Only shown: nothing is decided by it."""

    def __init__(self, clock: Clock, gauge: Gauge) -> None:
        self._clock = clock
        self._gauge = gauge
        self._observe_at_s = float("-inf")

    def observe(self, date: str) -> None:
        """Take in the ``Date`` header of a response that has just come; one a second counts."""
        now_s = self._clock.monotonic()
        if now_s < self._observe_at_s:
            return
        self._observe_at_s = now_s + OBSERVE_EVERY_S
        with contextlib.suppress(ValueError):
            self._gauge.set(self._clock.now_ms() / 1000 - parsedate_to_datetime(date).timestamp())

    def on_sdk_response(self, parsed: dict[str, Any], **_: Any) -> None:  # noqa: ANN401 - botocore's handlers' form
        """For botocore's event ``after-call``."""
        headers = parsed.get("ResponseMetadata", {}).get("HTTPHeaders") or {}
        self.observe(headers.get("date", ""))
