"""A clock that moves only when a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

ResultT = TypeVar("ResultT")

_NS_PER_US = 1_000
_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000
_TURNS_MAX = 100_000
"""Loop turns after which `ManualClock.settle` fails because some task spins."""


class ManualClock:
    """A `dynein.runtime.clock.Clock` for tests: time passes in `advance`, and nowhere else."""

    def __init__(self, start_ms: int = 1_750_000_000_000) -> None:
        self._wall_offset_ns = start_ms * _NS_PER_MS
        self._elapsed_ns = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._sleeps = 0

    def now_ms(self) -> int:
        """Wall time, milliseconds since the epoch, rounded down."""
        return (self._wall_offset_ns + self._elapsed_ns) // _NS_PER_MS

    def now_us(self) -> int:
        """The same in microseconds."""
        return (self._wall_offset_ns + self._elapsed_ns) // _NS_PER_US

    def monotonic(self) -> float:
        """Seconds since this clock was made."""
        return self._elapsed_ns / _NS_PER_S

    async def sleep(self, seconds: float) -> None:
        """Wait until `advance` has moved time by ``seconds``; one turn of the loop if that is not positive."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if seconds <= 0:
            asyncio.get_running_loop().call_soon(_wake, woken)
        else:
            self._sleeps += 1
            heapq.heappush(self._sleepers, (self._elapsed_ns + _to_ns(seconds), self._sleeps, woken))
        await woken

    @property
    def sleepers(self) -> int:
        """How many tasks sleep on this clock."""
        return sum(1 for _, _, woken in self._sleepers if not woken.done())

    def step_wall_ms(self, milliseconds: int) -> None:
        """Step the wall clock, as a time daemon does. Monotonic time and sleepers do not notice."""
        self._wall_offset_ns += milliseconds * _NS_PER_MS

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass: sleepers wake at their own instants, in order, and run before time moves on."""
        until_ns = self._elapsed_ns + _to_ns(seconds)
        await self.settle()
        while self._wake_next(until_ns):
            await self.settle()
        self._elapsed_ns = until_ns
        await self.settle()

    async def run_until(self, done: Callable[[], bool], *, within_s: float = 3600.0) -> None:
        """Let time pass from sleeper to sleeper until ``done()``; fails if that takes more than ``within_s``."""
        until_ns = self._elapsed_ns + _to_ns(within_s)
        await self.settle()
        while not done():
            assert self._wake_next(until_ns), f"not done within {within_s} s, and no task sleeps until then"
            await self.settle()

    async def result_of(self, awaitable: Awaitable[ResultT], *, within_s: float = 3600.0) -> ResultT:
        """Await something that sleeps on this clock, letting time pass as it needs."""
        running = asyncio.ensure_future(awaitable)
        await self.run_until(running.done, within_s=within_s)
        return await running

    async def settle(self) -> None:
        """Return once every task waits for time or for an event: nothing more happens at this instant."""
        loop = asyncio.get_running_loop()
        turns = 0
        while True:
            yielded: asyncio.Future[None] = loop.create_future()
            loop.call_soon(_wake, yielded)
            await yielded
            turns += 1
            # CPython's loop keeps its runnable callbacks here; a loop without (uvloop) gets a fixed number of turns.
            ready = getattr(loop, "_ready", None)
            if (turns >= 2 and not ready) if ready is not None else turns >= 100:  # noqa: PLR2004
                return
            assert turns < _TURNS_MAX, "the event loop never comes to rest: some task spins without sleeping"

    def _wake_next(self, until_ns: int) -> bool:
        while self._sleepers and self._sleepers[0][0] <= until_ns:
            wake_ns, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                self._elapsed_ns = max(self._elapsed_ns, wake_ns)
                woken.set_result(None)
                return True
        return False


def _to_ns(seconds: float) -> int:
    return math.ceil(seconds * _NS_PER_S)


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
