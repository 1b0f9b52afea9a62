"""Group commit: many concurrent submissions, few calls.

When no call is in flight, a submission is sent at once, so an idle system adds no latency. Submissions that arrive
while a call is in flight are sent together in the next one. No timer is involved: the busier the callee, the fuller the
batch. One component serves every sender and writer: API sends, inbound packing, trigger writes, deliveries and
removals.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from dynein.errors import Overloaded

QueuedT = TypeVar("QueuedT")
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class _Submission(NamedTuple, Generic[ItemT, ResultT]):
    item: ItemT
    weight: int
    future: asyncio.Future[ResultT]


def place_before(queue: Sequence[QueuedT], comes_later: Callable[[QueuedT], bool]) -> int:
    """Where to insert into an ordered queue: before those at its end that come later. Looked for from the end, where
    nearly all belong.
    """
    place = len(queue)
    while place > 0 and comes_later(queue[place - 1]):
        place -= 1
    return place


class Batch(list[ItemT], Generic[ItemT, ResultT]):
    """What ``flush`` gets: the items, and a way to return the result of one before the rest."""

    def __init__(self, submissions: Sequence[_Submission[ItemT, ResultT]]) -> None:
        super().__init__(submission.item for submission in submissions)
        self.futures: list[asyncio.Future[ResultT] | None] = [submission.future for submission in submissions]
        """In the order of the items; ``None`` for those taken."""

    def settle(self, index: int, result: ResultT) -> None:
        """Set the result of the item at ``index`` now; what ``flush`` returns for it later is ignored."""
        future = self.futures[index]
        if future is not None and not future.done():
            future.set_result(result)

    def take(self, index: int) -> asyncio.Future[ResultT]:
        """Take the future of the item at ``index``, once: to be ended later, and not by what ``flush`` returns."""
        future, self.futures[index] = self.futures[index], None
        assert future is not None
        return future

    def unsettled(self) -> list[asyncio.Future[ResultT]]:
        """The futures that are still to be ended, without those taken."""
        return [future for future in self.futures if future is not None and not future.done()]


class GroupCommit(Generic[ItemT, ResultT]):
    """Batches submissions into calls of ``flush``.

    ``flush`` gets between one and ``entries_max`` items of at most ``bytes_max`` in total by ``weigh`` (a single item
    may weigh more: the callee decides whether that is allowed), and returns one result for each, in order. An error
    that it raises becomes the result of every item of that batch. At most ``in_flight_max`` calls are in flight at
    once; another call starts while one is in flight only when a full batch is waiting, so that concurrent calls never
    make batches smaller. With ``in_flight_max=1``, items are sent in the order in which they were submitted; those that
    wait at the same time, in ascending order of ``order`` if that is given.
    """

    def __init__(
        self,
        flush: Callable[[Batch[ItemT, ResultT]], Awaitable[Sequence[ResultT]]],
        *,
        entries_max: int,
        waiting_max: int,
        bytes_max: int | None = None,
        weigh: Callable[[ItemT], int] | None = None,
        in_flight_max: int = 1,
        order: Callable[[ItemT], Any] | None = None,
    ) -> None:
        assert entries_max >= 1
        assert in_flight_max >= 1
        assert (bytes_max is None) == (weigh is None)
        self._flush = flush
        self._weigh = weigh
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._waiting_max = waiting_max
        self._in_flight_max = in_flight_max
        self._order = order
        self._waiting: deque[_Submission[ItemT, ResultT]] = deque()
        self._waiting_bytes = 0
        self._flights: set[asyncio.Task[None]] = set()
        self._launch_scheduled = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting(self) -> int:
        """Submissions not yet in flight, including those cancelled since."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Calls in flight."""
        return len(self._flights)

    @property
    def idle(self) -> bool:
        """Nothing is waiting or in flight."""
        return self._idle.is_set()

    def submit(self, item: ItemT) -> asyncio.Future[ResultT]:
        """Queue ``item``; the future has its result. Raises `Overloaded` when ``waiting_max`` are waiting."""
        if len(self._waiting) >= self._waiting_max:
            raise Overloaded(f"{self._waiting_max} submissions are waiting for one queue already")
        future: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        weight = self._weigh(item) if self._weigh is not None else 0
        submission = _Submission(item, weight, future)
        if self._order is None:
            self._waiting.append(submission)
        else:
            self._waiting.insert(self._place_of(item, self._order), submission)
        self._waiting_bytes += weight
        self._idle.clear()
        if not self._launch_scheduled and self._room_to_fly():
            # In the next iteration of the event loop: submissions made in this one (a batch POST, a page of due
            # triggers) share the first call.
            self._launch_scheduled = True
            asyncio.get_running_loop().call_soon(self._launch)
        return future

    async def drained(self) -> None:
        """Return once nothing is waiting or in flight."""
        await self._idle.wait()

    def _place_of(self, item: ItemT, order: Callable[[ItemT], Any]) -> int:
        """Where in the queue: before those that come later by ``order``."""
        mine = order(item)
        return place_before(self._waiting, lambda waiting: order(waiting.item) > mine)

    def _room_to_fly(self) -> bool:
        if not self._waiting or len(self._flights) >= self._in_flight_max:
            return False
        full = len(self._waiting) >= self._entries_max or (
            self._bytes_max is not None and self._waiting_bytes >= self._bytes_max
        )
        return full or not self._flights

    def _launch(self) -> None:
        self._launch_scheduled = False
        while self._room_to_fly():
            batch = self._take()
            if batch:
                flight = asyncio.ensure_future(self._fly(batch))
                self._flights.add(flight)
                flight.add_done_callback(self._landed)
        if not self._waiting and not self._flights:
            self._idle.set()

    def _take(self) -> list[_Submission[ItemT, ResultT]]:
        """The next batch, without cancelled submissions; empty if too few are left for a concurrent call."""
        batch: list[_Submission[ItemT, ResultT]] = []
        taken_bytes = 0
        full = False
        while self._waiting and not full:
            submission = self._waiting[0]
            if submission.future.cancelled():
                self._waiting.popleft()
                self._waiting_bytes -= submission.weight
                continue
            if batch and self._bytes_max is not None and taken_bytes + submission.weight > self._bytes_max:
                full = True
                break
            batch.append(self._waiting.popleft())
            taken_bytes += submission.weight
            full = len(batch) >= self._entries_max or (self._bytes_max is not None and taken_bytes >= self._bytes_max)
        if self._flights and not full:
            self._waiting.extendleft(reversed(batch))
            return []
        self._waiting_bytes -= taken_bytes
        return batch

    async def _fly(self, submissions: list[_Submission[ItemT, ResultT]]) -> None:
        batch: Batch[ItemT, ResultT] = Batch(submissions)
        try:
            results = await self._flush(batch)
            assert len(results) == len(batch), (len(results), len(batch))
        except asyncio.CancelledError:
            for future in batch.unsettled():
                future.cancel()
            raise
        except BaseException as error:
            for future in batch.unsettled():
                future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            for kept, result in zip(batch.futures, results, strict=True):
                if kept is not None and not kept.done():
                    kept.set_result(result)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        self._launch()
