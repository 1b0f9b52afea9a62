"""Triggers in DynamoDB: `dynein.core.trigger_store.TriggerStore`.

Items are laid out in `dynein.aws.dynamodb.items`; what a Query asks for and returns is in `trigger_pages`; what two
parties may want of one trigger at a time is in `trigger_changes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dynein.aws.calls import units_of
from dynein.aws.dynamodb.items import Item, identity, key_item, read_tombstone, record_key, text, trigger_item
from dynein.aws.dynamodb.table import DynamoTable
from dynein.aws.dynamodb.trigger_changes import TriggerChanges
from dynein.aws.dynamodb.trigger_pages import found_at, page_of, range_request, reached_key
from dynein.core.keys import Kind, TriggerKey, bucket_of, parse_partition_key, partition_key, sort_key
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import ADD_MAX, LOOKUP_MAX, REMOVE_MAX, DueCount, Found, Page, Tombstone


class DynamoTriggerStore:
    """See `dynein.core.trigger_store.TriggerStore`."""

    def __init__(self, table: DynamoTable, bucket_width_ms: int) -> None:
        self._table = table
        self._width_ms = bucket_width_ms
        changes = TriggerChanges(table, bucket_width_ms, self.find)
        self.claim = changes.claim
        self.cancel = changes.cancel
        self.move = changes.move
        self.reserve = changes.reserve

    async def add(self, triggers: Sequence[Trigger]) -> list[Trigger]:
        """Store up to `ADD_MAX` triggers; returns those not stored. Of several with one key, the last is stored."""
        assert len(triggers) <= ADD_MAX, len(triggers)
        if not triggers:
            return []
        items = [trigger_item(trigger, self._width_ms) for trigger in triggers]
        # DynamoDB refuses a batch that names a key twice.
        puts = {identity(item): {"PutRequest": {"Item": item}} for item in items}
        undone = await self._table.write_batch(list(puts.values()))
        return [trigger for trigger, item in zip(triggers, items, strict=True) if identity(item) in undone]

    async def read(
        self, bucket: int, shard: int, *, from_ms: int, until_ms: int, limit: int, resume: bytes | None = None
    ) -> Page:
        """One Query page, strongly consistent. A tombstone may come at the end of the page before its trigger's."""
        request = {**range_request(bucket, shard, from_ms, until_ms), "ConsistentRead": True, "Limit": limit}
        if resume is not None:
            request["ExclusiveStartKey"] = key_item(partition_key(bucket, shard), resume)
        response = await self._table.query(request)
        last = response.get("LastEvaluatedKey")
        resume = identity(last)[1] if last else None
        return page_of(response["Items"], bucket, shard, self._width_ms, until_ms=until_ms, resume=resume)

    async def count_due(self, bucket: int, shard: int, *, from_ms: int, until_ms: int, limit: int) -> DueCount:
        """One Query page that returns no items. Only triggers have a token; records that are neither count as none."""
        request = {
            **range_request(bucket, shard, from_ms, until_ms),
            "FilterExpression": "attribute_exists(tk)",
            "Select": "COUNT",
            "Limit": limit,
        }
        response = await self._table.query(request)
        last = response.get("LastEvaluatedKey")
        reached = reached_key(identity(last)[1], shard) if last else None
        return DueCount(response["Count"], reached, units_of(response.get("ConsumedCapacity") or {}))

    async def remove(self, keys: Sequence[TriggerKey]) -> list[TriggerKey]:
        """Remove up to `REMOVE_MAX` triggers; returns those not removed. Keys may repeat."""
        assert len(keys) <= REMOVE_MAX, len(keys)
        if not keys:
            return []
        places = [record_key(key, Kind.TRIGGER, self._width_ms) for key in keys]
        deletes = {identity(place): {"DeleteRequest": {"Key": place}} for place in places}
        undone = await self._table.write_batch(list(deletes.values()))
        return [key for key, place in zip(keys, places, strict=True) if identity(place) in undone]

    async def find(self, key: TriggerKey) -> Found:
        """What is stored at ``key``; a trigger that cannot be read is logged, and counts as not there."""
        pk = partition_key(bucket_of(key.due_at_ms, self._width_ms), key.shard)
        first, last = {"B": sort_key(key, Kind.TOMBSTONE)}, {"B": sort_key(key, Kind.TRIGGER)}
        request: dict[str, Any] = {
            "KeyConditionExpression": "pk = :pk AND sk BETWEEN :first AND :last",
            "ExpressionAttributeValues": {":pk": text(pk), ":first": first, ":last": last},
            "ConsistentRead": True,
        }
        # One Query costs half of what two reads by key do.
        response = await self._table.query(request)
        found = found_at(key, response["Items"])
        if found.trigger is None and found.tombstone is None:
            # A Query is not one moment: it may have passed the tombstone's place before a cancel, and the trigger's
            # after it. A read begun now sees the whole of that cancel.
            item = await self._table.get(self._tombstone_key(key))
            found = Found(None, read_tombstone(item, key) if item is not None else None)
        return found

    async def tombstones(self, keys: Sequence[TriggerKey]) -> list[Tombstone]:
        """Those of up to `LOOKUP_MAX` keys that have a tombstone. Keys may repeat."""
        assert len(keys) <= LOOKUP_MAX, len(keys)
        by_place = {identity(self._tombstone_key(key)): key for key in keys}
        items = await self._table.get_many([key_item(*place) for place in by_place])
        found = {identity(item): item for item in items}
        return [read_tombstone(found[place], key) for place, key in by_place.items() if place in found]

    async def buckets(self) -> list[tuple[int, int]]:
        """Scans the whole table, strongly consistent."""
        places: set[tuple[int, int]] = set()
        request: dict[str, Any] = {"ProjectionExpression": "pk", "ConsistentRead": True}
        while True:
            response = await self._table.scan(request)
            parsed = (parse_partition_key(item["pk"]["S"]) for item in response["Items"])
            places.update(place for place in parsed if place is not None)
            if not response.get("LastEvaluatedKey"):
                return sorted(places)
            request["ExclusiveStartKey"] = response["LastEvaluatedKey"]

    def _tombstone_key(self, key: TriggerKey) -> Item:
        return record_key(key, Kind.TOMBSTONE, self._width_ms)
