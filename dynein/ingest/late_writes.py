"""The check after a write: will a dispatcher come to what was just stored?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from dynein.core.keys import bucket_of
from dynein.core.shard_records import ShardRecords
from dynein.core.trigger import Trigger
from dynein.ingest.marks_cache import ShardView
from dynein.ingest.retrying import Retrying
from dynein.ingest.triage import may_be_read
from dynein.observability.events.ingest import LATE_WRITE
from dynein.observability.telemetry import Telemetry
from dynein.runtime.clock import Clock
from dynein.runtime.group_commit import GroupCommit


class LateWrites:
    """Finds triggers stored behind their shard's read mark and reports them to its owner.

    ``skew_max_ms``: how far wall clocks may be apart (`Settings.retire_grace_s` is where the fleet promises that).
    ``waiting_max`` bounds what waits to be reported; the gate keeps it from being reached.
    """

    def __init__(
        self,
        shards: ShardRecords,
        view: ShardView,
        clock: Clock,
        retrying: Retrying,
        telemetry: Telemetry,
        *,
        bucket_width_ms: int,
        read_ahead_ms: int,
        skew_max_ms: int,
        waiting_max: int,
    ) -> None:
        self._shards = shards
        self._view = view
        self._clock = clock
        self._retrying = retrying
        self._telemetry = telemetry
        self._bucket_width_ms = bucket_width_ms
        self._read_ahead_ms = read_ahead_ms
        self._skew_max_ms = skew_max_ms
        self._waiting_max = waiting_max
        self._reports: dict[int, GroupCommit[int, bool]] = {}
        """By shard. One report a shard is under way; what asks meanwhile shares the next, which begins after it asked:
        in a backlog every message is late, and its reports are writes to one record."""

    async def report(self, stored: Sequence[Trigger]) -> list[Trigger]:
        """Call when the store has acknowledged ``stored``; returns those that no dispatcher will ever come to.

        All others are on time, or their shard's owner has been told to read again.
        """
        suspects = [trigger for trigger in stored if self._suspect(trigger)]
        await self._view.fresh(trigger.key.shard for trigger in suspects)
        late: dict[tuple[int, int], list[Trigger]] = {}
        for trigger in suspects:
            known = self._view.known(trigger.key.shard)
            if known is None or trigger.key.due_at_ms <= known.read_mark_ms:
                place = (trigger.key.shard, bucket_of(trigger.key.due_at_ms, self._bucket_width_ms))
                late.setdefault(place, []).append(trigger)
        self._telemetry.late_writes.inc(sum(map(len, late.values())))
        for (shard, bucket), triggers in late.items():
            LATE_WRITE.log(token=triggers[0].token, shard=shard, bucket=bucket, jobs=len(triggers))
        reported = await asyncio.gather(*[self._report(shard, bucket) for shard, bucket in late])
        return [
            trigger
            for triggers, will_be_read in zip(late.values(), reported, strict=True)
            if not will_be_read
            for trigger in triggers
        ]

    def _suspect(self, trigger: Trigger) -> bool:
        known = self._view.known(trigger.key.shard)
        return known is None or may_be_read(
            trigger.key.due_at_ms,
            known,
            now_ms=self._clock.now_ms(),
            now=self._clock.monotonic(),
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
            if await self._retrying.call(
                f"report a late write in shard {shard}", partial(self._shards.report_late, shard, first)
            ):
                return [bucket >= first for bucket in buckets]
        return [False] * len(buckets)
