"""What two parties may want of one trigger at a time: claim, cancel, move, repair it. DynamoDB decides, by conditions.

This process's own clock is used only to say when a tombstone or claim may be deleted, and for how long a repair has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple

from dynein.aws.dynamodb.items import (
    Item,
    claim_key,
    identity,
    layout_key,
    marker_ttl,
    number,
    read_layout,
    read_shard,
    record_key,
    shard_key,
    text,
    tombstone_item,
    trigger_item,
)
from dynein.aws.dynamodb.table import DynamoTable
from dynein.aws.dynamodb.trigger_pages import found_at
from dynein.core.inbound_message import Arrival
from dynein.core.keys import Kind, TriggerKey, bucket_of
from dynein.core.shard_records import ShardRecord
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import Cancelled, Found, Moved, Tombstone
from dynein.errors import Conflict, DyneinError, InvalidToken, NotBootstrapped, Throttled
from dynein.runtime.group_commit import GroupCommit
from dynein.runtime.tasks import within

CLAIM_FREE_OR_OURS = "attribute_not_exists(pk) OR cid = :cid"
"""The first create id to claim a job id keeps it; the same create may come again."""
NOT_BUFFERED_ANYWHERE = "read_mark < :due AND hold_mark < :due"
"""On the shard record: no dispatcher has read the job and no ingester holds it, so it can still be stopped."""
NO_TOMBSTONE = "attribute_not_exists(pk)"
"""On the tombstone: a job that was cancelled or moved is neither again from here, so each is counted once."""
STORED = "attribute_exists(pk)"
"""On the trigger: what is moved must be here until the move, or the job would be made twice."""
NOT_READ_AT_NEW_TIME = f"{NOT_BUFFERED_ANYWHERE} AND read_mark < :new_due"
"""On the shard record, for a move ahead of the read mark: the owner has not read as far as the new due time yet."""
NOT_RETIRED_AT_NEW_TIME = f"{NOT_BUFFERED_ANYWHERE} AND retired <= :bucket"
"""On the shard record, for a move behind the read mark: the owner still reads that bucket, and will see the count."""

NOT_RESERVED = "attribute_exists(pk) AND (attribute_not_exists(reserved) OR reserved < :now)"
"""On the trigger: of several repairs of a stranded one, one puts it back on its way."""

CANCELS_MAX = 12
"""In one transaction: with the shard's check 25 actions. DynamoDB takes 100, some emulators 25."""
CANCELS_WAITING_MAX = 10_000
CANCEL_WITHIN_S = 10.0
_RACE_TRIES = 6


class _LostRace(Throttled):
    """Another writer changed the trigger or its shard's record in the meantime."""


class _Turn(NamedTuple):
    """One shard's. Every cancel and move checks its shard's record, and DynamoDB refuses whatever meets an item of a
    transaction under way: so this process has one transaction a shard at a time, and a mass cancel needs few.
    """

    cancels: GroupCommit[TriggerKey, Cancelled | Tombstone]
    lock: asyncio.Lock


