"""Shard records, layout and roster in DynamoDB: `dynein.core.shard_records.ShardRecords` and `Roster`.

Every write to a shard record carries one of the conditions below, so leases and marks depend on no machine's clock.
"""

from __future__ import annotations

from collections.abc import Collection

from dynein.aws.dynamodb.items import (
    Item,
    identity,
    layout_key,
    number,
    read_layout,
    read_shard,
    shard_key,
    text,
)
from dynein.aws.dynamodb.table import DynamoTable
from dynein.core.shard_records import Layout, ShardRecord
from dynein.errors import NotBootstrapped

UNCHANGED_SINCE_SEEN = "fence = :fence AND beat = :beat AND #owner = :owner"
"""Take over only from an owner that has not renewed since its record was read: of two takers, one wins."""
UNOWNED_SINCE_SEEN = "fence = :fence AND beat = :beat AND attribute_not_exists(#owner)"
"""The same for a shard that had no owner."""
OURS = "#owner = :owner AND fence = :fence"
"""A lease that was taken over is never renewed or released by its former owner."""
MARK_NOT_LOWERED = "read_mark <= :read_mark"
"""Marks only rise. A renewal whose response was lost may have raised the mark further than its sender knows."""
NO_LATE_WRITE_SINCE = "retired < :retired AND late = :late"
"""Retire only if there was no write behind the read mark since the buckets were read and found empty."""
HOLD_MARK_RISES = "hold_mark < :hold_mark"
"""Marks only rise."""
BUCKET_NOT_RETIRED = "retired <= :bucket"
"""A late write is counted only where a dispatcher still reads; elsewhere the writer must learn that it will not be."""

_OWNER = {"#owner": "owner"}  # a reserved word
_NEVER_SEEN = 0


class DynamoShardRecords:
    """See `dynein.core.shard_records.ShardRecords`."""

    def __init__(self, table: DynamoTable) -> None:
        self._table = table
        self._shard_count_seen = _NEVER_SEEN

    async def layout(self) -> Layout | None:
        """The recorded layout, or ``None`` in a table that has none yet. Raises `NotBootstrapped` without a table."""
        item = await self._table.get(layout_key())
        return read_layout(item) if item is not None else None

    async def all(self) -> list[ShardRecord]:
        """Every shard's record, by shard. Raises `NotBootstrapped` when no layout is recorded.

        The layout is read along with the shards known so far, so that new ones are found without a call of their own.
        """
        layout_place = identity(layout_key())
        keys = [layout_key(), *(shard_key(shard) for shard in range(self._shard_count_seen))]
        items = {identity(item): item for item in await self._table.get_many(keys)}
        layout = items.pop(layout_place, None)
        if layout is None:
            raise NotBootstrapped(f"table {self._table.name} has no layout: run `dynein bootstrap`")
        records = [read_shard(item) for item in items.values()]
        count = read_layout(layout).shard_count
        if count > self._shard_count_seen:
            records += await self.get(range(self._shard_count_seen, count))
            self._shard_count_seen = count
        return sorted(records)

    async def get(self, shards: Collection[int]) -> list[ShardRecord]:
        """The records of those of ``shards`` that exist, by shard."""
        items = await self._table.get_many([shard_key(shard) for shard in shards])
        return sorted(read_shard(item) for item in items)

    async def take(self, seen: ShardRecord, owner: str) -> ShardRecord | None:
        """Become the owner, if nothing has changed since ``seen``."""
        values = {
            ":me": text(owner),
            ":fence": number(seen.fence),
            ":beat": number(seen.heartbeat),
            ":one": number(1),
        }
        if seen.owner is not None:
            values[":owner"] = text(seen.owner)
        return await self._update(
            seen.shard,
            "SET #owner = :me, fence = fence + :one",
            UNOWNED_SINCE_SEEN if seen.owner is None else UNCHANGED_SINCE_SEEN,
            values,
            names=_OWNER,
        )

    async def renew(
        self, mine: ShardRecord, *, read_mark_ms: int, settled_mark_ms: int, retired_before: int
    ) -> ShardRecord | None:
        """Raise the heartbeat, set both read marks, retire.

        One call, or three when a condition fails: was it the lease, or the rest?

        A read mark already higher in the table (from a renewal whose response was lost) stays.
        """
        assert mine.owner is not None
        assert read_mark_ms >= mine.read_mark_ms, "marks only rise"
        retiring = retired_before if retired_before > mine.retired_before else None
        record = await self._renew(mine, read_mark_ms, settled_mark_ms, retiring)
        if record is None:
            now = await self._one(mine.shard)
            if (now.owner, now.fence) == (mine.owner, mine.fence):
                record = await self._renew(mine, max(read_mark_ms, now.read_mark_ms), settled_mark_ms, None)
        return record

    async def release(self, mine: ShardRecord) -> bool:
        """Give the shard up, if it is still ours."""
        assert mine.owner is not None
        values = {":owner": text(mine.owner), ":fence": number(mine.fence)}
        return await self._update(mine.shard, "REMOVE #owner", OURS, values, names=_OWNER) is not None

    async def raise_hold_mark(self, shard: int, hold_mark_ms: int) -> ShardRecord:
        """Raise the hold mark; the record as it then is. Raises `NotBootstrapped` if the shard has no record."""
        values = {":hold_mark": number(hold_mark_ms)}
        raised = await self._update(shard, "SET hold_mark = :hold_mark", HOLD_MARK_RISES, values)
        return raised or await self._one(shard)

    async def report_late(self, shard: int, bucket: int) -> bool:
        """Count a late write, unless its bucket is retired. Raises `NotBootstrapped` if the shard has no record."""
        values = {":one": number(1), ":bucket": number(bucket)}
        if await self._update(shard, "SET late = late + :one", BUCKET_NOT_RETIRED, values) is not None:
            return True
        await self._one(shard)
        return False

    async def _renew(
        self, mine: ShardRecord, read_mark_ms: int, settled_mark_ms: int, retiring: int | None
    ) -> ShardRecord | None:
        assert mine.owner is not None
        update = "SET beat = beat + :one, read_mark = :read_mark, settled_mark = :settled_mark"
        condition = f"{OURS} AND {MARK_NOT_LOWERED}"
        values = {
            ":owner": text(mine.owner),
            ":fence": number(mine.fence),
            ":one": number(1),
            ":read_mark": number(read_mark_ms),
            ":settled_mark": number(settled_mark_ms),
        }
        if retiring is not None:
            update += ", retired = :retired"
            condition += f" AND {NO_LATE_WRITE_SINCE}"
            values |= {":retired": number(retiring), ":late": number(mine.late_writes)}
        return await self._update(mine.shard, update, condition, values, names=_OWNER)

    async def _update(
        self, shard: int, update: str, condition: str, values: Item, names: Item | None = None
    ) -> ShardRecord | None:
        item = await self._table.update_if(shard_key(shard), update, condition, values, names or {})
        return read_shard(item) if item is not None else None

    async def _one(self, shard: int) -> ShardRecord:
        item = await self._table.get(shard_key(shard))
        if item is None:
            raise NotBootstrapped(f"table {self._table.name} has no record of shard {shard}: run `dynein bootstrap`")
        return read_shard(item)
