"""The check after a write: will a dispatcher come to what was just stored?"""

from __future__ import annotations

from collections.abc import Sequence

from dynein.clock import Clock
from dynein.events.ingest import LATE_WRITE
from dynein.ingest.admission import may_be_read
from dynein.ingest.retrying import Retrying, all_of
from dynein.ingest.shard_view import ShardView
from dynein.partition import bucket_of
from dynein.telemetry import Telemetry
from dynein.trigger import Trigger
from dynein.trigger_store import ShardRecords


class LateWrites:
    """Finds triggers stored behind their shard's read mark and reports them to its owner.

    ``skew_max_ms``: how far wall clocks may be apart (`Settings.retire_grace_s` is where the fleet promises that).
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
    ) -> None:
        self._shards = shards
        self._view = view
        self._clock = clock
        self._retrying = retrying
        self._telemetry = telemetry
        self._bucket_width_ms = bucket_width_ms
        self._read_ahead_ms = read_ahead_ms
        self._skew_max_ms = skew_max_ms

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
        reported = await all_of([self._report(shard, bucket) for shard, bucket in late])
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

    async def _report(self, shard: int, bucket: int) -> bool:
        return await self._retrying.call(
            f"report a late write in shard {shard}", lambda: self._shards.report_late(shard, bucket)
        )
