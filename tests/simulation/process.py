"""A simulated process: code that runs until it is killed, with a clock of its own."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from contextvars import Context, copy_context
from enum import Enum
from typing import Any, TypeVar

from tests.simulation.loop import OWNER, Callback, SimulationLoop

ResultT = TypeVar("ResultT")

ROLES = ("api", "ingester", "dispatcher")
ALL_ROLES = "all"
"""The kind of a process that has every role, as in the default Deployment."""


class State(Enum):
    """Whether a process's code runs."""

    RUNNING = "running"
    PAUSED = "paused"
    DEAD = "dead"


class ProcessClock:
    """`dynein.runtime.clock.Clock` of one machine: its wall clock is off and may step, its monotonic clock not."""

    def __init__(self, loop: SimulationLoop, epoch_ms: int, offset_ms: int, monotonic_base: float) -> None:
        self._loop = loop
        self._epoch_ms = epoch_ms
        self.offset_ms = offset_ms
        self.offset_ms_max = offset_ms
        self.offset_ms_min = offset_ms
        """How far ahead of true time it has been at most, and at least."""
        self._monotonic_base = monotonic_base
        self.suspended_s = 0.0
        """How long monotonic time was stopped in all: a suspended machine does not count the time it slept."""

    def now_ms(self) -> int:
        return self._epoch_ms + self.offset_ms + int(self._loop.time() * 1000)

    def now_us(self) -> int:
        return (self._epoch_ms + self.offset_ms) * 1000 + int(self._loop.time() * 1_000_000)

    def monotonic(self) -> float:
        return self._loop.time() + self._monotonic_base - self.suspended_s

    def step_to(self, offset_ms: int) -> None:
        """Step the wall clock."""
        self.offset_ms = offset_ms
        self.offset_ms_max = max(self.offset_ms_max, offset_ms)
        self.offset_ms_min = min(self.offset_ms_min, offset_ms)

    async def sleep(self, seconds: float) -> None:
        # A shorter sleep would vanish in the rounding of `monotonic`; no real one is shorter.
        await pause(self._loop, max(seconds, 1e-6) if seconds > 0 else 0.0)


async def pause(loop: SimulationLoop, seconds: float) -> None:
    """Sleep in virtual time."""
    woken: asyncio.Future[None] = loop.create_future()
    timer = loop.call_later(seconds, _wake, woken)
    try:
        await woken
    finally:
        timer.cancel()


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


class Process:
    """Everything started in `spawn`, and whatever that starts, stops for good at `kill` and for a while at `pause`.

    Killing runs no ``except`` and no ``finally``: the code is simply never called again, as after SIGKILL. Calls it has
    sent to an engine take effect all the same.
    """

    def __init__(self, name: str, kind: str, loop: SimulationLoop, clock: ProcessClock) -> None:
        self.name = name
        self.kind = kind
        self.loop = loop
        self.clock = clock
        self.running = True
        self.started_at = loop.time()
        self.died_at: float | None = None
        self.exited = False
        """It ended by itself."""
        self.requests = 0
        """From outside, under way."""
        self.stopping = asyncio.Event()
        """Set at SIGTERM."""
        self.told_to_stop_at = math.inf
        self.last_call_at = math.inf
        """When its drain has to come to an end."""
        self._withheld: list[Callback] = []
        self._paused_at = 0.0
        self._pauses: list[tuple[float, float]] = []
        self._tasks: list[asyncio.Task[Any]] = []
        """Those under way, and some that have ended. Kept when it is killed: if the interpreter collected them, it
        would close their coroutines, and that runs their `finally` blocks."""
        self._tasks_max = 100
        self._waiting: dict[asyncio.Future[Any], None] = {}
        self._context: Context = copy_context()
        self._context.run(OWNER.set, self)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles it has."""
        return ROLES if self.kind == ALL_ROLES else (self.kind,)

    @property
    def state(self) -> State:
        """Whether its code runs."""
        if self.died_at is not None:
            return State.DEAD
        return State.RUNNING if self.running else State.PAUSED

    def withhold(self, callback: Callback) -> None:
        if self.died_at is None:
            self._withheld.append(callback)

    def spawn(self, work: Coroutine[Any, Any, ResultT]) -> asyncio.Task[ResultT]:
        """Run ``work`` as this process's code."""
        return self.loop.create_task(work, context=self._context.copy())

    def started(self, task: asyncio.Task[Any]) -> None:
        self._tasks.append(task)
        if len(self._tasks) > self._tasks_max:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._tasks_max = 100 + 2 * len(self._tasks)

    def out_of_time(self, now: float) -> bool:
        """Is the time for its drain nearly over?"""
        return now >= self.last_call_at

    def drained_late(self, drain_s: float) -> bool:
        """Did it take longer to drain than it may?"""
        return self.died_at is not None and self.died_at - self.told_to_stop_at >= drain_s

    def paused_s(self, since: float) -> float:
        """For how long it has been paused since that time."""
        return sum(max(0.0, until - max(began, since)) for began, until in self._pauses)

    def tasks_alive(self) -> int:
        """How many tasks it has under way."""
        return sum(not task.done() for task in self._tasks)

    async def ask(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """A request from outside. Raises `ConnectionResetError` if the process dies before it has answered."""
        if self.state is State.DEAD:
            work.close()
            raise ConnectionResetError(self.name)
        answer: asyncio.Future[ResultT] = self.loop.create_future()
        self._waiting[answer] = None

        self.requests += 1

        async def serve() -> None:
            try:
                result = await work
            except Exception as error:  # noqa: BLE001 - it is the caller's
                if not answer.done():
                    answer.set_exception(error)
            else:
                if not answer.done():
                    answer.set_result(result)
            finally:
                self.requests -= 1

        self.spawn(serve())
        try:
            return await answer
        finally:
            self._waiting.pop(answer, None)

    def kill(self) -> None:
        """SIGKILL."""
        self.running = False
        self.died_at = self.loop.time()
        self._withheld.clear()
        for answer in list(self._waiting):
            if not answer.done():
                answer.set_exception(ConnectionResetError(self.name))

    def pause(self) -> None:
        """SIGSTOP."""
        assert self.state is State.RUNNING
        self.running = False
        self._paused_at = self.loop.time()

    def resume(self, *, suspended: bool = False) -> None:
        """SIGCONT. ``suspended``: its monotonic clock did not see the time pass."""
        if self.state is not State.PAUSED:
            return
        self.running = True
        self._pauses.append((self._paused_at, self.loop.time()))
        if suspended:
            self.clock.suspended_s += self.loop.time() - self._paused_at
        withheld, self._withheld = self._withheld, []
        self.loop.put_back(withheld)

    def discard(self) -> None:
        """After the run: let its tasks be collected without warnings."""
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
