"""The DynamoDB half: one table, as sorted partitions of items kept in the JSON text they came in."""

from __future__ import annotations

import binascii
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from benchmarks.jobs import StoredTrigger
from benchmarks.stub.expressions import Item, holds, updated
from benchmarks.stub.meter import Meter, read_units, write_units
from dynein.core.keys import range_from

PAGE_BYTES_MAX = 1_048_576
_CONDITION_FAILED = (
    b'{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException","message":"The conditional request '
    b'failed"}'
)


class ConditionFailed(Exception):
    """The response has status 400 and this body."""

    body = _CONDITION_FAILED


class _Text(msgspec.Struct):
    S: str


class _Binary(msgspec.Struct):
    B: str


class _Key(msgspec.Struct):
    pk: _Text
    sk: _Binary


class _Put(msgspec.Struct):
    Item: msgspec.Raw


class _Delete(msgspec.Struct):
    Key: _Key


class _Write(msgspec.Struct):
    PutRequest: _Put | None = None
    DeleteRequest: _Delete | None = None


class _BatchWrite(msgspec.Struct):
    RequestItems: dict[str, list[_Write]]


class _Query(msgspec.Struct):
    KeyConditionExpression: str
    ExpressionAttributeValues: dict[str, dict[str, str]]
    Limit: int | None = None
    ExclusiveStartKey: _Key | None = None


class Stored(NamedTuple):
    """One item: its JSON text and what DynamoDB counts as its size."""

    raw: bytes
    size_bytes: int


_BATCH_WRITE = msgspec.json.Decoder(_BatchWrite)
_QUERY = msgspec.json.Decoder(_Query)
_KEY = msgspec.json.Decoder(_Key)


class Tally:
    """The number of items in many partitions: a benchmark asks for it many times a second."""

    def __init__(self) -> None:
        self.items = 0


class Partition:
    """Items of one partition key, by sort key; ``tally`` counts them."""

    def __init__(self, tally: Tally) -> None:
        self.keys: list[bytes] = []
        self.items: dict[bytes, Stored] = {}
        self._tally = tally

    def put(self, sk: bytes, stored: Stored) -> Stored | None:
        """Returns the item it replaces or removes."""
        before = self.items.get(sk)
        if before is None:
            insort(self.keys, sk)
            self._tally.items += 1
        self.items[sk] = stored
        return before

    def load(self, rows: Iterable[tuple[bytes, Stored]]) -> None:
        """Many at once."""
        before = len(self.items)
        self.items.update(rows)
        self.keys = sorted(self.items)
        self._tally.items += len(self.items) - before

    def delete(self, sk: bytes) -> Stored | None:
        """Returns the item it replaces or removes."""
        before = self.items.pop(sk, None)
        if before is not None:
            del self.keys[bisect_left(self.keys, sk)]
            self._tally.items -= 1
        return before

    def forget(self, first: bytes) -> None:
        """Items from a sort key on."""
        at = bisect_left(self.keys, first)
        for sk in self.keys[at:]:
            del self.items[sk]
        self._tally.items -= len(self.keys) - at
        del self.keys[at:]