class TriggerChanges:
    """On one table. ``find``: what is stored at a key, strongly consistent."""

    def __init__(
        self, table: DynamoTable, bucket_width_ms: int, find: Callable[[TriggerKey], Awaitable[Found]]
    ) -> None:
        self._table = table
        self._races = table.retry(_RACE_TRIES)
        self._width_ms = bucket_width_ms
        self._find = find
        self._turns: dict[int, _Turn] = {}
        """By shard; a table has `dynein.core.keys.SHARDS_MAX` at most."""

    async def claim(self, arrival: Arrival) -> bool:
        """One conditional write; see `CLAIM_FREE_OR_OURS`."""
        cid = text(arrival.create_id)
        item = {**claim_key(arrival.key), "cid": cid, "ttl": marker_ttl(arrival.key, self._table.clock.now_ms())}
        return await self._table.put_if(item, CLAIM_FREE_OR_OURS, ExpressionAttributeValues={":cid": cid})

    async def reserve(self, key: TriggerKey, for_s: int) -> bool:
        """One conditional write; see `NOT_RESERVED`."""
        now_s = self._table.clock.now_ms() // 1000
        values = {":now": number(now_s), ":until": number(now_s + for_s)}
        update = "SET reserved = :until"
        return await self._table.update_if(self._trigger_key(key), update, NOT_RESERVED, values, {}) is not None

    async def cancel(self, key: TriggerKey) -> Cancelled | Tombstone:
        """One transaction, which it may share with other cancels of its shard.

        Raises `InvalidToken` if ``key`` names a shard that this table never had, and `Unavailable` when it takes too
        long: then it may have been done or not.
        """
        return await within(CANCEL_WITHIN_S, self._table.clock, self._turn_of(key.shard).cancels.submit(key))

    async def _cancel_all(self, shard: int, keys: list[TriggerKey]) -> list[Cancelled | Tombstone]:
        """Together if all of them can be, or else one by one: which of them cannot, engines report differently."""
        distinct = list(dict.fromkeys(keys))
        if len(distinct) > 1 and await self._transact(shard, self._cancel_actions(shard, distinct)):
            cancelled = set(distinct)
            outcomes: list[Cancelled | Tombstone] = []
            for key in keys:
                outcomes.append(Cancelled.CANCELLED if key in cancelled else Cancelled.BEFORE)
                cancelled.discard(key)
            return outcomes
        return [await self._cancel(key) for key in keys]

    async def _cancel(self, key: TriggerKey) -> Cancelled | Tombstone:
        async def cancel() -> Cancelled | Tombstone:
            if await self._transact(key.shard, self._cancel_actions(key.shard, [key])):
                return Cancelled.CANCELLED
            # Engines differ in what a cancelled transaction reports, so read it all again: this is the rare path.
            found, record = await self._find_with_record(key)
            if found.tombstone is not None:
                return Cancelled.BEFORE if found.tombstone.moved_to is None else found.tombstone
            if key.due_at_ms <= record.cancel_mark_ms:
                return Cancelled.TOO_LATE
            raise _LostRace("cancel: other writers keep getting in the way")

        return await self._races.call("cancel", cancel, retry_on=(_LostRace,))

    def _cancel_actions(self, shard: int, keys: Sequence[TriggerKey]) -> list[Item]:
        first_due_ms = min(key.due_at_ms for key in keys)
        actions = [self._check(shard, NOT_BUFFERED_ANYWHERE, {":due": number(first_due_ms)})]
        for key in keys:
            tombstone = tombstone_item(Tombstone(key, None), self._table.clock.now_ms(), self._width_ms)
            actions.append(self._put(tombstone, ConditionExpression=NO_TOMBSTONE))
            actions.append(self._delete(self._trigger_key(key)))
        return actions

    async def _transact(self, shard: int, actions: list[Item]) -> bool:
        async with self._turn_of(shard).lock:
            return await self._table.transact(actions)

    def _turn_of(self, shard: int) -> _Turn:
        if shard not in self._turns:
            cancels: GroupCommit[TriggerKey, Cancelled | Tombstone] = GroupCommit(
                partial(self._cancel_all, shard), entries_max=CANCELS_MAX, waiting_max=CANCELS_WAITING_MAX
            )
            self._turns[shard] = _Turn(cancels, asyncio.Lock())
        return self._turns[shard]

    async def move(self, key: TriggerKey, to: Trigger) -> Moved | Tombstone:
        """One read and one transaction.

        Raises `Conflict` if the new due time lies in a retired bucket, which would never be read again: callers do not
        move a job to a time before now, and a bucket is retired minutes after its end. After `Unavailable` the move
        may have been done; asking again then returns a tombstone whose ``moved_to`` is ``to.token``.
        """
        assert to.key.shard == key.shard, "a moved job stays in its shard"
        assert to.key != key, "a job cannot be moved to where it is"

        async def move() -> Moved | Tombstone:
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
                    "the new due time is so long past that its time bucket is no longer read; move it to now or later",
                )
            if await self._transact(
                key.shard, self._move_actions(key, to._replace(record=found.trigger.record), record)
            ):
                return Moved.MOVED
            raise _LostRace("move: other writers keep getting in the way")

        return await self._races.call("move", move, retry_on=(_LostRace,))

    async def _find_with_record(self, key: TriggerKey) -> tuple[Found, ShardRecord]:
        """What is stored at ``key``, and the record of its shard."""
        wanted = [self._trigger_key(key), self._tombstone_key(key), shard_key(key.shard)]
        items = await self._table.get_many(wanted)
        records = [read_shard(item) for item in items if identity(item) == identity(wanted[2])]
        if not records:
            raise await self._no_record(key.shard)
        found = found_at(key, [item for item in items if identity(item) != identity(wanted[2])])
        if found.trigger is None and found.tombstone is None:
            found = await self._find(key)
        return found, records[0]

    async def _no_record(self, shard: int) -> DyneinError:
        """Why a shard has no record: the key came from outside, so most likely it is another table's."""
        item = await self._table.get(layout_key())
        if item is not None and shard >= read_layout(item).shard_count:
            return InvalidToken(f"the token names shard {shard}, which table {self._table.name} does not have")
        return NotBootstrapped(f"table {self._table.name} has no record of shard {shard}: run `dynein bootstrap`")

    def _move_actions(self, key: TriggerKey, to: Trigger, record: ShardRecord) -> list[Item]:
        bucket = bucket_of(to.key.due_at_ms, self._width_ms)
        values = {":due": number(key.due_at_ms)}
        if to.key.due_at_ms > record.read_mark_ms:
            on_shard = self._check(key.shard, NOT_READ_AT_NEW_TIME, {**values, ":new_due": number(to.key.due_at_ms)})
        else:
            on_shard = {
                "Update": {
                    "TableName": self._table.name,
                    "Key": shard_key(key.shard),
                    "UpdateExpression": "SET late = late + :one",
                    "ConditionExpression": NOT_RETIRED_AT_NEW_TIME,
                    "ExpressionAttributeValues": {**values, ":bucket": number(bucket), ":one": number(1)},
                }
            }
        tombstone = tombstone_item(Tombstone(key, to.token), self._table.clock.now_ms(), self._width_ms)
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
                "TableName": self._table.name,
                "Key": shard_key(shard),
                "ConditionExpression": condition,
                "ExpressionAttributeValues": values,
            }
        }

    def _put(self, item: Item, **condition: str | Item) -> Item:
        return {"Put": {"TableName": self._table.name, "Item": item, **condition}}

    def _delete(self, key: Item, **condition: str) -> Item:
        return {"Delete": {"TableName": self._table.name, "Key": key, **condition}}
