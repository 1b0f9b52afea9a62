"""How far this machine's wall clock is from AWS's, by the ``Date`` that AWS puts on its answers."""

from __future__ import annotations

import contextlib
from email.utils import parsedate_to_datetime
from typing import Any

from prometheus_client import Gauge

from dynein.runtime.clock import Clock

LOOK_EVERY_S = 1.0


class ClockOffset:
    """Sets ``gauge``, seconds: ahead of AWS's clock is positive. Only shown: nothing is decided by it."""

    def __init__(self, clock: Clock, gauge: Gauge) -> None:
        self._clock = clock
        self._gauge = gauge
        self._look_at_s = float("-inf")

    def heard(self, date: str) -> None:
        """Take in the ``Date`` header of an answer that has just come; one a second is looked at."""
        now_s = self._clock.monotonic()
        if now_s < self._look_at_s:
            return
        self._look_at_s = now_s + LOOK_EVERY_S
        with contextlib.suppress(ValueError):
            self._gauge.set(self._clock.now_ms() / 1000 - parsedate_to_datetime(date).timestamp())

    def on_sdk_answer(self, parsed: dict[str, Any], **_: Any) -> None:  # noqa: ANN401 - botocore's handlers' form
        """For botocore's event ``after-call``."""
        headers = parsed.get("ResponseMetadata", {}).get("HTTPHeaders") or {}
        self.heard(headers.get("date", ""))
