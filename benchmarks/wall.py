"""Wall time and sleep for benchmarks, which watch real processes from outside. The only place that takes them."""

from __future__ import annotations

import time


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000  # noqa: TID251 - an observer of real processes


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000  # noqa: TID251 - an observer of real processes


def pause(seconds: float) -> None:
    """Sleep between two looks at a real process."""
    time.sleep(seconds)  # noqa: TID251 - an observer of real processes
