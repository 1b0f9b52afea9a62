"""Whose call to SQS is made next: queues take turns, so that those that fail cannot hold up the others.

All queues share one pool of connections. A queue that does not respond holds a connection for the whole of a call's
time limit, and thirty of them, with eight calls each, would hold all there are. So what a queue may hold follows from
what was last heard of it:

===============================================  ======================================================================
a queue                                          may have
===============================================  ======================================================================
whose last call succeeded                        as many calls as its callers make; but the last quarter of the
                                                 connections is for queues that have none under way
whose last call failed, or that had none yet     one call at a time; all such queues together, half of the connections
===============================================  ======================================================================

So a queue that works has to wait for those that do not only if as many as a quarter of the connections, all of which
worked until then, stop responding at the same moment, and then for one call's time limit. Waiting counts against the
time limit of the call that waits.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Container
from typing import TypeVar

from dynein.core.queue_address import name_of

ResultT = TypeVar("ResultT")

QUEUES_MAX = 10_000
"""Queues of which it is remembered that they work; the one that was not called for longest is forgotten first."""


class _Queue:
    def __init__(self, name: str, *, works: bool, always: bool) -> None:
        self.name = name
        self.works = works
        self.always = always
        """Taken for one that works whatever becomes of its calls."""
        self.calls = 0
        self.waiting: OrderedDict[asyncio.Future[bool], None] = OrderedDict()
        self.line: OrderedDict[_Queue, None] | None = None
        """The line in which it stands."""


class Turns:
    """The turns of one SQS client, which has ``calls_max`` connections. ``trusted``: names of queues that are always
    taken for queues that work, because nothing works without them: our own.
    """

    def __init__(self, calls_max: int, trusted: Container[str] = ()) -> None:
        self._calls_max = calls_max
        self._shared_max = max(1, calls_max - calls_max // 4)
        self._probes_max = max(1, calls_max // 2)
        self._trusted = trusted
        self._calls = 0
        self._probes = 0
        """Calls under way that began when their queue was not known to work."""
        self._queues: OrderedDict[str, _Queue] = OrderedDict()
        # Queues whose callers wait, by what they have under way. Those of one line take turns.
        self._first_call: OrderedDict[_Queue, None] = OrderedDict()
        self._first_probe: OrderedDict[_Queue, None] = OrderedDict()
        self._more_calls: OrderedDict[_Queue, None] = OrderedDict()

    async def take(self, name: str, call: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Await ``call`` for the queue ``name`` (its name or URL) as soon as it is its turn."""
        queue = self._queue(name)
        is_probe = await self._turn(queue)
        try:
            return await call()
        finally:
            self._end(queue, is_probe=is_probe)

    def heard(self, name: str, *, works: bool) -> None:
        """How the last call for ``name`` has ended: it succeeded, or it failed."""
        queue = self._queue(name)
        if not queue.always and queue.works != works:
            queue.works = works
            self._line_up(queue)
            self._go_on()
        self._forget_some(queue)

    # --- turns ------------------------------------------------------------------------------------------------------

    async def _turn(self, queue: _Queue) -> bool:
        """Return when a call may be made; it has begun then. Whether it is a probe."""
        if not queue.waiting and self._may_begin(queue):
            return self._begin(queue)
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        queue.waiting[turn] = None
        self._line_up(queue)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._end(queue, is_probe=turn.result())
            else:
                queue.waiting.pop(turn, None)
                self._line_up(queue)
                self._forget_some(queue)
            raise

    def _may_begin(self, queue: _Queue) -> bool:
        if queue.works:
            return self._calls < (self._shared_max if queue.calls else self._calls_max)
        return not queue.calls and self._probes < self._probes_max and self._calls < self._shared_max

    def _begin(self, queue: _Queue) -> bool:
        self._calls += 1
        queue.calls += 1
        is_probe = not queue.works
        self._probes += is_probe
        return is_probe

    def _end(self, queue: _Queue, *, is_probe: bool) -> None:
        self._calls -= 1
        queue.calls -= 1
        self._probes -= is_probe
        self._line_up(queue)
        self._go_on()
        self._forget_some(queue)

    def _line_up(self, queue: _Queue) -> None:
        """Put it at the end of the line that it belongs into now, if that is another one, or out of any."""
        line: OrderedDict[_Queue, None] | None = None
        if queue.waiting:
            if queue.works:
                line = self._more_calls if queue.calls else self._first_call
            elif not queue.calls:
                line = self._first_probe
        if line is not queue.line:
            if queue.line is not None:
                del queue.line[queue]
            if line is not None:
                line[queue] = None
            queue.line = line

    def _go_on(self) -> None:
        """Begin all calls that may begin."""
        while (queue := self._next()) is not None:
            turn, _ = queue.waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(self._begin(queue))
            if queue.line is not None:  # to the end of it, should it stay there
                del queue.line[queue]
                queue.line = None
            self._line_up(queue)

    def _next(self) -> _Queue | None:
        for line in (self._first_probe, self._first_call, self._more_calls):
            queue = next(iter(line), None)
            if queue is not None and self._may_begin(queue):
                return queue
        return None

    # --- queues -----------------------------------------------------------------------------------------------------

    def _queue(self, name: str) -> _Queue:
        queue = self._queues.get(name)
        if queue is None:
            always = name_of(name) in self._trusted
            queue = self._queues[name] = _Queue(name, works=always, always=always)
        else:
            self._queues.move_to_end(name)
        return queue

    def _forget_some(self, queue: _Queue) -> None:
        """Of one that fails nothing need be remembered: it is treated as one that was never heard of."""
        if not queue.works and not queue.calls and not queue.waiting:
            self._queues.pop(queue.name, None)
        elif len(self._queues) > QUEUES_MAX:
            oldest = next(iter(self._queues.values()))
            if not oldest.calls and not oldest.waiting:
                del self._queues[oldest.name]
