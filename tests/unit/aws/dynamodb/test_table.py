"""What the adapters do when DynamoDB does a batch in part, is busy, or refuses for a moment.

Engines never do that on their own, so the client is scripted here; everything else is tested on engines, in
``tests/contract``.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import pytest
from botocore.exceptions import ClientError

from dynein.aws.dynamodb.items import shard_item
from dynein.aws.dynamodb.shards import DynamoShardRecords
from dynein.aws.dynamodb.table import CONFLICT_TRIES, UNPROCESSED_TRIES, DynamoTable
from dynein.aws.dynamodb.triggers import DynamoTriggerStore
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import Kind, TriggerKey, sort_key
from dynein.core.shard_records import new_shard_record
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import Cancelled, Tombstone
from dynein.errors import Throttled
from dynein.observability.telemetry import Telemetry
from dynein.runtime.context import Context
from dynein.testing import ManualClock

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient

T0 = 4_102_444_800_000
_SIGNER = TokenSigner([b"a secret of enough bytes"])


def trigger(number: int) -> Trigger:
    key = TriggerKey(T0 + number, number.to_bytes(12, "big"), 0)
    return Trigger(key, _SIGNER.sign(JobRef(TokenKind.SCHEDULED, key)), b'{"q":"demo"}\nx')


def refused(code: str, reasons: list[str] | None = None) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": "why"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    if reasons is not None:
        response["CancellationReasons"] = [{"Code": reason} for reason in reasons]
    return ClientError(response, "Operation")


class Script:
    """A DynamoDB client with a script: for each call a value, an error, or a function of the request."""

    def __init__(self, *responses: Any) -> None:
        self.responses = deque(responses)
        self.requests: list[dict[str, Any]] = []
        self.meta = self
        self.config = self
        self.read_timeout = 60.0

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(**request: Any) -> Any:
            self.requests.append({"operation": name, **request})
            response = self.responses.popleft()
            if isinstance(response, Exception):
                raise response
            return response(request) if callable(response) else response

        return call

    def operations(self) -> list[str]:
        return [request["operation"] for request in self.requests]


def table_of(script: Script, clock: ManualClock) -> DynamoTable:
    return DynamoTable(cast("DynamoDBClient", script), "t", Context(clock, random.Random(1), Telemetry()))


def store_of(script: Script, clock: ManualClock) -> DynamoTriggerStore:
    return DynamoTriggerStore(table_of(script, clock), 60_000)


def shards_of(script: Script, clock: ManualClock) -> DynamoShardRecords:
    return DynamoShardRecords(table_of(script, clock))


class TestUnprocessed:
    async def test_items_come_back_as_their_triggers(self) -> None:
        triggers = [trigger(i) for i in range(5)]

        def last_two(request: dict[str, Any]) -> Any:
            return {"UnprocessedItems": {"t": request["RequestItems"]["t"][3:]}}

        assert await store_of(Script(last_two), ManualClock()).add(triggers) == triggers[3:]
        assert await store_of(Script({"UnprocessedItems": {}}), ManualClock()).add(triggers) == []
        assert await store_of(Script({}), ManualClock()).add(triggers) == []

    async def test_a_trigger_given_twice_comes_back_twice(self) -> None:
        """Each has a caller who waits to hear of it."""

        def everything(request: dict[str, Any]) -> Any:
            return {"UnprocessedItems": request["RequestItems"]}

        given = [trigger(1), trigger(2), trigger(1)]
        assert await store_of(Script(everything), ManualClock()).add(given) == given

    async def test_deletes_come_back_as_their_keys(self) -> None:
        keys = [trigger(i).key for i in range(3)]

        def the_middle(request: dict[str, Any]) -> Any:
            return {"UnprocessedItems": {"t": request["RequestItems"]["t"][1:2]}}

        script = Script(the_middle)
        assert await store_of(script, ManualClock()).remove(keys) == [keys[1]]
        assert [r["DeleteRequest"]["Key"]["sk"]["B"] for r in script.requests[0]["RequestItems"]["t"]] == [
            sort_key(key, Kind.TRIGGER) for key in keys
        ]

    async def test_keys_are_asked_for_until_all_have_come(self) -> None:
        keys = [trigger(i).key for i in range(3)]

        def first_only(request: dict[str, Any]) -> Any:
            asked = request["RequestItems"]["t"]["Keys"]
            rest = {"t": {"Keys": asked[1:]}} if asked[1:] else {}
            return {"Responses": {"t": [asked[0]]}, "UnprocessedKeys": rest}

        script, clock = Script(*[first_only] * 3), ManualClock()
        found = await clock.result_of(store_of(script, clock).tombstones(keys))
        assert found == [Tombstone(key, None) for key in keys]
        assert all(request["RequestItems"]["t"]["ConsistentRead"] for request in script.requests)
        assert clock.monotonic() > 0, "with pauses"

    async def test_not_forever(self) -> None:
        def none_of_them(request: dict[str, Any]) -> Any:
            return {"Responses": {}, "UnprocessedKeys": request["RequestItems"]}

        script, clock = Script(*[none_of_them] * UNPROCESSED_TRIES), ManualClock()
        with pytest.raises(Throttled):
            await clock.result_of(store_of(script, clock).tombstones([trigger(1).key]))
        assert not script.responses


class TestOlderRecords:
    async def test_a_shard_record_that_does_not_say_which_read_mark_has_stood(self) -> None:
        record = new_shard_record(0, 90_000_000, 60_000)
        item = {name: value for name, value in shard_item(record).items() if name != "settled_mark"}
        [read] = await shards_of(Script({"Responses": {"t": [item]}}), ManualClock()).get([0])
        assert read == record


class TestConflicts:
    async def test_a_renewal_meets_a_cancel_under_way(self) -> None:
        item = {**shard_item(new_shard_record(0, 0, 60_000)), "owner": {"S": "me"}}
        script, clock = Script(refused("TransactionConflictException"), {"Attributes": item}), ManualClock()
        shards = shards_of(script, clock)
        (mine,) = await shards_of(Script({"Responses": {"t": [item]}}), clock).get([0])
        renewed = await clock.result_of(
            shards.renew(mine, settled_mark_ms=mine.settled_mark_ms, read_mark_ms=T0, retired_before=0)
        )
        assert renewed is not None
        assert script.operations() == ["update_item"] * 2

    async def test_not_forever(self) -> None:
        script, clock = Script(*[refused("TransactionConflictException")] * CONFLICT_TRIES), ManualClock()
        with pytest.raises(Throttled):
            await clock.result_of(shards_of(script, clock).report_late(0, 1))
        assert not script.responses

    async def test_a_cancel_meets_another_transaction(self) -> None:
        conflict = refused("TransactionCanceledException", ["TransactionConflict", "None", "None"])
        script, clock = Script(conflict, conflict, {}), ManualClock()
        assert await clock.result_of(store_of(script, clock).cancel(trigger(1).key)) is Cancelled.CANCELLED
        assert clock.monotonic() > 0, "with pauses"

    async def test_a_cancel_that_is_throttled(self) -> None:
        script = Script(refused("TransactionCanceledException", ["None", "ThrottlingError", "None"]))
        with pytest.raises(Throttled):
            await store_of(script, ManualClock()).cancel(trigger(1).key)

    async def test_a_cancel_that_keeps_losing_to_no_one(self) -> None:
        """A condition failed, and yet every condition holds each time it is read: it ends, and asks for a repeat."""
        lost = refused("TransactionCanceledException", ["ConditionalCheckFailed", "None", "None"])
        reads: list[Any] = [{"Responses": {"t": [shard_item(new_shard_record(0, 0, 60_000))]}}, {"Items": []}, {}]
        script, clock = Script(*([lost, *reads] * 99)), ManualClock()
        with pytest.raises(Throttled):
            await clock.result_of(store_of(script, clock).cancel(trigger(1).key))


class TestFind:
    async def test_a_cancel_between_the_two_places_is_not_missed(self) -> None:
        """The Query passed the tombstone's place before the cancel, and the trigger's after it."""
        key = trigger(1).key
        tombstone = {"pk": {"S": "p"}, "sk": {"B": sort_key(key, Kind.TOMBSTONE)}}
        script = Script({"Items": []}, {"Item": tombstone})
        found = await store_of(script, ManualClock()).find(key)
        assert found.tombstone == Tombstone(key, None)
        assert script.operations() == ["query", "get_item"]


class TestRequests:
    async def test_reading_all_shards_costs_one_call_once_their_number_is_known(self) -> None:
        layout = {"pk": {"S": "layout"}, "sk": {"B": b"\0"}, "bucket_width_ms": {"N": "1"}, "shard_count": {"N": "3"}}
        items = [shard_item(new_shard_record(shard, 0, 60_000)) for shard in range(3)]
        script = Script(
            {"Responses": {"t": [layout]}},
            {"Responses": {"t": items}},
            {"Responses": {"t": [layout, *items]}},
        )
        shards = shards_of(script, ManualClock())
        for _ in range(2):
            assert [record.shard for record in await shards.all()] == [0, 1, 2]
        assert not script.responses

    async def test_a_renewal_costs_one_call(self) -> None:
        item = {**shard_item(new_shard_record(0, 0, 60_000)), "owner": {"S": "me"}}
        script = Script({"Responses": {"t": [item]}}, {"Attributes": item})
        shards = shards_of(script, ManualClock())
        (mine,) = await shards.get([0])
        await shards.renew(mine, settled_mark_ms=mine.settled_mark_ms, read_mark_ms=T0, retired_before=9)
        assert not script.responses
