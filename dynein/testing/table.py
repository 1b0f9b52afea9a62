"""An in-memory trigger table: triggers, shard records and roster, each verb one atomic step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from typing import Self, TypeVar

from dynein.core.inbound_message import Arrival
from dynein.core.keys import TriggerKey
from dynein.core.shard_records import Layout, ShardRecord
from dynein.core.trigger import Trigger, check
from dynein.core.trigger_store import (
    ADD_MAX,
    LOOKUP_MAX,
    MARKER_TTL_S,
    REMOVE_MAX,
    Cancelled,
    DueCount,
    Found,
    Moved,
    Page,
    Tombstone,
)
from dynein.runtime.clock import Clock
from dynein.testing.faults import Call, Faults
from dynein.testing.table_state import TableState

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class FakeTriggerTable:
    """A `dynein.core.trigger_store` table in memory: `TriggerStore`, `ShardRecords` and `Roster` in one.

    ``clock`` says when tombstones and claims expire. Calls come in through ``faults``; `connect` makes another
    connection to the same table, with faults of its own.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        bucket_width_ms: int = 60_000,
        shard_count: int = 4,
        faults: Faults | None = None,
        marker_ttl_s: float = MARKER_TTL_S,
    ) -> None:
        self._state = TableState(clock, bucket_width_ms, marker_ttl_s)
        self.faults = faults if faults is not None else Faults()
        self.raise_shard_count(shard_count)

    def connect(self, faults: Faults) -> Self:
        """The same table, through other faults."""
        connection = copy.copy(self)
        connection.faults = faults
        return connection

    # --- what tests do past the protocols --------- -------------------------------------------------------------------

    def raise_shard_count(self, shard_count: int) -> None:
        """What ``dynein bootstrap`` does when the setting was raised: records for the new shards, then the layout."""
        self._state.raise_shard_count(shard_count)

    def triggers(self) -> list[Trigger]:
        """Everything stored, in the order of buckets, shards and due times."""
        return self._state.triggers()

    def shards(self) -> list[ShardRecord]:
        """Every shard's record."""
        return [self._state.shards[shard] for shard in sorted(self._state.shards)]

    def peek(self, key: TriggerKey) -> Found:
        """What is stored at ``key``."""
        return self._state.find(key)

    def spoil(self, key: TriggerKey) -> None:
        """Put a record at ``key`` that is not a trigger."""
        self._state.spoil(key)

    # --- TriggerStore -----------------------------------------------------------------------------------------------

    async def add(self, triggers: Sequence[Trigger]) -> list[Trigger]:
        """See `dynein.core.trigger_store.TriggerStore.add`."""
        assert 1 <= len(triggers) <= ADD_MAX, len(triggers)
        assert len({trigger.key for trigger in triggers}) == len(triggers), "one batch may not name a key twice"
        for trigger in triggers:
            check(trigger)
        call = Call("table", "add", str(triggers[0].key.shard), len(triggers))
        return await self._do(call, lambda: self._each(call, triggers, self._state.put_trigger))

    async def read(
        self, bucket: int, shard: int, *, from_ms: int, until_ms: int, limit: int, resume: bytes | None = None
    ) -> Page:
        """See `dynein.core.trigger_store.TriggerStore.read`. As in DynamoDB, ``limit`` counts tombstones too."""
        call = Call("table", "read", str(shard), limit)
        return await self._do(call, lambda: self._state.page(bucket, shard, from_ms, until_ms, limit, resume))

    async def count_due(self, bucket: int, shard: int, *, from_ms: int, until_ms: int, limit: int) -> DueCount:
        """See `dynein.core.trigger_store.TriggerStore.count_due`."""
        call = Call("table", "count_due", str(shard), limit)
        return await self._do(call, lambda: self._state.count(bucket, shard, from_ms, until_ms, limit))

    async def remove(self, keys: Sequence[TriggerKey]) -> list[TriggerKey]:
        """See `dynein.core.trigger_store.TriggerStore.remove`."""
        assert 1 <= len(keys) <= REMOVE_MAX, len(keys)
        assert len(set(keys)) == len(keys), "one batch may not name a key twice"
        call = Call("table", "remove", str(keys[0].shard), len(keys))
        return await self._do(call, lambda: self._each(call, keys, self._state.drop_trigger))

    async def find(self, key: TriggerKey) -> Found:
        """See `dynein.core.trigger_store.TriggerStore.find`."""
        call = Call("table", "find", str(key.shard), 1)
        return await self._do(call, lambda: self._state.find(key))

    async def tombstones(self, keys: Sequence[TriggerKey]) -> list[Tombstone]:
        """See `dynein.core.trigger_store.TriggerStore.tombstones`."""
        assert 1 <= len(keys) <= LOOKUP_MAX, len(keys)
        assert len(set(keys)) == len(keys), "one look-up may not name a key twice"
        call = Call("table", "tombstones", str(keys[0].shard), len(keys))
        return await self._do(call, lambda: [t for key in keys if (t := self._state.tombstone(key)) is not None])

    async def claim(self, arrival: Arrival) -> bool:
        """See `dynein.core.trigger_store.TriggerStore.claim`."""
        return await self._do(Call("table", "claim", str(arrival.key.shard), 1), lambda: self._state.claim(arrival))

    async def cancel(self, key: TriggerKey) -> Cancelled | Tombstone:
        """See `dynein.core.trigger_store.TriggerStore.cancel`."""
        return await self._do(Call("table", "cancel", str(key.shard), 1), lambda: self._state.cancel(key))

    async def move(self, key: TriggerKey, to: Trigger) -> Moved | Tombstone:
        """See `dynein.core.trigger_store.TriggerStore.move`."""
        assert to.key.shard == key.shard, "a moved job stays in its shard"
        assert to.key != key, "a job cannot be moved to where it is"
        return await self._do(Call("table", "move", str(key.shard), 1), lambda: self._state.move(key, to))

    async def reserve(self, key: TriggerKey, for_s: int) -> bool:
        """See `dynein.core.trigger_store.TriggerStore.reserve`."""
        return await self._do(Call("table", "reserve", str(key.shard), 1), lambda: self._state.reserve(key, for_s))

    async def buckets(self) -> list[tuple[int, int]]:
        """See `dynein.core.trigger_store.TriggerStore.buckets`."""
        return await self._do(Call("table", "buckets", "", 0), self._state.buckets)

    # --- ShardRecords -----------------------------------------------------------------------------------------------

    async def layout(self) -> Layout | None:
        """See `dynein.core.shard_records.ShardRecords.layout`."""
        return await self._do(Call("table", "layout", "", 0), lambda: self._state.layout)

    async def all(self) -> list[ShardRecord]:
        """See `dynein.core.shard_records.ShardRecords.all`."""
        return await self._do(Call("table", "all", "", 0), self.shards)

    async def get(self, shards: Collection[int]) -> list[ShardRecord]:
        """See `dynein.core.shard_records.ShardRecords.get`."""
        wanted = sorted(set(shards) & self._state.shards.keys())
        call = Call("table", "get", "", len(shards))
        return await self._do(call, lambda: [self._state.shards[shard] for shard in wanted])

    async def take(self, seen: ShardRecord, owner: str) -> ShardRecord | None:
        """See `dynein.core.shard_records.ShardRecords.take`."""
        return await self._do(Call("table", "take", str(seen.shard), 1), lambda: self._state.take(seen, owner))

    async def renew(
        self, mine: ShardRecord, *, read_mark_ms: int, settled_mark_ms: int, retired_before: int
    ) -> ShardRecord | None:
        """See `dynein.core.shard_records.ShardRecords.renew`."""
        call = Call("table", "renew", str(mine.shard), 1)
        return await self._do(call, lambda: self._state.renew(mine, read_mark_ms, settled_mark_ms, retired_before))

    async def release(self, mine: ShardRecord) -> bool:
        """See `dynein.core.shard_records.ShardRecords.release`."""
        return await self._do(Call("table", "release", str(mine.shard), 1), lambda: self._state.release(mine))

    async def raise_hold_mark(self, shard: int, hold_mark_ms: int) -> ShardRecord:
        """See `dynein.core.shard_records.ShardRecords.raise_hold_mark`."""
        call = Call("table", "raise_hold_mark", str(shard), 1)
        return await self._do(call, lambda: self._state.raise_hold_mark(shard, hold_mark_ms))

    async def report_late(self, shard: int, bucket: int) -> bool:
        """See `dynein.core.shard_records.ShardRecords.report_late`."""
        return await self._do(
            Call("table", "report_late", str(shard), 1), lambda: self._state.report_late(shard, bucket)
        )

    # --- Roster -----------------------------------------------------------------------------------------------------

    async def heartbeat(self, role: str, member: str, heartbeat: int) -> None:
        """See `dynein.core.shard_records.Roster.heartbeat`."""
        members = self._state.roster.setdefault(role, {})
        seen_s = self._state.clock.now_ms() // 1000
        await self._do(Call("table", "beat", role, 1), lambda: members.update({member: (heartbeat, seen_s)}))

    async def members(self, role: str) -> dict[str, int]:
        """See `dynein.core.shard_records.Roster.members`."""
        members = self._state.roster.setdefault(role, {})
        call = Call("table", "members", role, 0)
        return await self._do(call, lambda: {name: heartbeat for name, (heartbeat, _) in sorted(members.items())})

    async def last_seen(self, role: str) -> dict[str, int]:
        """See `dynein.core.shard_records.Roster.last_seen`. By the fake's clock."""
        members = self._state.roster.setdefault(role, {})
        call = Call("table", "last_seen", role, 0)
        return await self._do(call, lambda: {name: seen_s * 1000 for name, (_, seen_s) in sorted(members.items())})

    async def leave(self, role: str, member: str) -> None:
        """See `dynein.core.shard_records.Roster.leave`."""
        members = self._state.roster.setdefault(role, {})
        await self._do(Call("table", "leave", role, 1), lambda: members.pop(member, None))

    async def _do(self, call: Call, effect: Callable[[], ResultT]) -> ResultT:
        await self.faults.before(call)
        result = effect()
        await self.faults.after(call)
        return result

    def _each(self, call: Call, items: Sequence[ItemT], effect: Callable[[ItemT], None]) -> list[ItemT]:
        unprocessed = self.faults.failed_entries(call)
        for index, item in enumerate(items):
            if index not in unprocessed:
                effect(item)
        return [item for index, item in enumerate(items) if index in unprocessed]
