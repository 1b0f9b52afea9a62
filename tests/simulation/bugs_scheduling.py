"""Bugs in who owns a shard, what is read of it, and when a bucket is finished with."""

from __future__ import annotations

from typing import Any

from dynein.core.keys import TriggerKey, bucket_of
from dynein.core.shard_records import ShardRecord
from dynein.core.trigger_store import Cancelled
from dynein.fleet.staleness import Staleness
from dynein.scheduler.lease import Lease, LeaseTimes
from dynein.scheduler.lease_keeper import LeaseKeeper
from dynein.scheduler.memory_budget import MemoryBudget
from dynein.scheduler.range_scan import RangeScan
from dynein.scheduler.read_plan import ReadPlan, View
from dynein.scheduler.shard_buffer import ShardBuffer
from dynein.scheduler.shard_reader import ShardReader
from dynein.testing.table_state import TableState
from tests.simulation.engines import WiredTable
from tests.simulation.mutation import Mutation, answer, instead, result, returns


def _retire_unseen(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    def retire_before(self: ReadPlan, record: ShardRecord, buffered: Any) -> int:  # noqa: ARG001 - see its name
        return max(record.retired_before, bucket_of(self.passed_ms, self.bucket_width_ms))

    return retire_before


def _no_grace(original: Any) -> Any:
    def plan(*args: Any, **kwargs: Any) -> None:
        original(*args, **(kwargs | {"retire_grace_ms": 0}))

    return plan


def _late_writes_do_not_matter(original: Any) -> Any:
    def renew(self: TableState, mine: Any, *marks: int) -> Any:
        now = self.shards[mine.shard].late_writes
        return original(self, mine._replace(late_writes=now), *marks)

    return renew


def _cancel_ignores_marks(original: Any) -> Any:
    def cancel(self: TableState, key: TriggerKey) -> Any:
        record = self.shards[key.shard]
        self.shards[key.shard] = record._replace(read_mark_ms=0, hold_mark_ms=0)
        try:
            return original(self, key)
        finally:
            self.shards[key.shard] = record

    return cancel


def _cancel_what_is_there(original: Any) -> Any:
    def cancel(self: TableState, key: TriggerKey) -> Any:
        there = self.trigger(key) is not None or self.tombstone(key) is not None
        return original(self, key) if there else Cancelled.CANCELLED

    return cancel


def _short_lived(original: Any) -> Any:
    def put_tombstone(self: TableState, tombstone: Any) -> None:
        ttl_s, self._marker_ttl_s = self._marker_ttl_s, 5.0
        original(self, tombstone)
        self._marker_ttl_s = ttl_s

    return put_tombstone


def _forget_read_mark(original: Any) -> Any:
    async def renew(self: WiredTable, mine: Any, *, read_mark_ms: int, **marks: int) -> Any:  # noqa: ARG001
        return await original(self, mine, read_mark_ms=mine.read_mark_ms, **marks)

    return renew


def _take_healthy(original: Any) -> Any:
    async def take(self: WiredTable, seen: Any, owner: str) -> Any:
        now = self._table.shards()[seen.shard]
        return await original(self, now, owner)

    return take


def _mark_just_raised(original: Any) -> Any:
    def view(self: ShardReader) -> Any:
        return original(self)._replace(readable_ms=self.lease.record.read_mark_ms)

    return view


def _last_millisecond(original: Any) -> Any:
    async def read(self: WiredTable, *args: Any, until_ms: int, **kwargs: Any) -> Any:
        return await original(self, *args, until_ms=until_ms - 1, **kwargs)

    return read


def _on_this_page(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    return lambda self, page: {tombstone.key for tombstone in page.tombstones}  # noqa: ARG005


def _all_ever_seen(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    return lambda self, seconds, now: list(self._seen)  # noqa: ARG005


def _half(original: Any) -> Any:
    return lambda self, slots: original(self, slots // 2 if slots > 1 else slots)


def _no_late_writes(original: Any) -> Any:
    def start_reread(self: ReadPlan, view: View) -> Any:
        self._looked_for = (view.record.late_writes, view.settled_late_writes)
        return original(self, view)

    return start_reread


BUGS = (
    Mutation("trust a lease for ever", Lease, "valid", returns(value=True)),
    Mutation("trust a lease to its end, as if a send took no time", LeaseTimes, "send_timeout_s", instead(0.0)),
    Mutation("take a shard whose owner is alive", WiredTable, "take", _take_healthy),
    Mutation("no fencing: renew whoever owns the shard", TableState, "_still_owned", returns(value=True)),
    Mutation("never release a shard", LeaseKeeper, "_release", answer(None)),
    Mutation("release a shard while sends are under way", ShardBuffer, "settled", returns(value=True)),
    Mutation("a member that died keeps its share", Staleness, "changed_within", _all_ever_seen),
    Mutation("read without raising the read mark", WiredTable, "renew", _forget_read_mark),
    Mutation("read up to a mark that has just been raised", ShardReader, "_view", _mark_just_raised),
    Mutation("do not read again for late writes", ReadPlan, "_start_reread", _no_late_writes),
    Mutation("do not read again what was evicted", ShardBuffer, "note_evicted", returns(value=None)),
    Mutation("leave out the last millisecond of what is read", WiredTable, "read", _last_millisecond),
    Mutation("read only one page of a range", WiredTable, "read", result(lambda page: page._replace(resume=None))),
    Mutation("buffer what was removed while it was read", ShardBuffer, "watch_removals", returns(value=set())),
    Mutation("release half of the memory of a page", MemoryBudget, "give_back", _half),
    Mutation("ignore `UnprocessedItems` of a removal", WiredTable, "remove", result(lambda left: left[:0])),
    Mutation("a dispatcher ignores tombstones", RangeScan, "cancelled", returns(value=set())),
    Mutation("a dispatcher ignores tombstones of other pages", RangeScan, "cancelled", _on_this_page),
    Mutation("cancel without checking the marks", TableState, "cancel", _cancel_ignores_marks),
    Mutation("no tombstone for what is not stored yet", TableState, "cancel", _cancel_what_is_there),
    Mutation("tombstones do not last", TableState, "put_tombstone", _short_lived),
    Mutation("retire buckets that may not be empty", ReadPlan, "retire_before", _retire_unseen),
    Mutation("retire buckets as soon as they have ended", ReadPlan, "__init__", _no_grace),
    Mutation("retire a bucket although late writes were counted", TableState, "renew", _late_writes_do_not_matter),
)
