"""The check after a write: will a dispatcher read what was just stored?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from dynein.core.job import is_for_fifo_queue
from dynein.core.keys import bucket_of
from dynein.core.shard_records import Layout, ShardRecords
from dynein.core.trigger import Trigger
from dynein.ingest.admission import jobs_max
from dynein.ingest.marks_cache import MarksCache
from dynein.ingest.triage import may_be_read
from dynein.observability.events.ingest import LATE_WRITE
from dynein.runtime.context import Context
from dynein.runtime.group_commit import GroupCommit
from dynein.runtime.retry import Retry
from dynein.settings import Settings


class LateWrites:
    """Finds triggers stored behind their shard's read mark and reports them to its owner.

    What waits to be reported is bounded by `jobs_max`, which `Admission` keeps from being reached.
    """

    def __init__(
        self,
        shards: ShardRecords,
        marks: MarksCache,
        layout: Layout,
        retry: Retry,
        context: Context,
        settings: Settings,
    ) -> None:
        self._shards = shards
        self._marks = marks
        self._bucket_width_ms = layout.bucket_width_ms
        self._retry = retry
        self._context = context
        self._read_ahead_ms = round(settings.read_ahead_s * 1000)
        self._skew_max_ms = round(settings.retire_grace_s * 1000)
        """How far wall clocks may be apart: `Settings.retire_grace_s` is where the fleet promises that."""
        self._waiting_max = jobs_max(settings)
        self._reports: dict[int, GroupCommit[int, bool]] = {}
        """By shard. One report a shard is under way; those that come meanwhile share the next, which begins after them:
        in a backlog every message is late, and its reports are writes to one record."""

    async def report(self, stored: Sequence[Trigger]) -> list[Trigger]:
        """Call when the store has acknowledged ``stored``; returns those that no dispatcher will ever read.

        All others are on time, or their shard's owner will see that it has to read again.
        """
        suspects = [trigger for trigger in stored if self._suspect(trigger)]
        await self._marks.refresh(trigger.key.shard for trigger in suspects)
        late: dict[tuple[int, int], list[Trigger]] = {}
        for trigger in suspects:
            known = self._marks.known(trigger.key.shard)
            if known is None or trigger.key.due_at_ms <= known.read_mark_ms:
                place = (trigger.key.shard, bucket_of(trigger.key.due_at_ms, self._bucket_width_ms))
                late.setdefault(place, []).append(trigger)
        for (shard, bucket), triggers in late.items():
            self._note(shard, bucket, [trigger for trigger in triggers if not self._is_meant_to_be_late(trigger)])
        reported = await asyncio.gather(*[self._report(shard, bucket) for shard, bucket in late])
        return [
            trigger
            for triggers, will_be_read in zip(late.values(), reported, strict=True)
            if not will_be_read
            for trigger in triggers
        ]

    def _note(self, shard: int, bucket: int, triggers: Sequence[Trigger]) -> None:
        if triggers:
            self._context.telemetry.late_writes.inc(len(triggers))
            LATE_WRITE.log(token=triggers[0].token, shard=shard, bucket=bucket, jobs=len(triggers))

    def _is_meant_to_be_late(self, trigger: Trigger) -> bool:
        """A near job of a FIFO queue is not held, for its group's order: it will be read before it is due."""
        return trigger.key.due_at_ms > self._context.clock.now_ms() and is_for_fifo_queue(trigger.record)

    def _suspect(self, trigger: Trigger) -> bool:
        known = self._marks.known(trigger.key.shard)
        return known is None or may_be_read(
            trigger.key.due_at_ms,
            known,
            now_ms=self._context.clock.now_ms(),
            now=self._context.clock.monotonic(),
            read_ahead_ms=self._read_ahead_ms,
            skew_max_ms=self._skew_max_ms,
        )

    def _report(self, shard: int, bucket: int) -> asyncio.Future[bool]:
        if shard not in self._reports:
            self._reports[shard] = GroupCommit(
                lambda buckets: self._report_together(shard, buckets),
                entries_max=self._waiting_max,
                waiting_max=self._waiting_max,
            )
        return self._reports[shard].submit(bucket)

    async def _report_together(self, shard: int, buckets: Sequence[int]) -> list[bool]:
        """Report the first bucket that is not retired: a shard's owner reads all from there on again."""
        for first in sorted(set(buckets)):
            if await self._retry.call(
                f"report a late write in shard {shard}", partial(self._shards.report_late, shard, first)
            ):
                return [bucket >= first for bucket in buckets]
        return [False] * len(buckets)
