"""Wall time and sleep for benchmarks, which observe real processes from outside. The only module that uses them."""

from __future__ import annotations

import time


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000  # noqa: TID251 - an observer of real processes


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000  # noqa: TID251 - an observer of real processes


def pause(seconds: float) -> None:
    """Sleep between two observations of a real process."""
    time.sleep(seconds)  # noqa: TID251 - an observer of real processes
