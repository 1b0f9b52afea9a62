"""Bugs at the marks: an off-by-one at each; late writes reported wrongly; retirement by a count of a wrong moment."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from dynein.core.keys import TriggerKey
from dynein.core.shard_records import ShardRecord
from dynein.core.trigger import Trigger
from dynein.ingest import late_writes
from dynein.ingest.late_writes import LateWrites
from dynein.ingest.marks_cache import MarksCache
from dynein.scheduler import range_scan, retirement
from dynein.scheduler.range_scan import Empty, RangeScan, _last_due_ms
from dynein.scheduler.retirement import Retirement
from dynein.scheduler.shard_reader import ShardReader
from dynein.testing.table_state import TableState
from tests.simulation.mutation import Mutation


def _at_the_mark(original: Any) -> Any:
    """A cancel or move of a job due exactly at a mark is let through."""

    def stop(self: TableState, key: TriggerKey, *rest: Any) -> Any:
        record = self.shards[key.shard]
        lower = record._replace(read_mark_ms=record.read_mark_ms - 1, hold_mark_ms=record.hold_mark_ms - 1)
        self.shards[key.shard] = lower
        try:
            return original(self, key, *rest)
        finally:
            self.shards[key.shard] = record._replace(late_writes=self.shards[key.shard].late_writes)

    return stop


def _moved_at_the_mark(original: Any) -> Any:
    def move(self: TableState, key: TriggerKey, to: Trigger) -> Any:
        before = self.shards[key.shard]
        outcome = original(self, key, to)
        if to.key.due_at_ms == before.read_mark_ms:
            self.shards[key.shard] = self.shards[key.shard]._replace(late_writes=before.late_writes)
        return outcome

    return move


def _moved_unreported(original: Any) -> Any:
    def move(self: TableState, key: TriggerKey, to: Trigger) -> Any:
        before = self.shards[key.shard]
        outcome = original(self, key, to)
        self.shards[key.shard] = self.shards[key.shard]._replace(late_writes=before.late_writes)
        return outcome

    return move


def _not_at_equality(original: Any) -> Any:
    async def report(self: LateWrites, stored: Sequence[Trigger]) -> list[Trigger]:
        known = {trigger.key.shard for trigger in stored}
        await self._marks.refresh(known)
        marks = {shard: self._marks.known(shard) for shard in known}
        later = [t for t in stored if (m := marks[t.key.shard]) is None or t.key.due_at_ms != m.read_mark_ms]
        unread: list[Trigger] = await original(self, later)
        return unread

    return report


def _another_shard(original: Any) -> Any:
    def report(self: LateWrites, shard: int, bucket: int) -> Any:
        return original(self, min([other for other in self._marks._known if other != shard], default=shard), bucket)

    return report


def _first_shard(original: Any) -> Any:
    def report(self: LateWrites, shard: int, bucket: int) -> Any:  # noqa: ARG001 - the bug
        return original(self, 0, bucket)

    return report


def _all_will_be_read(original: Any) -> Any:
    async def report(self: LateWrites, shard: int, buckets: Sequence[int]) -> list[bool]:
        return [True] * len(await original(self, shard, buckets))

    return report


def _only_the_first_retired(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    async def report(self: LateWrites, shard: int, buckets: Sequence[int]) -> list[bool]:
        will_be_read = await self._shards.report_late(shard, min(buckets))
        return [will_be_read] * len(buckets)

    return report


def _marks_of_before(original: Any) -> Any:
    async def refresh(self: MarksCache, shards: Any) -> None:
        await original(self, [shard for shard in shards if shard not in self._known])

    return refresh


def _never_behind(original: Any) -> Any:
    def may_be_read(due_at_ms: int, known: Any, *, now_ms: int, now: float, **rest: int) -> bool:
        rest["skew_max_ms"] = 0
        del now
        return bool(original(due_at_ms, known, now_ms=now_ms, now=known.as_of, **rest))

    return may_be_read


def _mark_too_low(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    return lambda self, shard, due: (k := self._known.get(shard)) is None or k.cancel_mark_ms < due - 1


def _mark_by_now(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    def covered(self: MarksCache, shard: int, due_at_ms: int) -> bool:
        known = self._known.get(shard)
        return known is None or known.cancel_mark_ms < min(due_at_ms, self._clock.now_ms())

    return covered


def _one_ms_unread(original: Any) -> Any:
    def after(self: RangeScan, page: Any) -> RangeScan:
        scan: RangeScan = original(self, page)
        return scan._replace(next_ms=scan.next_ms + 1) if page.resume is None and scan.done else scan

    return after


def _one_ms_between_scans(original: Any) -> Any:
    def over(from_ms: int, until_ms: int, bucket_width_ms: int) -> RangeScan:
        begun: RangeScan = original(from_ms, until_ms, bucket_width_ms)
        return begun if until_ms <= from_ms else begun._replace(next_ms=from_ms + 1)

    return staticmethod(over)


def _page_passed_as_a_whole(original: Any) -> Any:
    def after(self: RangeScan, page: Any) -> RangeScan:
        scan: RangeScan = original(self, page)
        if page.resume is None:
            return scan
        # The next page begins at the next millisecond, though this one may end in the middle of one.
        return (
            scan._replace(next_ms=_last_due_ms(page) + 1, resume=None)
            if _last_due_ms(page) < self.request.until_ms
            else scan
        )

    return after


def _last_ms(original: Any) -> Any:
    return lambda bucket, width_ms: original(bucket, width_ms) - 1


def _any_count(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    def retire_before(
        first_open: int, empty: Mapping[int, int], late_writes: int, buffered: Container[int] = ()
    ) -> int:
        del late_writes
        bucket = first_open
        while bucket in empty and bucket not in buffered:
            bucket += 1
        return bucket

    return retire_before


def _count_of_now(original: Any) -> Any:
    def renewed(self: Retirement, record: ShardRecord) -> None:
        original(self, record)
        self._empty = dict.fromkeys(self._empty, record.late_writes)

    return renewed


def _count_after_the_read(original: Any) -> Any:
    async def step(self: ShardReader, turn: Any) -> Any:
        found = self.plan._retirement

        def note(empty: Empty) -> None:
            Retirement.found(found, empty._replace(late_writes=self.lease.record.late_writes))

        found.found = note  # type: ignore[method-assign]
        return await original(self, turn)

    return step


def _each_page_counts(original: Any) -> Any:
    def begin(self: RangeScan, **kwargs: Any) -> RangeScan:
        return (original(self._replace(resume=None), **kwargs))._replace(resume=self.resume)  # type: ignore[no-any-return]

    return begin


def _while_buffered(original: Any) -> Any:
    def retire_before(self: Retirement, record: ShardRecord, buffered: Container[int]) -> int:
        del buffered
        return int(original(self, record, ()))

    return retire_before


def _one_bucket_more(original: Any) -> Any:
    def retire_before(self: Retirement, record: ShardRecord, buffered: Container[int]) -> int:
        before = int(original(self, record, buffered))
        return before + (before > record.retired_before)

    return retire_before


BUGS = (
    Mutation("cancel a job that is due at the mark", TableState, "cancel", _at_the_mark),
    Mutation("move a job that is due at the mark", TableState, "move", _at_the_mark),
    Mutation("a move to the mark is not counted as a late write", TableState, "move", _moved_at_the_mark),
    Mutation("a move behind the mark is not counted as a late write", TableState, "move", _moved_unreported),
    Mutation("a write at the mark is not reported late", LateWrites, "report", _not_at_equality),
    Mutation("report a late write for another shard", LateWrites, "_report", _another_shard),
    Mutation("report every late write for shard 0", LateWrites, "_report", _first_shard),
    Mutation("retired buckets are taken for open", LateWrites, "_report_together", _all_will_be_read),
    Mutation(
        "one retired bucket makes all late writes unreadable", LateWrites, "_report_together", _only_the_first_retired
    ),
    Mutation("check late writes against marks of before the write", MarksCache, "refresh", _marks_of_before),
    Mutation(
        "suspect no write that was ahead of the mark when that was read", late_writes, "may_be_read", _never_behind
    ),
    Mutation("the hold mark may be a millisecond short", MarksCache, "_short_of", _mark_too_low),
    Mutation("the hold mark covers only what is due by now", MarksCache, "_short_of", _mark_by_now),
    Mutation("leave out a millisecond between two scans", RangeScan, "over", _one_ms_between_scans),
    Mutation("leave out what is due with the last of a page", RangeScan, "after", _page_passed_as_a_whole),
    Mutation("leave out the last millisecond of a bucket", range_scan, "last_ms_of", _last_ms),
    Mutation("retire a bucket whatever the count of late writes", retirement, "retire_before", _any_count),
    Mutation("take the count of late writes at a renewal for that of the read", Retirement, "renewed", _count_of_now),
    Mutation("note the count of late writes after a bucket was read", ShardReader, "step", _count_after_the_read),
    Mutation("every page of a bucket begins to prove it empty", RangeScan, "begin", _each_page_counts),
    Mutation("retire a bucket of which triggers are in memory", Retirement, "retire_before", _while_buffered),
    Mutation("retire one bucket too many", Retirement, "retire_before", _one_bucket_more),
)
