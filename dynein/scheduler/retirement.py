"""Which buckets are known to be empty, and when they may be retired. Pure.

::

    RETIRED ──a renewal retired less than asked──▶ REFUSED
    REFUSED ──a renewal retired all that was asked──▶ RETIRED
    REFUSED ──a page was read, something can be retired now──▶ AT_ONCE
    AT_ONCE ──a page was read, nothing can be retired any more──▶ REFUSED
    AT_ONCE ──any renewal──▶ RETIRED

A renewal retires on condition that the count of late writes has not changed. Where late writes come many a second, it
always has by the next tick, and buckets would stay open for ever. So a plan that was refused asks for a renewal of its
own right after a read, the moment at which the count that it knows is freshest. Once a tick at most: what came of such
a renewal is accepted, and the next refusal is that of a tick.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from dynein.core.shard_records import ShardRecord
from dynein.scheduler.range_scan import Empty
from dynein.scheduler.read_states import Event, State, after


def retire_before(first_open: int, empty: Mapping[int, int], late_writes: int, buffered: Container[int] = ()) -> int:
    """The bucket before which all are finished with. ``empty``: late writes seen before each bucket's empty read.

    A count that has changed since voids the finding: the late write may be in that very bucket. ``buffered`` are the
    buckets of which triggers are in memory.
    """
    bucket = first_open
    while empty.get(bucket) == late_writes and bucket not in buffered:
        bucket += 1
    return bucket


class Retirement:
    """The empty buckets of one shard, and what became of the last attempt to retire some."""

    def __init__(self, first_open: int) -> None:
        self.state = State.RETIRED
        self.asked = first_open
        """The bucket before which all were to be retired when that was asked last."""
        self._empty: dict[int, int] = {}

    def found(self, empty: Empty) -> None:
        """Note what a read has proven."""
        self._empty[empty.bucket] = empty.late_writes

    def oldest_unproven(self, record: ShardRecord) -> int:
        """The first open bucket that is not known to be empty."""
        return retire_before(record.retired_before, self._empty, record.late_writes)

    def retire_before(self, record: ShardRecord, buffered: Container[int]) -> int:
        """See `dynein.scheduler.read_plan.ReadPlan.retire_before`."""
        self.asked = retire_before(record.retired_before, self._empty, record.late_writes, buffered)
        return self.asked

    def renewed(self, record: ShardRecord) -> None:
        """The lease was renewed: ``record`` says what has been retired."""
        first_open = record.retired_before
        self.state = after(self.state, Event.RENEWED_ONLY if self.asked > first_open else Event.RENEWED)
        if self._empty and min(self._empty) < first_open:
            self._empty = {bucket: late for bucket, late in self._empty.items() if bucket >= first_open}

    def should_retire_at_once(self, record: ShardRecord, buffered: Container[int]) -> bool:
        """See `dynein.scheduler.read_plan.ReadPlan.should_retire_at_once`."""
        if self.state is State.RETIRED:
            return False
        retirable = self.retire_before(record, buffered) > record.retired_before
        self.state = after(self.state, Event.RETIRABLE if retirable else Event.NOT_RETIRABLE)
        return retirable
