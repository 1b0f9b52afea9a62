"""An event loop on virtual time, which knows whose callback it is about to run."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any, Protocol


class Gatekeeper(Protocol):
    """Decides whether a callback of its own may run now."""

    def admits(self, handle: asyncio.Handle) -> bool:
        """``False``: it is withheld, or never runs."""

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Told of every task that its code starts."""


OWNER: ContextVar[Gatekeeper | None] = ContextVar("OWNER", default=None)
"""Whose code is running. Tasks, timers and future callbacks inherit it, as they do every context variable."""


class Deadlock(Exception):
    """Nothing can ever happen again, and the run is not over."""


class Livelock(Exception):
    """Callbacks beget callbacks, and time does not move on."""


STEPS_AN_INSTANT_MAX = 200_000


class SimulationLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order they became ready. When none is, time jumps to the next timer: nobody ever waits."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual_now = 0.0
        self.steps = 0
        self._steps_at_jump = 0
        self.ended = False
        self._ready: Any
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_set = 0
        self.set_task_factory(_make_task)

    def time(self) -> float:
        """Virtual seconds since the run began."""
        return self._virtual_now

    def end(self) -> None:
        """From now on nothing is scheduled any more: code of the dead that is being tidied away finds no loop."""
        self.ended = True
        for handle in [*self._ready, *(timer for _, _, timer in self._timers)]:
            handle._cancelled = True
        self._ready.clear()
        self._timers.clear()

    def call_soon(  # type: ignore[override]  # typeshed pairs callback and arguments; nothing is gained by it here
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self.ended:
            self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        # Timers of one instant fire in the order they were set.
        self._timers_set += 1
        heapq.heappush(self._timers, (when, self._timers_set, timer))
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._virtual_now + delay, callback, *args, context=context)

    def __del__(self) -> None:
        """Nothing to close: there is no selector, and no thread."""

    def _run_once(self) -> None:
        ready = self._ready
        if not ready:
            self._jump()
            self._steps_at_jump = self.steps
        elif self.steps - self._steps_at_jump > STEPS_AN_INSTANT_MAX:
            self._steps_at_jump = self.steps
            raise Livelock(f"at {self._virtual_now:.4f}: {', '.join(sorted({_whose(handle) for handle in ready}))}")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            owner = handle._context.get(OWNER)
            if owner is not None and not owner.admits(handle):
                continue
            self.steps += 1
            handle._run()

    def _jump(self) -> None:
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers:
            raise Deadlock("no task is ready and no timer is set")
        self._virtual_now = max(self._virtual_now, timers[0][0])
        while timers and timers[0][0] <= self._virtual_now:
            self._ready.append(heapq.heappop(timers)[2])

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are passed over when their time comes."""

    def put_back(self, handles: list[asyncio.Handle]) -> None:
        """Make withheld callbacks ready."""
        self._ready.extend(handles)

    def _process_events(self, event_list: Any) -> None:  # noqa: ARG002 - the signature is asyncio's
        raise AssertionError("a simulation does no I/O")

    def _write_to_self(self) -> None:
        pass


def _whose(handle: Any) -> str:
    owner = handle._context.get(OWNER)
    task = getattr(handle._callback, "__self__", None)
    what: Any = task.get_coro() if isinstance(task, asyncio.Task) else handle._callback
    return f"{getattr(owner, 'name', 'engine')} {getattr(what, '__qualname__', what)}"


def _make_task(loop: asyncio.AbstractEventLoop, work: Any, context: Context | None = None) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
    owner = OWNER.get() if context is None else context.get(OWNER)
    if owner is not None:
        owner.adopt(task)
    return task