class Table:
    """One table; its name is ignored."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._partitions: dict[str, Partition] = {}
        self._triggers, self._others = Tally(), Tally()

    def handle(self, operation: bytes, body: bytes) -> bytes:
        """Serve one request. Raises `ConditionFailed`."""
        match operation:
            case b"BatchWriteItem":
                return self._batch_write(body)
            case b"Query":
                return self._query(body)
            case b"UpdateItem" | b"PutItem" | b"DeleteItem":
                return self._write_one(operation.decode(), msgspec.json.decode(body))
            case b"GetItem":
                return self._get(msgspec.json.decode(body))
            case b"BatchGetItem":
                return self._get_many(msgspec.json.decode(body))
            case b"DescribeTable" | b"CreateTable" | b"DescribeTimeToLive" | b"UpdateTimeToLive":
                self._meter.dynamodb(operation.decode(), 0)
                return _DESCRIPTIONS[operation]
            case _:
                raise NotImplementedError(operation.decode())

    def load(self, triggers: Iterable[StoredTrigger]) -> int:
        """Store triggers that were made here, uncounted."""
        rows: dict[str, list[tuple[bytes, Stored]]] = {}
        sizes: dict[tuple[int, int], int] = {}
        for pk, sk, raw in triggers:
            shape = (len(pk), len(raw))  # alike but for names of shards and queues
            if shape not in sizes:
                sizes[shape] = size_bytes(msgspec.json.decode(raw))
            rows.setdefault(pk, []).append((sk, Stored(raw, sizes[shape])))
        for pk, some in rows.items():
            self._partition(pk).load(some)
        return sum(map(len, rows.values()))

    def forget_triggers(self, from_ms: int) -> None:
        """Those due from then on."""
        first = range_from(from_ms)
        for pk, partition in self._partitions.items():
            if pk.startswith("t#"):
                partition.forget(first)

    def triggers(self) -> int:
        """How many are stored."""
        return self._triggers.items

    def _partition(self, pk: str) -> Partition:
        partition = self._partitions.get(pk)
        if partition is None:
            tally = self._triggers if pk.startswith("t#") else self._others
            partition = self._partitions[pk] = Partition(tally)
        return partition

    # --- hot --------------------------------------------------------------------------------------------------------

    def _batch_write(self, body: bytes) -> bytes:
        units = count = 0
        for writes in _BATCH_WRITE.decode(body).RequestItems.values():
            for write in writes:
                count += 1
                if write.PutRequest is not None:
                    raw = bytes(write.PutRequest.Item)
                    key = _KEY.decode(raw)
                    stored = Stored(raw, size_bytes(msgspec.json.decode(raw)))
                    before = self._partition(key.pk.S).put(binascii.a2b_base64(key.sk.B), stored)
                    units += write_units(stored.size_bytes, before.size_bytes if before else 0)
                else:
                    assert write.DeleteRequest is not None
                    key = write.DeleteRequest.Key
                    before = self._partition(key.pk.S).delete(binascii.a2b_base64(key.sk.B))
                    units += write_units(before.size_bytes if before else 0)
        self._meter.dynamodb("BatchWriteItem", count, write_units=units)
        return b'{"UnprocessedItems":{}}'

    def _query(self, body: bytes) -> bytes:
        request = _QUERY.decode(body)
        values = request.ExpressionAttributeValues
        partition = self._partitions.get(values[":pk"]["S"]) or Partition(self._others)
        first, last = 0, len(partition.keys)
        if "BETWEEN" in request.KeyConditionExpression:
            low, high = (binascii.a2b_base64(v["B"]) for name, v in sorted(values.items()) if name != ":pk")
            low, high = min(low, high), max(low, high)
            first, last = bisect_left(partition.keys, low), bisect_right(partition.keys, high)
        if request.ExclusiveStartKey is not None:
            first = max(first, bisect_right(partition.keys, binascii.a2b_base64(request.ExclusiveStartKey.sk.B)))
        end = last if request.Limit is None else min(last, first + request.Limit)
        keys = partition.keys[first:end]
        items = partition.items
        found = [items[key] for key in keys]
        size = sum(stored.size_bytes for stored in found)
        if size > PAGE_BYTES_MAX:
            found = _cut(found)
            size = sum(stored.size_bytes for stored in found)
        # DynamoDB names a last key whenever it stopped for the limit, be anything left or not.
        more = len(found) < last - first or len(found) == request.Limit
        self._meter.dynamodb("Query", len(found), read_units=read_units(size))
        resume = b""
        if more and found:
            sk = binascii.b2a_base64(keys[len(found) - 1], newline=False)
            resume = b',"LastEvaluatedKey":{"pk":{"S":"%b"},"sk":{"B":"%b"}}' % (values[":pk"]["S"].encode(), sk)
        return b'{"Count":%d,"ScannedCount":%d,"Items":[%b]%b}' % (
            len(found), len(found), b",".join([stored.raw for stored in found]), resume,
        )  # fmt: skip

    # --- cold -------------------------------------------------------------------------------------------------------

    def _write_one(self, operation: str, request: Mapping[str, Any]) -> bytes:
        key = request["Item"] if operation == "PutItem" else request["Key"]
        partition, sk = self._partition(key["pk"]["S"]), binascii.a2b_base64(key["sk"]["B"])
        stored = partition.items.get(sk)
        before: Item | None = msgspec.json.decode(stored.raw) if stored else None
        values = request.get("ExpressionAttributeValues", {})
        names = request.get("ExpressionAttributeNames", {})
        old_bytes = stored.size_bytes if stored else 0
        condition = request.get("ConditionExpression")
        if condition is not None and not holds(condition, before, values, names):
            self._meter.dynamodb(operation, 1, write_units=write_units(old_bytes))
            raise ConditionFailed
        after: Item | None = None
        if operation == "PutItem":
            after = request["Item"]
        elif operation == "UpdateItem":
            after = updated(request["UpdateExpression"], before or dict(key), values, names)
        new_bytes = 0
        if after is None:
            partition.delete(sk)
        else:
            new_bytes = size_bytes(after)
            partition.put(sk, Stored(msgspec.json.encode(after), new_bytes))
        self._meter.dynamodb(operation, 1, write_units=write_units(old_bytes, new_bytes))
        return msgspec.json.encode({"Attributes": after}) if operation == "UpdateItem" else b"{}"

    def _get(self, request: Mapping[str, Any]) -> bytes:
        stored = self._find(request["Key"])
        self._meter.dynamodb("GetItem", 1, read_units=read_units(stored.size_bytes if stored else 0))
        return b'{"Item":%b}' % stored.raw if stored else b"{}"

    def _get_many(self, request: Mapping[str, Any]) -> bytes:
        ((table, wanted),) = request["RequestItems"].items()
        found = [self._find(key) for key in wanted["Keys"]]
        units = sum(read_units(stored.size_bytes if stored else 0) for stored in found)
        self._meter.dynamodb("BatchGetItem", len(found), read_units=units)
        items = b",".join([stored.raw for stored in found if stored])
        return b'{"Responses":{"%b":[%b]},"UnprocessedKeys":{}}' % (table.encode(), items)

    def _find(self, key: Mapping[str, Any]) -> Stored | None:
        partition = self._partitions.get(key["pk"]["S"])
        return partition.items.get(binascii.a2b_base64(key["sk"]["B"])) if partition else None


def size_bytes(item: Mapping[str, Mapping[str, str]]) -> int:
    """DynamoDB's item size: names and values in UTF-8, raw bytes for binary, about half a byte a digit for numbers.

    Source: Developer Guide, "DynamoDB item sizes and formats".
    """
    total = 0
    for name, value in item.items():
        ((kind, content),) = value.items()
        total += len(name)
        if kind == "B":
            total += len(content) * 3 // 4 - content[-2:].count("=")
        elif kind == "N":
            total += (len(content) + 1) // 2 + 1
        else:
            total += len(content.encode())
    return total


def _cut(found: Sequence[Stored]) -> list[Stored]:
    kept: list[Stored] = []
    size = 0
    for stored in found:
        size += stored.size_bytes
        if kept and size > PAGE_BYTES_MAX:
            break
        kept.append(stored)
    return kept


_DESCRIPTIONS = {
    b"DescribeTable": b'{"Table":{"TableStatus":"ACTIVE","KeySchema":[{"AttributeName":"pk","KeyType":"HASH"},'
    b'{"AttributeName":"sk","KeyType":"RANGE"}],"AttributeDefinitions":[{"AttributeName":"pk","AttributeType":"S"},'
    b'{"AttributeName":"sk","AttributeType":"B"}]}}',
    b"CreateTable": b"{}",
    b"DescribeTimeToLive": b'{"TimeToLiveDescription":{"TimeToLiveStatus":"ENABLED","AttributeName":"ttl"}}',
    b"UpdateTimeToLive": b"{}",
}
