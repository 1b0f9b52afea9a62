"""Due triggers in memory whose destination's lane is full for the moment, in the order they came."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from dynein.scheduler.shard_buffer import BufferedTrigger, ShardBuffer, Stage


class _Parked(NamedTuple):
    entry: BufferedTrigger
    since: float


class Overflow:
    """By destination queue. What is parked is in hand, so `dynein.scheduler.memory_budget.MemoryBudget` bounds it.

    An entry may leave its hand while it is parked; it is then passed over.
    """

    def __init__(self) -> None:
        self._queues: dict[str, deque[_Parked]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __contains__(self, queue: str) -> bool:
        return queue in self._queues

    def add(self, queue: str, entry: BufferedTrigger, now: float) -> None:
        """Park ``entry`` behind what is parked for ``queue`` already. ``now``: monotonic seconds."""
        self._queues.setdefault(queue, deque()).append(_Parked(entry, now))

    def first(self, queue: str) -> BufferedTrigger | None:
        """The entry that has been parked for longest."""
        parked = self._queues.get(queue)
        while parked:
            if parked[0].entry.stage is not Stage.GONE:
                return parked[0].entry
            self._drop_first(queue)
        return None

    def take_first(self, queue: str) -> None:
        """`first` goes on its way."""
        self._drop_first(queue)

    def take_all(self, queue: str) -> list[BufferedTrigger]:
        """All of a queue's entries: they are parked no more."""
        parked = self._queues.pop(queue, deque())
        return [entry for entry, _ in parked if entry.stage is not Stage.GONE]

    def waiting_since(self, before: float) -> list[str]:
        """Queues with an entry parked before that (monotonic seconds)."""
        return [queue for queue, parked in self._queues.items() if parked[0].since < before]

    def discard(self, buffer: ShardBuffer) -> None:
        """Forget a hand's entries."""
        for queue in list(self._queues):
            left = deque(parked for parked in self._queues[queue] if parked.entry.buffer is not buffer)
            if left:
                self._queues[queue] = left
            else:
                del self._queues[queue]

    def _drop_first(self, queue: str) -> None:
        parked = self._queues[queue]
        parked.popleft()
        if not parked:
            del self._queues[queue]
