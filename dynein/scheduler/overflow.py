"""Due triggers that their destination's lane has no room for: which of them wait in memory, and which are evicted.

A lane that is full because it is busy has room again soon: its further due triggers wait here, in the order they came,
and each delivery that ends lets the next one in. A destination that fails, or has kept triggers waiting for
`PARKED_MAX_S`, must not take memory from others: its triggers are evicted. They are still stored, and their shards'
readers read them again, from the earliest on, when little is left in the lane.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dynein.core.job import Job
from dynein.core.queue_address import is_fifo
from dynein.delivery.delivery import Delivery
from dynein.runtime.clock import Clock
from dynein.runtime.group_commit import place_before
from dynein.scheduler.memory_budget import LaneShares
from dynein.scheduler.shard_buffer import BufferedTrigger, ShardBuffer, Stage

PARKED_MAX_S = 10.0
"""A destination with due triggers parked for longer is slow: it must not take memory from others."""


class _Parked(NamedTuple):
    entry: BufferedTrigger
    since: float
    """Monotonic seconds. Not later than that of those behind it."""


class Overflow:
    """By destination queue. What is parked is buffered, so `dynein.scheduler.memory_budget.MemoryBudget` bounds it.

    An entry may leave its buffer while it is parked; it is then passed over.

    ``send`` puts a trigger into its lane, or returns ``False`` when that has no room. ``has_drained`` is called with
    the name of a destination of which triggers were evicted, once little is left in its lane.
    """

    def __init__(
        self,
        delivery: Delivery,
        lanes: LaneShares,
        clock: Clock,
        *,
        send: Callable[[BufferedTrigger, Job], bool],
        has_drained: Callable[[str], None],
    ) -> None:
        self._delivery = delivery
        self._lanes = lanes
        self._clock = clock
        self._send = send
        self._has_drained = has_drained
        self._parked: dict[str, deque[_Parked]] = {}
        self._low_marks: dict[str, int] = {}
        """Destinations with evicted triggers: how few slots left in their lanes make it worth while to read those
        again before a tick. Bounded by the number of destination queues."""
        delivery.when_failing.append(self.evict_parked)

    def __len__(self) -> int:
        return sum(map(len, self._parked.values()))

    def __contains__(self, queue: str) -> bool:
        """Is a trigger parked for ``queue``? Later ones must not overtake it."""
        return queue in self._parked

    def has_room(self, queue: str) -> bool:
        """Would the lane of ``queue`` take a due trigger now? If not, ``has_drained`` will be called for it."""
        if self._lanes.has_share(queue) and self._delivery.has_room(queue):
            return True
        self._mark_low(queue)
        return False

    def add(self, entry: BufferedTrigger, queue: str) -> None:
        """Park ``entry`` behind what is parked for ``queue`` already, or evict it.

        It is evicted if the destination fails, or if nothing is in its lane (the others take all of the memory that
        lanes may have): then no delivery will end soon that would let it in.
        """
        if self._lanes.slots_of(queue) and not self._delivery.is_failing(queue):
            parked = self._parked.setdefault(queue, deque())
            place = _place_of(entry, queue, parked)
            since = parked[place].since if place < len(parked) else self._clock.monotonic()
            parked.insert(place, _Parked(entry, since))
        else:
            self.evict(entry, queue)

    def lane_drained(self, queue: str, slots_left: int) -> None:
        """A delivery to ``queue`` has ended and left so much in its lane: those that were parked for it come next."""
        if queue in self._parked:
            self._refill(queue)
        if slots_left <= self._low_marks.get(queue, -1):
            del self._low_marks[queue]
            self._has_drained(queue)

    # --- evicting ---------------------------------------------------------------------------------------------------

    def evict(self, entry: BufferedTrigger, queue: str) -> None:
        """Forget ``entry``: it is read again when the lane of ``queue`` has room, or at the next tick."""
        self._mark_low(queue)
        entry.buffer.evict(entry)

    def evict_parked(self, queue: str) -> None:
        """Evict all that is parked for ``queue``."""
        for entry, _ in self._parked.pop(queue, ()):
            if entry.stage is not Stage.GONE:
                self.evict(entry, queue)

    def evict_slow(self) -> None:
        """Leave slow destinations no more of the memory than their lanes take. Called once a tick."""
        parked_before = self._clock.monotonic() - PARKED_MAX_S
        for queue in [queue for queue, parked in self._parked.items() if parked[0].since < parked_before]:
            self.evict_parked(queue)

    def discard(self, buffer: ShardBuffer) -> None:
        """Forget a buffer's entries: its shard is no longer ours."""
        for queue in list(self._parked):
            left = deque(parked for parked in self._parked[queue] if parked.entry.buffer is not buffer)
            if left:
                self._parked[queue] = left
            else:
                del self._parked[queue]

    def _mark_low(self, queue: str) -> None:
        self._low_marks.setdefault(queue, self._lanes.slots_of(queue) // 4)

    # --- parked ones whose turn has come ----------------------------------------------------------------------------

    def _refill(self, queue: str) -> None:
        while (entry := self._first(queue)) is not None:
            assert entry.job is not None
            if not entry.buffer.lease.valid():
                self._drop_first(queue)
                entry.buffer.evict(entry)
            elif self._send(entry, entry.job):
                self._drop_first(queue)
            else:
                return

    def _first(self, queue: str) -> BufferedTrigger | None:
        """The entry that has been parked for longest."""
        parked = self._parked.get(queue)
        while parked:
            if parked[0].entry.stage is not Stage.GONE:
                return parked[0].entry
            self._drop_first(queue)
        return None

    def _drop_first(self, queue: str) -> None:
        parked = self._parked[queue]
        parked.popleft()
        if not parked:
            del self._parked[queue]


def _place_of(entry: BufferedTrigger, queue: str, parked: Sequence[_Parked]) -> int:
    """At the end; on a FIFO queue before those that are due later."""
    if not is_fifo(queue):
        return len(parked)
    key = entry.trigger.key
    return place_before(parked, lambda waiting: waiting.entry.trigger.key > key)
