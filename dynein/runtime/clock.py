"""The one place where time enters the program.

Decisions take ``now`` as an argument; only the code that calls them holds a `Clock`. It is built once, where a process
is assembled, so tests and the simulation can control time, per process, with skew, steps and pauses.

Two kinds of time, never mixed:

* *wall* (`Clock.now_ms`): for due times. It may step, and differs between machines.
* *monotonic* (`Clock.monotonic`): for durations, such as how long a lease may be trusted. It never steps.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time, monotonic time and sleep."""

    def now_ms(self) -> int:
        """Wall-clock time, milliseconds since the Unix epoch, rounded down (so that nothing is ever sent early)."""

    def now_us(self) -> int:
        """The same in microseconds: it tells apart what a millisecond does not, such as two jobs accepted in a row."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start, never stepping."""

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling task for at least ``seconds``."""


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def sleep_unless(event: asyncio.Event, clock: Clock, seconds: float) -> bool:
    """Sleep for ``seconds``, or less if ``event`` gets set; returns whether it is set."""
    if seconds <= 0 or event.is_set():
        return event.is_set()
    sleeping = asyncio.ensure_future(clock.sleep(seconds))
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((sleeping, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        sleeping.cancel()
        waiting.cancel()
    return event.is_set()
