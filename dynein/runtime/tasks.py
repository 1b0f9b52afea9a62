"""Structured tasks: started, awaited and cancelled in one way, so that none outlives the code that started it.

An *agent* is a part of a process that runs concurrently, behind one protocol (`Agent`): it runs until it is stopped,
then drains. `run_until_drained` runs a process: its agents concurrently, all stopped as soon as one of them ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from dynein.errors import FatalError, Unavailable
from dynein.runtime.clock import Clock

ResultT = TypeVar("ResultT")


class Agent(Protocol):
    """A part of a process that runs concurrently with others."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until ``stopping`` is set, then drain, and return. Raises `FatalError` when operator action is required.

        Cancelling it is a crash: everything ends at once, and nothing is finished or handed over.
        """


class Tasks:
    """Starts tasks and ends them, in the order they were started (so that a simulated run can be replayed)."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Set to the first error of a task. Await it together with whatever else ends the run."""

    def start(self, work: Coroutine[Any, Any, ResultT]) -> asyncio.Task[ResultT]:
        """Run ``work`` as a task."""
        task = asyncio.ensure_future(work)
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    async def cancel_all(self) -> None:
        """Cancel every task and wait until each has ended. Errors raised meanwhile are dropped: the run is over."""
        for task in list(self._tasks):
            task.cancel()
        while self._tasks:
            await asyncio.wait(list(self._tasks))
        if self.failure.done() and not self.failure.cancelled():
            self.failure.exception()  # marks it as retrieved; the error that ended the run has been raised by now

    def _ended(self, task: asyncio.Task[Any]) -> None:
        del self._tasks[task]
        error = None if task.cancelled() else task.exception()
        if error is not None and not self.failure.done():
            self.failure.set_exception(error)


async def any_ended(*ends: asyncio.Future[Any]) -> None:
    """Return once any of ``ends`` is done, however it ended. The others go on."""
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)


async def first_of(*ends: asyncio.Future[Any]) -> None:
    """Return once any of ``ends`` is done; raises the error of one that failed. The others go on."""
    await any_ended(*ends)
    for end in ends:
        if end.done():
            end.result()


async def all_ended(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Return once all are done, however they ended."""
    waiting = list(tasks)
    if waiting:
        await asyncio.wait(waiting)


async def until(end: asyncio.Future[Any], others: Sequence[asyncio.Future[Any]]) -> None:
    """Return once ``end`` is done; raise at once if it or one of ``others`` fails. The others may end before it."""
    waiting = [end, *others]
    while not end.done():
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            if task.done():
                task.result()
        waiting = [task for task in waiting if not task.done()]
    end.result()


async def within(seconds: float, clock: Clock, work: Awaitable[ResultT]) -> ResultT:
    """The result of ``work``, awaited for ``seconds`` by ``clock`` at most; then it is cancelled.

    Raises `Unavailable` when the time is up, and any error of ``work``. (`asyncio.timeout` uses the event loop's time,
    which a test does not control.)
    """
    working = asyncio.ensure_future(work)
    sleeping = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait((working, sleeping), return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:  # no `finally`: a coroutine that is closed unfinished may not wait any more
        await cancel_all((sleeping, working))
        raise
    late = not working.done()
    await cancel_all((sleeping, working))
    if late:
        raise Unavailable(f"no response within {seconds:.1f} s")
    return working.result()


async def any_set(*events: asyncio.Event) -> None:
    """Return once any of ``events`` is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waiting:
            wait.cancel()


async def cancel_all(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel them and wait until each has ended; their errors are dropped."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def all_of(coroutines: Sequence[Coroutine[Any, Any, ResultT]]) -> list[ResultT]:
    """Run all of them concurrently until each has ended, then return their results or raise an error.

    Of several errors a `FatalError` is raised first. Unlike a bare `asyncio.gather`, no sibling is left running after
    an error, so the caller may release what they work on.
    """
    if len(coroutines) == 1:
        return [await coroutines[0]]
    ended = await asyncio.gather(*coroutines, return_exceptions=True)
    errors = [end for end in ended if isinstance(end, BaseException)]
    if errors:
        raise next((error for error in errors if isinstance(error, FatalError)), errors[0])
    return [end for end in ended if not isinstance(end, BaseException)]


class Drained(NamedTuple):
    """How a process ended."""

    took_s: float
    """Seconds since it began to drain."""
    late: bool
    """It did not drain in time, and the remaining agents were cancelled."""


async def run_until_drained(
    agents: Sequence[Agent], stopping: asyncio.Event, clock: Clock, *, drain_s: float, draining: Callable[[], None]
) -> Drained:
    """Run ``agents`` concurrently until ``stopping`` is set or one of them ends, for instance by an error; then all
    drain.

    ``draining`` is called when the drain begins. It may take ``drain_s`` seconds; then they are cancelled. Raises the
    first error, in the order of ``agents``, once all have ended.
    """
    running = [asyncio.ensure_future(agent.run(stopping)) for agent in agents]
    stopped = asyncio.ensure_future(stopping.wait())
    late = False
    try:
        await asyncio.wait([stopped, *running], return_when=asyncio.FIRST_COMPLETED)
        stopping.set()
        began = clock.monotonic()
        draining()
        try:
            await within(drain_s, clock, all_ended(running))
        except Unavailable:
            late = True
    finally:
        await cancel_all([stopped, *running])
    for task in running:
        if not task.cancelled():
            task.result()
    return Drained(clock.monotonic() - began, late)
