"""Triggers in DynamoDB: `dynein.core.trigger_store.TriggerStore`.

Items are laid out in `dynein.aws.dynamodb.items`. What two parties may do to one trigger is decided by DynamoDB, in the
conditions below; this process's own clock is used only to say when a tombstone or claim may be tidied away.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dynein.aws.calls import units_of
from dynein.aws.dynamodb.items import (
    Item,
    claim_key,
    identity,
    key_item,
    layout_key,
    marker_ttl,
    number,
    read_layout,
    read_shard,
    read_tombstone,
    read_trigger,
    record_key,
    shard_key,
    stray_key,
    text,
    tombstone_item,
    trigger_item,
)
from dynein.aws.dynamodb.table import DynamoCalls
from dynein.core.inbound_message import Arrival
from dynein.core.keys import (
    DUE_MAX_MS,
    Kind,
    TriggerKey,
    bucket_of,
    parse_partition_key,
    parse_sort_key,
    partition_key,
    range_after,
    range_from,
    sort_key,
)
from dynein.core.shard_records import ShardRecord
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import (
    ADD_MAX,
    LOOKUP_MAX,
    REMOVE_MAX,
    Cancelled,
    DueCount,
    Found,
    Moved,
    Page,
    Tombstone,
)
from dynein.errors import Conflict, DyneinError, InvalidToken, NotBootstrapped, Throttled
from dynein.observability.events.scheduler import RECORD_UNDECODABLE
from dynein.observability.telemetry import Telemetry
from dynein.runtime.clock import Clock

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient


CLAIM_FREE_OR_OURS = "attribute_not_exists(pk) OR cid = :cid"
"""The first create id to claim a job id keeps it; the same create may come again."""
IN_NOBODYS_HAND = "read_mark < :due AND hold_mark < :due"
"""On the shard record: no dispatcher has read the job and no ingester holds it, so it can still be stopped."""
NO_TOMBSTONE = "attribute_not_exists(pk)"
"""On the tombstone: a job that was cancelled or moved is neither again from here, so each is counted once."""
STORED = "attribute_exists(pk)"
"""On the trigger: what is moved must be here until the move, or the job would be made twice."""
NOT_READ_AT_NEW_TIME = f"{IN_NOBODYS_HAND} AND read_mark < :new_due"
"""On the shard record, for a move ahead of the read mark: the owner has yet to come to the new due time."""
NOT_RETIRED_AT_NEW_TIME = f"{IN_NOBODYS_HAND} AND retired <= :bucket"
"""On the shard record, for a move behind the read mark: the owner still reads that bucket, and will see the count."""

_RACE_TRIES = 6
_PAST_ANY_KEY = b"\xff" * 20


class DynamoTriggerStore:
    """See `dynein.core.trigger_store.TriggerStore`. ``rng`` jitters pauses between tries."""

    def __init__(
        self,
        client: DynamoDBClient,
        table: str,
        clock: Clock,
        telemetry: Telemetry,
        bucket_width_ms: int,
        *,
        rng: random.Random | None = None,
    ) -> None:
        self._calls = DynamoCalls(client, table, clock, telemetry, rng)
        self._clock = clock
        self._width_ms = bucket_width_ms

    async def add(self, triggers: Sequence[Trigger]) -> list[Trigger]:
        """Store up to `ADD_MAX` triggers; returns those not stored. Of several with one key, the last is stored."""
        assert len(triggers) <= ADD_MAX, len(triggers)
        if not triggers:
            return []
        items = [trigger_item(trigger, self._width_ms) for trigger in triggers]
        # DynamoDB refuses a batch that names a key twice.
        puts = {identity(item): {"PutRequest": {"Item": item}} for item in items}
        undone = await self._calls.write_batch(list(puts.values()))
        return [trigger for trigger, item in zip(triggers, items, strict=True) if identity(item) in undone]

    async def read(
        self, bucket: int, shard: int, *, from_ms: int, until_ms: int, limit: int, resume: bytes | None = None
    ) -> Page:
        """One Query page, strongly consistent. A tombstone may come at the end of the page before its trigger's."""
        request = {**_range(bucket, shard, from_ms, until_ms), "ConsistentRead": True, "Limit": limit}
        if resume is not None:
            request["ExclusiveStartKey"] = key_item(partition_key(bucket, shard), resume)
        answer = await self._calls.query(request)
        last = answer.get("LastEvaluatedKey")
        return self._page(answer["Items"], bucket, shard, _past(until_ms), resume=identity(last)[1] if last else None)

    async def count_due(self, bucket: int, shard: int, *, from_ms: int, until_ms: int, limit: int) -> DueCount:
        """One Query page that returns no items. Only triggers have a token; records that are neither count as none."""
        request = {
            **_range(bucket, shard, from_ms, until_ms),
            "FilterExpression": "attribute_exists(tk)",
            "Select": "COUNT",
            "Limit": limit,
        }
        answer = await self._calls.query(request)
        last = answer.get("LastEvaluatedKey")
        reached = _reached(identity(last)[1], shard) if last else None
        return DueCount(answer["Count"], reached, units_of(answer.get("ConsumedCapacity") or {}))

    async def remove(self, keys: Sequence[TriggerKey]) -> list[TriggerKey]:
        """Remove up to `REMOVE_MAX` triggers; returns those not removed. Keys may repeat."""
        assert len(keys) <= REMOVE_MAX, len(keys)
        if not keys:
            return []
        places = [record_key(key, Kind.TRIGGER, self._width_ms) for key in keys]
        deletes = {identity(place): {"DeleteRequest": {"Key": place}} for place in places}
        undone = await self._calls.write_batch(list(deletes.values()))
        return [key for key, place in zip(keys, places, strict=True) if identity(place) in undone]

    async def find(self, key: TriggerKey) -> Found:
        """What stands at ``key``; a trigger that cannot be read is logged, and counts as not there."""
        pk = partition_key(bucket_of(key.due_at_ms, self._width_ms), key.shard)
        first, last = {"B": sort_key(key, Kind.TOMBSTONE)}, {"B": sort_key(key, Kind.TRIGGER)}
        request: dict[str, Any] = {
            "KeyConditionExpression": "pk = :pk AND sk BETWEEN :first AND :last",
            "ExpressionAttributeValues": {":pk": text(pk), ":first": first, ":last": last},
            "ConsistentRead": True,
        }
        # One Query costs half of what two reads by key do.
        answer = await self._calls.query(request)
        found = _found(key, answer["Items"])
        if found.trigger is None and found.tombstone is None:
            # A Query is not one moment: it may have passed the tombstone's place before a cancel, and the trigger's
            # after it. A read begun now sees the whole of that cancel.
            item = await self._calls.get(self._tombstone_key(key))
            found = Found(None, read_tombstone(item, key) if item is not None else None)
        return found

    async def tombstones(self, keys: Sequence[TriggerKey]) -> list[Tombstone]:
        """Those of up to `LOOKUP_MAX` keys that have a tombstone. Keys may repeat."""
        assert len(keys) <= LOOKUP_MAX, len(keys)
        by_place = {identity(self._tombstone_key(key)): key for key in keys}
        items = await self._calls.get_many([key_item(*place) for place in by_place])
        found = {identity(item): item for item in items}
        return [read_tombstone(found[place], key) for place, key in by_place.items() if place in found]

    async def claim(self, arrival: Arrival) -> bool:
        """One conditional write; see `CLAIM_FREE_OR_OURS`."""
        cid = text(arrival.create_id)
        item = {**claim_key(arrival.key), "cid": cid, "ttl": marker_ttl(arrival.key, self._clock.now_ms())}
        return await self._calls.put_if(item, CLAIM_FREE_OR_OURS, ExpressionAttributeValues={":cid": cid})

    async def cancel(self, key: TriggerKey) -> Cancelled | Tombstone:
        """One transaction. Raises `InvalidToken` if ``key`` names a shard that this table never had."""
        check_shard = self._check(key.shard, IN_NOBODYS_HAND, {":due": number(key.due_at_ms)})
        put_tombstone = self._put(
            tombstone_item(Tombstone(key, None), self._clock.now_ms(), self._width_ms),
            ConditionExpression=NO_TOMBSTONE,
        )
        actions = [check_shard, put_tombstone, self._delete(self._trigger_key(key))]
        for failures in range(1, _RACE_TRIES + 1):
            if await self._calls.transact(actions):
                return Cancelled.CANCELLED
            # Engines differ in what a cancelled transaction tells, so look: this is the rare path.
            found, record = await self._find_with_record(key)
            if found.tombstone is not None:
                return Cancelled.BEFORE if found.tombstone.moved_to is None else found.tombstone
            if key.due_at_ms <= record.cancel_mark_ms:
                return Cancelled.TOO_LATE
            await self._calls.pause(failures)
        raise Throttled("cancel: other writers keep getting in the way")

    async def move(self, key: TriggerKey, to: Trigger) -> Moved | Tombstone:
        """One read and one transaction.

        Raises `Conflict` if the new due time lies in a retired bucket, which nobody would read again: callers do not
        move a job to a time before now, and a bucket is retired minutes after its end. After `Unavailable` the move
        may have been done; asking again then returns a tombstone whose ``moved_to`` is ``to.token``.
        """
        assert to.key.shard == key.shard, "a moved job stays in its shard"
        assert to.key != key, "a job cannot be moved to where it is"
        for failures in range(1, _RACE_TRIES + 1):
            found, record = await self._find_with_record(key)
            if found.tombstone is not None:
                return found.tombstone
            if key.due_at_ms <= record.cancel_mark_ms:
                return Moved.TOO_LATE
            if found.trigger is None:
                return Moved.NOT_STORED
            if bucket_of(to.key.due_at_ms, self._width_ms) < record.retired_before:
                raise Conflict(
                    "due-time-passed",
                    "the new due time is so long past that nobody looks there; move it to now or later",
                )
            if await self._calls.transact(self._move_actions(key, to._replace(record=found.trigger.record), record)):
                return Moved.MOVED
            await self._calls.pause(failures)
        raise Throttled("move: other writers keep getting in the way")

    async def buckets(self) -> list[tuple[int, int]]:
        """Scans the whole table, strongly consistent."""
        places: set[tuple[int, int]] = set()
        request: dict[str, Any] = {"ProjectionExpression": "pk", "ConsistentRead": True}
        while True:
            answer = await self._calls.scan(request)
            parsed = (parse_partition_key(item["pk"]["S"]) for item in answer["Items"])
            places.update(place for place in parsed if place is not None)
            if not answer.get("LastEvaluatedKey"):
                return sorted(places)
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def _page(
        self, items: Iterable[Mapping[str, Any]], bucket: int, shard: int, past: bytes, *, resume: bytes | None
    ) -> Page:
        page = Page([], [], [], resume)
        for item in items:
            sk = item["sk"]["B"]
            if sk >= past:
                continue  # BETWEEN includes its upper bound; only a record of somebody else's can stand right on it
            try:
                key, kind = parse_sort_key(sk, shard)
            except ValueError:
                page.undecodable.append(stray_key(sk, shard))
                continue
            if bucket_of(key.due_at_ms, self._width_ms) != bucket:
                page.undecodable.append(key)  # in a bucket that its key does not lead to: it could never be removed
            elif kind is Kind.TOMBSTONE:
                page.tombstones.append(read_tombstone(item, key))
            elif (trigger := read_trigger(item, key)) is not None:
                page.triggers.append(trigger)
            else:
                page.undecodable.append(key)
        return page

    async def _find_with_record(self, key: TriggerKey) -> tuple[Found, ShardRecord]:
        """What stands at ``key``, and the record of its shard."""
        wanted = [self._trigger_key(key), self._tombstone_key(key), shard_key(key.shard)]
        items = await self._calls.get_many(wanted)
        records = [read_shard(item) for item in items if identity(item) == identity(wanted[2])]
        if not records:
            raise await self._no_record(key.shard)
        found = _found(key, [item for item in items if identity(item) != identity(wanted[2])])
        if found.trigger is None and found.tombstone is None:
            found = await self.find(key)
        return found, records[0]

    async def _no_record(self, shard: int) -> DyneinError:
        """Why a shard has no record: the key came from outside, so most likely it is another table's."""
        item = await self._calls.get(layout_key())
        if item is not None and shard >= read_layout(item).shard_count:
            return InvalidToken(f"the token names shard {shard}, which table {self._calls.table} does not have")
        return NotBootstrapped(f"table {self._calls.table} has no record of shard {shard}: run `dynein bootstrap`")

    def _move_actions(self, key: TriggerKey, to: Trigger, record: ShardRecord) -> list[Item]:
        bucket = bucket_of(to.key.due_at_ms, self._width_ms)
        values = {":due": number(key.due_at_ms)}
        if to.key.due_at_ms > record.read_mark_ms:
            on_shard = self._check(key.shard, NOT_READ_AT_NEW_TIME, {**values, ":new_due": number(to.key.due_at_ms)})
        else:
            on_shard = {
                "Update": {
                    "TableName": self._calls.table,
                    "Key": shard_key(key.shard),
                    "UpdateExpression": "SET late = late + :one",
                    "ConditionExpression": NOT_RETIRED_AT_NEW_TIME,
                    "ExpressionAttributeValues": {**values, ":bucket": number(bucket), ":one": number(1)},
                }
            }
        tombstone = tombstone_item(Tombstone(key, to.token), self._clock.now_ms(), self._width_ms)
        return [
            on_shard,
            self._put(tombstone, ConditionExpression=NO_TOMBSTONE),
            self._delete(self._trigger_key(key), ConditionExpression=STORED),
            self._put(trigger_item(to, self._width_ms)),
            # A job that moves back to where it was meets the tombstone it left there, which would stop it for good.
            self._delete(self._tombstone_key(to.key)),
        ]

    def _trigger_key(self, key: TriggerKey) -> Item:
        return record_key(key, Kind.TRIGGER, self._width_ms)

    def _tombstone_key(self, key: TriggerKey) -> Item:
        return record_key(key, Kind.TOMBSTONE, self._width_ms)

    def _check(self, shard: int, condition: str, values: Item) -> Item:
        return {
            "ConditionCheck": {
                "TableName": self._calls.table,
                "Key": shard_key(shard),
                "ConditionExpression": condition,
                "ExpressionAttributeValues": values,
            }
        }

    def _put(self, item: Item, **condition: str | Item) -> Item:
        return {"Put": {"TableName": self._calls.table, "Item": item, **condition}}

    def _delete(self, key: Item, **condition: str) -> Item:
        return {"Delete": {"TableName": self._calls.table, "Key": key, **condition}}


