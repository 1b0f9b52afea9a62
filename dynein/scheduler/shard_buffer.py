"""The triggers of a shard that are in memory: read from the store, not yet removed from it.

::

    READ ──due──▶ IN_LANE ──may_send──▶ TRYING ──acknowledged──▶ REMOVING ──removed──▶ GONE
      │              │                    │
      └──────────────┴── evicted: still stored, read again later ──▶ GONE

A trigger with a tombstone goes from READ to REMOVING; one whose record cannot be read, from READ to TRYING (the
dead-letter queue) to REMOVING.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import Protocol

from dynein.core.due_job import Outcome
from dynein.core.job import Job
from dynein.core.keys import TriggerKey, bucket_of
from dynein.core.trigger import Trigger, slots
from dynein.runtime.clock import Clock
from dynein.scheduler.memory_budget import MemoryBudget


class Validity(Protocol):
    """What a buffer needs to know of its lease."""

    def valid(self) -> bool:
        """May anything be sent for the shard now?"""


class Stage(Enum):
    """Where a buffered trigger is; see the drawing above."""

    READ = auto()
    IN_LANE = auto()
    TRYING = auto()
    REMOVING = auto()
    GONE = auto()


class BufferedTrigger:
    """One trigger. ``job`` is ``None`` if its record cannot be read or need not be (it has a tombstone)."""

    __slots__ = ("buffer", "future", "job", "slots", "stage", "tried_at", "trigger")

    def __init__(self, buffer: ShardBuffer, trigger: Trigger, job: Job | None) -> None:
        self.buffer = buffer
        self.trigger = trigger
        self.job = job
        self.slots = slots(len(trigger.record))
        self.stage = Stage.READ
        self.tried_at = 0.0
        self.future: asyncio.Future[Outcome] | None = None

    def may_send(self) -> bool:
        """Asked right before each try: is the shard still ours, by a clock that cannot step?"""
        if self.buffer.closed or not self.buffer.lease.valid():
            return False
        self.stage = Stage.TRYING
        self.tried_at = self.buffer.clock.monotonic()
        return True


class ShardBuffer:
    """What is buffered of one shard, and of which destinations triggers had to be evicted since they were read."""

    def __init__(self, lease: Validity, memory: MemoryBudget, clock: Clock, bucket_width_ms: int) -> None:
        self.lease = lease
        self.clock = clock
        self.closed = False
        self.scheduled = 0
        """The slots of those that wait for their due time."""
        self.evicted: dict[str, int] = {}
        """By destination queue: the earliest due time of a trigger that was evicted and has to be read again.

        As long as a queue is in here, later triggers of it are evicted too: the oldest go first, and one reread from
        there on finds them all. Bounded by the number of destination queues."""
        self._memory = memory
        self._width_ms = bucket_width_ms
        self._entries: dict[TriggerKey, BufferedTrigger] = {}
        self._buckets: dict[int, int] = {}
        self._removed_meanwhile: set[TriggerKey] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: TriggerKey) -> bool:
        return key in self._entries

    def watch_removals(self) -> set[TriggerKey]:
        """What is removed from now on, until the next call: a page read meanwhile may still show it.

        Bounded by what is buffered now.
        """
        self._removed_meanwhile = set()
        return self._removed_meanwhile

    @property
    def buckets(self) -> Mapping[int, int]:
        """How many triggers of each bucket are buffered; buckets without are not listed."""
        return self._buckets

    def unsent(self, until_ms: int) -> tuple[int, int | None]:
        """How many triggers due by ``until_ms`` have not been acknowledged, and the earliest due time among them."""
        # By key first: most of what is buffered is due later, and there may be tens of thousands.
        due = [key for key in self._entries if key[0] <= until_ms and self._entries[key].stage is not Stage.REMOVING]
        return len(due), min(due)[0] if due else None

    def add(self, trigger: Trigger, job: Job | None) -> BufferedTrigger:
        """Buffer a trigger. One slot of memory was reserved for it before; what more it needs is taken now."""
        assert trigger.key not in self._entries, trigger.key
        entry = self._entries[trigger.key] = BufferedTrigger(self, trigger, job)
        self._memory.take_more(entry.slots - 1)
        bucket = bucket_of(trigger.key.due_at_ms, self._width_ms)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        return entry

    def drop(self, entry: BufferedTrigger) -> None:
        """Forget an entry: its trigger is removed, or will be read again."""
        if entry.stage is Stage.GONE:
            return
        key = entry.trigger.key
        if entry.stage is Stage.REMOVING and self._removed_meanwhile is not None:
            self._removed_meanwhile.add(key)
        entry.stage = Stage.GONE
        del self._entries[key]
        bucket = bucket_of(key.due_at_ms, self._width_ms)
        left = self._buckets[bucket] - 1
        if left:
            self._buckets[bucket] = left
        else:
            del self._buckets[bucket]
        self._memory.give_back(entry.slots)

    def evict(self, entry: BufferedTrigger) -> None:
        """Forget an entry whose trigger is still stored, and remember to read it again."""
        if entry.stage is Stage.GONE:
            return
        if not self.closed and entry.job is not None:
            self.note_evicted(entry.job.queue, entry.trigger.key.due_at_ms)
        self.drop(entry)

    def note_evicted(self, queue: str, from_ms: int) -> None:
        """Triggers of ``queue`` that are due from ``from_ms`` on have to be read again."""
        self.evicted[queue] = min(from_ms, self.evicted.get(queue, from_ms))

    def take_back(self, queues: Iterable[str]) -> None:
        """All evicted triggers of ``queues`` are about to be read again."""
        for queue in queues:
            self.evicted.pop(queue, None)

    def close(self) -> None:
        """Forget all that is not on its way: nothing of this shard is sent from now on."""
        if self.closed:
            return
        self.closed = True
        self.evicted.clear()
        for entry in list(self._entries.values()):
            if entry.stage in (Stage.READ, Stage.IN_LANE):
                self.drop(entry)
                if entry.future is not None:
                    entry.future.cancel()

    def settled(self, now: float, send_timeout_s: float) -> bool:
        """Once closed: is every send over, and every acknowledged one removed?

        A try that began ``send_timeout_s`` ago is over, whatever its lane is waiting for: it will not be repeated.
        """
        assert self.closed
        return not any(
            entry.stage is Stage.REMOVING or now - entry.tried_at < send_timeout_s for entry in self._entries.values()
        )
