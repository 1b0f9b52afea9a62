"""An event loop on virtual time, which knows the process of each callback."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context, ContextVar, copy_context
from typing import Any, Protocol, TypeVar

ResultT = TypeVar("ResultT")


class Gatekeeper(Protocol):
    """Decides whether a callback of its own may run now."""

    running: bool
    """``False``: its callbacks go to `withhold`."""

    def withhold(self, callback: Callback) -> None:
        """``callback`` was ready and did not run."""

    def started(self, task: asyncio.Task[Any]) -> None:
        """Called with every task that its code starts."""


OWNER: ContextVar[Gatekeeper | None] = ContextVar("OWNER", default=None)
"""Whose code is running. Tasks, timers and future callbacks inherit it, as they do every context variable."""


class Deadlock(Exception):
    """Nothing can ever happen again, and the run is not over."""


class Livelock(Exception):
    """Callbacks schedule callbacks without end, and time does not advance."""


STEPS_AN_INSTANT_MAX = 200_000


class Callback:
    """`asyncio.Handle` and `asyncio.TimerHandle`, less what a simulation does not need."""

    __slots__ = ("args", "context", "function", "off")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], context: Context) -> None:
        self.function = function
        self.args = args
        self.context = context
        self.off = False

    def cancel(self) -> None:
        """Do not run."""
        self.off = True

    def cancelled(self) -> bool:
        """Was it cancelled?"""
        return self.off


class SimulationLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order they became ready. When none is, time jumps to the next timer, without waiting."""

    def __init__(self) -> None:
        super().__init__()
        self._stopping = False
        self._now = 0.0
        self.steps = 0
        self.ended = False
        self._due: deque[Callback] = deque()
        self._timers: list[tuple[float, int, Callback]] = []
        self._timers_set = 0

    def time(self) -> float:
        """Virtual seconds since the run began."""
        return self._now

    def end(self) -> None:
        """Schedule nothing any more: code of killed processes that is being collected must not run."""
        self.ended = True
        self._due.clear()
        self._timers.clear()

    def create_task(  # type: ignore[override]  # as asyncio's, without options of later versions
        self, coro: Coroutine[Any, Any, ResultT], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[ResultT]:
        task: asyncio.Task[ResultT] = asyncio.Task(coro, loop=self, name=name, context=context)
        owner = OWNER.get() if context is None else context.get(OWNER)
        if owner is not None:
            owner.started(task)
        return task

    def call_soon(  # type: ignore[override]  # typeshed pairs callback and arguments; nothing is gained by it here
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Callback:
        entry = Callback(callback, args, copy_context() if context is None else context)
        if not self.ended:
            self._due.append(entry)
        return entry

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Callback:
        entry = Callback(callback, args, copy_context() if context is None else context)
        # Timers of one instant fire in the order they were set.
        self._timers_set += 1
        heapq.heappush(self._timers, (when, self._timers_set, entry))
        return entry

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Callback:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def put_back(self, withheld: Iterable[Callback]) -> None:
        """Make withheld callbacks ready."""
        self._due.extend(withheld)

    def __del__(self) -> None:
        """Nothing to close: there is no selector, and no thread."""

    def _run_once(self) -> None:
        """The whole run in one call, for asyncio's own loop around this method costs as much as a callback does."""
        due, take_next, owner_of = self._due, self._due.popleft, OWNER
        steps_max = self.steps + STEPS_AN_INSTANT_MAX
        while not self._stopping:
            if not due:
                self._jump()
                steps_max = self.steps + STEPS_AN_INSTANT_MAX
            entry = take_next()
            if entry.off:
                continue
            owner = entry.context.get(owner_of)
            if owner is not None and not owner.running:
                owner.withhold(entry)
                continue
            self.steps += 1
            if self.steps > steps_max:
                raise Livelock(f"at {self._now:.4f}: {', '.join(sorted({_whose(entry) for entry in due}))}")
            try:
                entry.context.run(entry.function, *entry.args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - as asyncio does
                self.call_exception_handler({"message": f"in callback {entry.function}", "exception": error})

    def _jump(self) -> None:
        timers, pop = self._timers, heapq.heappop
        while timers and timers[0][2].off:
            pop(timers)
        if not timers:
            raise Deadlock("no task is ready and no timer is set")
        self._now = now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= now:
            self._due.append(pop(timers)[2])

    def _process_events(self, event_list: Any) -> None:  # noqa: ARG002 - the signature is asyncio's
        raise AssertionError("a simulation does no I/O")

    def _write_to_self(self) -> None:
        pass


def _whose(entry: Callback) -> str:
    owner = entry.context.get(OWNER)
    task = getattr(entry.function, "__self__", None)
    what: Any = task.get_coro() if isinstance(task, asyncio.Task) else entry.function
    return f"{getattr(owner, 'name', 'engine')} {getattr(what, '__qualname__', what)}"