def _past(until_ms: int) -> bytes:
    return range_after(until_ms) if until_ms < DUE_MAX_MS else _PAST_ANY_KEY


def _range(bucket: int, shard: int, from_ms: int, until_ms: int) -> Item:
    """What of a Query says where to look. Nothing of ours stands right on the upper bound, which BETWEEN includes."""
    return {
        "KeyConditionExpression": "pk = :pk AND sk BETWEEN :from AND :past",
        "ExpressionAttributeValues": {
            ":pk": text(partition_key(bucket, shard)),
            ":from": {"B": range_from(from_ms)},
            ":past": {"B": _past(until_ms)},
        },
    }


def _reached(sk: bytes, shard: int) -> TriggerKey:
    try:
        return parse_sort_key(sk, shard)[0]
    except ValueError:
        return stray_key(sk, shard)


def _found(key: TriggerKey, items: Sequence[Mapping[str, Any]]) -> Found:
    trigger: Trigger | None = None
    tombstone: Tombstone | None = None
    for item in items:
        if identity(item)[1] == sort_key(key, Kind.TOMBSTONE):
            tombstone = read_tombstone(item, key)
        else:
            trigger = read_trigger(item, key)
            if trigger is None:
                RECORD_UNDECODABLE.log(shard=key.shard, due_at_ms=key.due_at_ms, job_id=key.job_id.hex())
    return Found(trigger, tombstone)
