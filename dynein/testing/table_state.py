"""What is in an in-memory trigger table, and each verb as one atomic step. No I/O, no faults."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import NamedTuple

from dynein.core.inbound_message import Arrival
from dynein.core.keys import Kind, TriggerKey, bucket_of, parse_sort_key, range_after, range_from, sort_key
from dynein.core.shard_records import Layout, ShardRecord, new_shard_record
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import Cancelled, DueCount, Found, Moved, Page, Tombstone
from dynein.errors import Conflict, InvalidToken
from dynein.runtime.clock import Clock

COUNT_UNITS = 0.5
"""What a small page costs, read without strong consistency."""
PAGE_BYTES_MAX = 1024 * 1024
"""DynamoDB ends a Query page here, however few records that is."""


class _Stored(NamedTuple):
    """A record in a bucket; ``content`` is ``None`` when it cannot be decoded."""

    content: Trigger | Tombstone | None
    expires_at: float


class _Partition:
    """One (time bucket, shard): records in sort-key order."""

    def __init__(self) -> None:
        self.order: list[bytes] = []
        self.records: dict[bytes, _Stored] = {}

    def put(self, raw_key: bytes, stored: _Stored) -> None:
        if raw_key not in self.records:
            insort(self.order, raw_key)
        self.records[raw_key] = stored

    def drop(self, raw_key: bytes) -> None:
        if self.records.pop(raw_key, None) is not None:
            del self.order[bisect_left(self.order, raw_key)]


class TableState:
    """The whole table. Verbs are those of `dynein.core.trigger_store`; ``clock`` says when markers expire."""

    def __init__(self, clock: Clock, bucket_width_ms: int, marker_ttl_s: float) -> None:
        self.width_ms = bucket_width_ms
        self.layout = Layout(bucket_width_ms, 0, 0)
        self.partitions: dict[tuple[int, int], _Partition] = {}
        self.shards: dict[int, ShardRecord] = {}
        self.roster: dict[str, dict[str, tuple[int, int]]] = {}
        """By role and member: the last heartbeat, and when it came, epoch seconds."""
        self.clock = clock
        self._marker_ttl_s = marker_ttl_s
        self._reserved: dict[TriggerKey, int] = {}
        """Until when, epoch milliseconds."""
        self._claims: dict[bytes, tuple[str, float]] = {}

    def raise_shard_count(self, shard_count: int) -> None:
        assert shard_count >= self.layout.shard_count, "the shard count only grows"
        for shard in range(self.layout.shard_count, shard_count):
            self.shards[shard] = new_shard_record(shard, self.clock.now_ms(), self.width_ms)
        self.layout = Layout(self.width_ms, shard_count, self.layout.fifo_shard_count or shard_count)

    def triggers(self) -> list[Trigger]:
        return [
            stored.content
            for place in sorted(self.partitions)
            for raw_key in self.partitions[place].order
            if isinstance((stored := self.partitions[place].records[raw_key]).content, Trigger)
        ]

    def spoil(self, key: TriggerKey) -> None:
        self._partition(key).put(sort_key(key, Kind.TRIGGER), _Stored(None, float("inf")))

    def buckets(self) -> list[tuple[int, int]]:
        return sorted(place for place, partition in self.partitions.items() if partition.order)

    def find(self, key: TriggerKey) -> Found:
        return Found(self.trigger(key), self.tombstone(key))

    def claim(self, arrival: Arrival) -> bool:
        now = self.clock.monotonic()
        winner, expires_at = self._claims.get(arrival.key.job_id, ("", now))
        if expires_at <= now:
            winner = arrival.create_id
            self._claims[arrival.key.job_id] = (winner, now + self._marker_ttl_s)
        return winner == arrival.create_id

    def reserve(self, key: TriggerKey, for_s: int) -> bool:
        now_ms = self.clock.now_ms()
        if self.trigger(key) is None or self._reserved.get(key, 0) > now_ms:
            return False
        self._reserved[key] = now_ms + for_s * 1000
        return True

    def cancel(self, key: TriggerKey) -> Cancelled | Tombstone:
        found = self.tombstone(key)
        if found is not None:
            return Cancelled.BEFORE if found.moved_to is None else found
        record = self._record(key.shard)
        if key.due_at_ms <= record.cancel_mark_ms:
            return Cancelled.TOO_LATE
        self.put_tombstone(Tombstone(key, None))
        self.drop_trigger(key)
        return Cancelled.CANCELLED

    def move(self, key: TriggerKey, to: Trigger) -> Moved | Tombstone:
        found = self.tombstone(key)
        if found is not None:
            return found
        record = self._record(key.shard)
        if key.due_at_ms <= record.cancel_mark_ms:
            return Moved.TOO_LATE
        trigger = self.trigger(key)
        if trigger is None:
            return Moved.NOT_STORED
        if self._bucket(to.key) < record.retired_before:
            raise Conflict("due-time-passed", "the new due time is so long past that its time bucket is no longer read")
        self.put_tombstone(Tombstone(key, to.token))
        self.drop_trigger(key)
        self.put_trigger(to._replace(record=trigger.record))
        # A job that moves back to where it was meets the tombstone it left there, which would stop it for good.
        self._partition(to.key).drop(sort_key(to.key, Kind.TOMBSTONE))
        if to.key.due_at_ms <= record.read_mark_ms:
            self._set(record._replace(late_writes=record.late_writes + 1))
        return Moved.MOVED

    def page(self, bucket: int, shard: int, from_ms: int, until_ms: int, limit: int, resume: bytes | None) -> Page:
        page = Page([], [], [], None)
        partition = self.partitions.get((bucket, shard))
        if partition is None:
            return page
        order = partition.order
        start = bisect_left(order, range_from(from_ms)) if resume is None else bisect_right(order, resume)
        end = bisect_left(order, range_after(until_ms))
        examined = order[start : min(end, start + limit)]
        page_bytes = 0
        for raw_key in examined:
            key, kind = parse_sort_key(raw_key, shard)
            stored = partition.records[raw_key]
            if kind is Kind.TOMBSTONE:
                page.tombstones.extend([t for t in [self.tombstone(key)] if t is not None])
            elif isinstance(stored.content, Trigger):
                page.triggers.append(stored.content)
                page_bytes += len(stored.content.record)
                if page_bytes > PAGE_BYTES_MAX:
                    return page._replace(resume=raw_key)
            else:
                page.undecodable.append(key)
        # As DynamoDB: a full page has a `resume` even if nothing follows.
        return page._replace(resume=examined[-1]) if len(examined) == limit else page

    def count(self, bucket: int, shard: int, from_ms: int, until_ms: int, limit: int) -> DueCount:
        page = self.page(bucket, shard, from_ms, until_ms, limit, None)
        reached = parse_sort_key(page.resume, shard)[0] if page.resume is not None else None
        return DueCount(len(page.triggers), reached, COUNT_UNITS)

    def _bucket(self, key: TriggerKey) -> int:
        return bucket_of(key.due_at_ms, self.width_ms)

    def _partition(self, key: TriggerKey) -> _Partition:
        return self.partitions.setdefault((self._bucket(key), key.shard), _Partition())

    def put_trigger(self, trigger: Trigger) -> None:
        self._partition(trigger.key).put(sort_key(trigger.key, Kind.TRIGGER), _Stored(trigger, float("inf")))

    def put_tombstone(self, tombstone: Tombstone) -> None:
        stored = _Stored(tombstone, self.clock.monotonic() + self._marker_ttl_s)
        self._partition(tombstone.key).put(sort_key(tombstone.key, Kind.TOMBSTONE), stored)

    def drop_trigger(self, key: TriggerKey) -> None:
        self._partition(key).drop(sort_key(key, Kind.TRIGGER))

    def trigger(self, key: TriggerKey) -> Trigger | None:
        stored = self._partition(key).records.get(sort_key(key, Kind.TRIGGER))
        return stored.content if stored is not None and isinstance(stored.content, Trigger) else None

    def tombstone(self, key: TriggerKey) -> Tombstone | None:
        stored = self._partition(key).records.get(sort_key(key, Kind.TOMBSTONE))
        if stored is None or stored.expires_at <= self.clock.monotonic():
            return None
        return stored.content if isinstance(stored.content, Tombstone) else None

    def take(self, seen: ShardRecord, owner: str) -> ShardRecord | None:
        record = self.shards[seen.shard]
        if (record.owner, record.fence, record.heartbeat) != (seen.owner, seen.fence, seen.heartbeat):
            return None
        return self._set(record._replace(owner=owner, fence=record.fence + 1))

    def renew(
        self, mine: ShardRecord, read_mark_ms: int, settled_mark_ms: int, retired_before: int
    ) -> ShardRecord | None:
        if not self._still_owned(mine):
            return None
        record = self.shards[mine.shard]
        may_retire = record.late_writes == mine.late_writes
        return self._set(
            record._replace(
                heartbeat=record.heartbeat + 1,
                read_mark_ms=max(record.read_mark_ms, read_mark_ms),
                settled_mark_ms=settled_mark_ms,
                retired_before=max(record.retired_before, retired_before if may_retire else 0),
            )
        )

    def release(self, mine: ShardRecord) -> bool:
        if not self._still_owned(mine):
            return False
        self._set(self.shards[mine.shard]._replace(owner=None))
        return True

    def raise_hold_mark(self, shard: int, hold_mark_ms: int) -> ShardRecord:
        record = self.shards[shard]
        return self._set(record._replace(hold_mark_ms=max(record.hold_mark_ms, hold_mark_ms)))

    def report_late(self, shard: int, bucket: int) -> bool:
        record = self.shards[shard]
        if bucket < record.retired_before:
            return False
        self._set(record._replace(late_writes=record.late_writes + 1))
        return True

    def _record(self, shard: int) -> ShardRecord:
        if shard not in self.shards:
            raise InvalidToken(f"the token names shard {shard}, which this table does not have")
        return self.shards[shard]

    def _still_owned(self, mine: ShardRecord) -> bool:
        record = self.shards[mine.shard]
        return (record.owner, record.fence) == (mine.owner, mine.fence)

    def _set(self, record: ShardRecord) -> ShardRecord:
        self.shards[record.shard] = record
        return record
