"""The table itself, and what only DynamoDB has: item layout, expiry, batches that name a key twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import pytest
import pytest_asyncio

from dynein.aws.dynamodb.layout import TableStep, bootstrap_table, verify_layout
from dynein.aws.dynamodb.roster import DynamoRoster
from dynein.aws.dynamodb.shards import DynamoShardRecords
from dynein.aws.dynamodb.table import DynamoTable
from dynein.aws.dynamodb.triggers import DynamoTriggerStore
from dynein.core.inbound_message import Arrival
from dynein.core.keys import Kind, TriggerKey, partition_key, sort_key
from dynein.core.shard_records import Layout
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import Cancelled, Moved, Tombstone
from dynein.errors import Conflict, LayoutMismatch, NotBootstrapped
from dynein.runtime.context import command_context
from dynein.settings import NEW_TABLE_BUCKET_WIDTH_S, NEW_TABLE_SHARD_COUNT, Settings
from dynein.testing import ManualClock
from tests.contract.conftest import EngineTable, dynamo_table, table_of
from tests.contract.samples import BUCKET, SHARDS, T0, WIDTH_MS, moved, trigger_at
from tests.contract.subjects import REAL_TABLES, WITHOUT_TRANSACTIONS, Subject, needs_transactions, over

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient

pytestmark = over(REAL_TABLES)

DAY_S = 86_400


def changed(settings: Settings, **update: Any) -> Settings:
    return settings.model_copy(update=update)


async def bootstrapped(client: DynamoDBClient, settings: Settings) -> list[TableStep]:
    return await bootstrap_table(table_of(client, settings), settings)


async def verified(client: DynamoDBClient, settings: Settings) -> Layout:
    return await verify_layout(table_of(client, settings), settings)


def outcomes(steps: list[Any]) -> list[str]:
    return [step.outcome for step in steps]


class Interposed:
    """A client that does something else right before its first ``operation``: a rival between reading and writing."""

    def __init__(self, client: DynamoDBClient, operation: str, rival: Callable[[], Awaitable[object]]) -> None:
        self._client = client
        self._operation = operation
        self._rivals = [rival]

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        if name != self._operation:
            return call

        async def after_the_rival(**request: Any) -> Any:
            while self._rivals:
                await self._rivals.pop()()
            return await call(**request)

        return after_the_rival


class TestBootstrap:
    async def test_it_makes_the_table(self, dynamodb: DynamoDBClient, engine_settings: Settings) -> None:
        assert outcomes(await bootstrapped(dynamodb, engine_settings)) == [
            "created",
            "created",
        ]
        described = (await dynamodb.describe_table(TableName=engine_settings.table))["Table"]
        assert {row["AttributeName"]: row["KeyType"] for row in described["KeySchema"]} == {"pk": "HASH", "sk": "RANGE"}
        types = {row["AttributeName"]: row["AttributeType"] for row in described["AttributeDefinitions"]}
        assert types == {"pk": "S", "sk": "B"}
        assert described["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        ttl = (await dynamodb.describe_time_to_live(TableName=engine_settings.table))["TimeToLiveDescription"]
        assert ttl["AttributeName"] == "ttl"
        assert ttl["TimeToLiveStatus"] in {"ENABLED", "ENABLING"}
        assert await verified(dynamodb, engine_settings) == Layout(WIDTH_MS, SHARDS, SHARDS)

    async def test_again_changes_nothing(self, dynamodb: DynamoDBClient, engine_settings: Settings) -> None:
        await bootstrapped(dynamodb, engine_settings)
        table = dynamo_table("", dynamodb, engine_settings)
        raised = await table.shards.raise_hold_mark(1, T0)
        assert outcomes(await bootstrapped(dynamodb, engine_settings)) == [
            "verified",
            "verified",
        ]
        assert (await table.shards.all())[1] == raised

    async def test_unset_layout_is_the_default_then_the_tables(
        self, dynamodb: DynamoDBClient, engine_settings: Settings
    ) -> None:
        unset = changed(engine_settings, bucket_width_s=None, shard_count=None)
        await bootstrapped(dynamodb, unset)
        default = Layout(NEW_TABLE_BUCKET_WIDTH_S * 1000, NEW_TABLE_SHARD_COUNT, NEW_TABLE_SHARD_COUNT)
        assert await verified(dynamodb, unset) == default
        await bootstrapped(dynamodb, changed(unset, shard_count=20))
        assert outcomes(await bootstrapped(dynamodb, unset)) == ["verified", "verified"]
        assert await verified(dynamodb, unset) == default._replace(shard_count=20)

    async def test_more_shards_keep_the_old_ones(self, dynamodb: DynamoDBClient, engine_settings: Settings) -> None:
        await bootstrapped(dynamodb, engine_settings)
        table = dynamo_table("", dynamodb, engine_settings)
        mine = await table.shards.take((await table.shards.get([0]))[0], "one")
        more = changed(engine_settings, shard_count=SHARDS + 3)
        assert outcomes(await bootstrapped(dynamodb, more)) == ["verified", "updated"]
        records = await table.shards.all()
        assert records[0] == mine
        assert len(records) == SHARDS + 3
        assert await verified(dynamodb, more) == Layout(WIDTH_MS, SHARDS + 3, SHARDS)

    async def test_an_interrupted_one_is_finished(self, dynamodb: DynamoDBClient, engine_settings: Settings) -> None:
        """Some shard records were written, the layout was not; or a record was lost."""
        await bootstrapped(dynamodb, engine_settings)
        for lost in ("layout", "shard#2"):
            key: Any = {"pk": {"S": lost}, "sk": {"B": b"\0"}}
            await dynamodb.delete_item(TableName=engine_settings.table, Key=key)
            assert outcomes(await bootstrapped(dynamodb, engine_settings))[1] in {
                "created",
                "updated",
            }
            shards = DynamoShardRecords(table_of(dynamodb, engine_settings))
            assert [record.shard for record in await shards.all()] == list(range(SHARDS))

    async def test_several_at_once(self, dynamodb: DynamoDBClient, engine_settings: Settings) -> None:
        await bootstrapped(dynamodb, engine_settings)
        wanted = [changed(engine_settings, shard_count=SHARDS + 5)] * 4
        await asyncio.gather(*(bootstrapped(dynamodb, settings) for settings in wanted))
        assert await verified(dynamodb, wanted[0]) == Layout(WIDTH_MS, SHARDS + 5, SHARDS)

    async def test_it_never_overwrites_what_another_has_just_made(
        self, dynamodb: DynamoDBClient, engine_settings: Settings
    ) -> None:
        """The record it saw missing is there by now, and in use: its marks must not fall."""
        await bootstrapped(dynamodb, engine_settings)
        key: Any = {"pk": {"S": "shard#2"}, "sk": {"B": b"\0"}}
        await dynamodb.delete_item(TableName=engine_settings.table, Key=key)
        table = dynamo_table("", dynamodb, engine_settings)

        async def rival() -> None:
            await bootstrapped(dynamodb, engine_settings)
            await table.shards.raise_hold_mark(2, T0)

        slow = cast("DynamoDBClient", Interposed(dynamodb, "put_item", rival))
        await bootstrapped(slow, engine_settings)
        assert (await table.shards.get([2]))[0].hold_mark_ms == T0

    async def test_a_table_of_somebody_elses(self, dynamodb: DynamoDBClient, engine_settings: Settings) -> None:
        await dynamodb.create_table(
            TableName=engine_settings.table,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        with pytest.raises(LayoutMismatch, match="DYNEIN_TABLE"):
            await bootstrapped(dynamodb, engine_settings)


class TestVerify:
    async def test_no_table(self, dynamodb: DynamoDBClient, engine_settings: Settings) -> None:
        with pytest.raises(NotBootstrapped, match="dynein bootstrap"):
            await verified(dynamodb, engine_settings)

    async def test_no_layout(self, dynamodb: DynamoDBClient, engine_settings: Settings) -> None:
        await bootstrapped(dynamodb, engine_settings)
        key: Any = {"pk": {"S": "layout"}, "sk": {"B": b"\0"}}
        await dynamodb.delete_item(TableName=engine_settings.table, Key=key)
        with pytest.raises(NotBootstrapped, match="dynein bootstrap"):
            await verified(dynamodb, engine_settings)
        shards = DynamoShardRecords(table_of(dynamodb, engine_settings))
        assert await shards.layout() is None
        with pytest.raises(NotBootstrapped):
            await shards.all()

    @pytest.mark.parametrize(
        ("update", "remedy"),
        [
            ({"bucket_width_s": 30}, "DYNEIN_BUCKET_WIDTH_S=60"),
            ({"shard_count": SHARDS - 1}, f"DYNEIN_SHARD_COUNT={SHARDS}"),
            ({"shard_count": SHARDS + 1}, "dynein bootstrap"),
        ],
    )
    async def test_a_mismatch_says_what_to_do(
        self, dynamodb: DynamoDBClient, engine_settings: Settings, update: dict[str, int], remedy: str
    ) -> None:
        await bootstrapped(dynamodb, engine_settings)
        with pytest.raises(LayoutMismatch, match=remedy):
            await verify_layout(
                table_of(dynamodb, changed(engine_settings, **update)), changed(engine_settings, **update)
            )
        if update != {"shard_count": SHARDS + 1}:
            with pytest.raises(LayoutMismatch, match=remedy):
                await bootstrap_table(
                    table_of(dynamodb, changed(engine_settings, **update)), changed(engine_settings, **update)
                )

    async def test_a_missing_table_stops_every_verb(self, dynamodb: DynamoDBClient, engine_settings: Settings) -> None:
        table = dynamo_table("", dynamodb, engine_settings)
        trigger = trigger_at(T0)
        calls = [
            table.store.add([trigger]),
            table.store.read(BUCKET, 0, from_ms=T0, until_ms=T0, limit=1),
            table.store.remove([trigger.key]),
            table.store.find(trigger.key),
            table.store.tombstones([trigger.key]),
            table.store.claim(Arrival(trigger, "a", prepared=True)),
            table.shards.layout(),
            table.shards.get([0]),
            table.shards.raise_hold_mark(0, T0),
            table.shards.report_late(0, BUCKET),
            table.roster.heartbeat("ingester", "one", 1),
            table.roster.members("ingester"),
        ]
        for call in calls:
            with pytest.raises(NotBootstrapped):
                await call

    @needs_transactions
    async def test_a_missing_table_stops_a_cancel(self, dynamodb: DynamoDBClient, engine_settings: Settings) -> None:
        with pytest.raises(NotBootstrapped):
            await dynamo_table("", dynamodb, engine_settings).store.cancel(trigger_at(T0).key)


@needs_transactions
class TestMoveRaces:
    """`TriggerStore.move` reads first; these are decided by the conditions of its transaction alone."""

    @pytest_asyncio.fixture(autouse=True, loop_scope="session")
    async def _a_stored_job(self, dynamodb: DynamoDBClient, engine_settings: Settings) -> None:
        await bootstrapped(dynamodb, engine_settings)
        self.client, self.settings = dynamodb, engine_settings
        self.rival = dynamo_table("", dynamodb, engine_settings)
        self.trigger = trigger_at(T0 + 5 * WIDTH_MS)
        await self.rival.store.add([self.trigger])
        mine = await self.rival.shards.take((await self.rival.shards.get([0]))[0], "a dispatcher")
        assert mine is not None
        self.mine = mine

    async def move(self, to: Trigger, rival: Callable[[], Awaitable[object]]) -> Moved | Tombstone:
        client = cast("DynamoDBClient", Interposed(self.client, "transact_write_items", rival))
        return await dynamo_table("", client, self.settings).store.move(self.trigger.key, to)

    async def renew(self, read_mark_ms: int, retired_before: int = 0) -> None:
        mine = await self.rival.shards.renew(
            self.mine,
            settled_mark_ms=self.mine.settled_mark_ms,
            read_mark_ms=read_mark_ms,
            retired_before=retired_before,
        )
        assert mine is not None
        self.mine = mine

    async def standing(self, to: Trigger) -> tuple[bool, bool]:
        """Is the trigger at its old place, and at its new one?"""
        store = self.rival.store
        old, new = await store.find(self.trigger.key), await store.find(to.key)
        return old.trigger is not None, new.trigger is not None

    async def test_cancelled(self) -> None:
        to = moved(self.trigger, T0)
        result = await self.move(to, lambda: self.rival.store.cancel(self.trigger.key))
        assert result == Tombstone(self.trigger.key, None)
        assert await self.standing(to) == (False, False)

    async def test_cancelled_and_then_ingested_again(self) -> None:
        async def rival() -> None:
            await self.rival.store.cancel(self.trigger.key)
            await self.rival.store.add([self.trigger])

        to = moved(self.trigger, T0)
        assert await self.move(to, rival) == Tombstone(self.trigger.key, None)
        assert await self.standing(to) == (True, False)

    async def test_removed(self) -> None:
        to = moved(self.trigger, T0)
        assert await self.move(to, lambda: self.rival.store.remove([self.trigger.key])) is Moved.NOT_STORED
        assert await self.standing(to) == (False, False)

    async def test_read(self) -> None:
        to = moved(self.trigger, T0)
        assert await self.move(to, lambda: self.renew(self.trigger.key.due_at_ms)) is Moved.TOO_LATE
        assert await self.standing(to) == (True, False)

    async def test_held(self) -> None:
        to = moved(self.trigger, T0)
        hold = self.rival.shards.raise_hold_mark(0, self.trigger.key.due_at_ms)
        assert await self.move(to, lambda: hold) is Moved.TOO_LATE
        assert await self.standing(to) == (True, False)

    async def test_the_read_mark_overtakes_the_new_time(self) -> None:
        to = moved(self.trigger, T0)
        assert await self.move(to, lambda: self.renew(T0)) is Moved.MOVED
        (record,) = await self.rival.shards.get([0])
        assert record.late_writes == 1, "or the owner, having read past it, would not read it again"

    async def test_the_new_times_bucket_is_retired(self) -> None:
        await self.renew(T0 + WIDTH_MS)
        to = moved(self.trigger, T0)
        with pytest.raises(Conflict):
            await self.move(to, lambda: self.renew(T0 + WIDTH_MS, BUCKET + 1))
        assert await self.standing(to) == (True, False)


SAYS_NOT_WHAT_IT_CONSUMES = {
    "dynalite": set[str](),
    "ministack": {"BatchGetItem"},
    "moto": {"TransactWriteItems"},
    "real": set[str](),
    "roto": {"Query", "TransactWriteItems"},
}
"""Engines deviate; DynamoDB reports for all of them. `dynein_capacity_units_total` is short of these."""


async def test_what_calls_consume_is_counted_by_operation_and_kind(
    subject: Subject, dynamodb: DynamoDBClient, engine_settings: Settings
) -> None:
    context = command_context()
    table = DynamoTable(dynamodb, engine_settings.table, context)
    await bootstrap_table(table, engine_settings)
    store, shards, roster = DynamoTriggerStore(table, WIDTH_MS), DynamoShardRecords(table), DynamoRoster(table)
    trigger = trigger_at(T0)
    await store.add([trigger])
    await store.read(BUCKET, 0, from_ms=T0, until_ms=T0, limit=5)
    await store.remove([trigger.key])
    await shards.take((await shards.all())[0], "an owner")
    await roster.heartbeat("ingester", "one", 1)
    await roster.leave("ingester", "one")
    if subject.engine not in WITHOUT_TRANSACTIONS:
        await store.cancel(trigger_at(T0 + 1000 * WIDTH_MS).key)
    (metric,) = context.telemetry.capacity_units.collect()
    units = {
        (sample.labels["operation"], sample.labels["kind"]): sample.value
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.value
    }
    reads = {"BatchGetItem", "GetItem", "Query"}
    writes = {"BatchWriteItem", "DeleteItem", "PutItem", "UpdateItem"}
    if subject.engine not in WITHOUT_TRANSACTIONS:
        writes.add("TransactWriteItems")
    silent = SAYS_NOT_WHAT_IT_CONSUMES[subject.engine]
    assert units.keys() == {(name, "read") for name in reads - silent} | {(name, "write") for name in writes - silent}
    assert units["BatchWriteItem", "write"] == 2, "one for the put, one for the delete"


class TestItems:
    async def test_a_batch_may_name_a_key_twice(self, table: EngineTable) -> None:
        """DynamoDB itself refuses that."""
        store = table.store
        trigger = trigger_at(T0)
        last = trigger._replace(record=b'{"q":"demo"}\nthe last wins')
        assert await store.add([trigger, trigger, last]) == []
        assert (await store.find(trigger.key)).trigger == last
        await table.entomb(trigger.key)
        assert len(await store.tombstones([trigger.key, trigger.key])) == 1
        await store.add([trigger])
        assert await store.remove([trigger.key, trigger.key]) == []
        assert (await store.find(trigger.key)).trigger is None

    async def test_nothing_costs_no_call(self, dynamodb: DynamoDBClient, engine_settings: Settings) -> None:
        store = dynamo_table("", dynamodb, engine_settings).store
        assert await store.add([]) == []
        assert await store.remove([]) == []
        assert await store.tombstones([]) == []

    @needs_transactions
    @pytest.mark.parametrize("now_ms", [T0 - 90 * DAY_S * 1000, T0 + 90 * DAY_S * 1000])
    async def test_markers_outlive_the_job_and_every_inbound_message(
        self, dynamodb: DynamoDBClient, engine_settings: Settings, now_ms: int
    ) -> None:
        await bootstrapped(dynamodb, engine_settings)
        name = engine_settings.table
        context = command_context()._replace(clock=ManualClock(now_ms))
        store = DynamoTriggerStore(DynamoTable(dynamodb, name, context), WIDTH_MS)
        trigger, goes = trigger_at(T0, prepared=True), trigger_at(T0)
        await store.add([goes])
        assert await store.cancel(trigger.key) is Cancelled.CANCELLED
        assert await store.move(goes.key, moved(goes, T0 + 1)) is Moved.MOVED
        await store.claim(Arrival(trigger, "a", prepared=True))
        places: list[tuple[str, bytes]] = [
            (partition_key(BUCKET, 0), sort_key(trigger.key, Kind.TOMBSTONE)),
            (partition_key(BUCKET, 0), sort_key(goes.key, Kind.TOMBSTONE)),
            (f"claim#{trigger.key.job_id.hex()}", b"\0"),
        ]
        for pk, sk in places:
            item = await raw_item(dynamodb, name, pk, sk)
            assert int(item["ttl"]["N"]) - max(now_ms, T0) // 1000 > 14 * DAY_S
        kept = await raw_item(dynamodb, name, partition_key(BUCKET, 0), sort_key(moved(goes, T0 + 1).key, Kind.TRIGGER))
        assert "ttl" not in kept, "a trigger never expires"

    async def test_a_member_that_never_left_is_tidied_away(
        self, dynamodb: DynamoDBClient, engine_settings: Settings
    ) -> None:
        await bootstrapped(dynamodb, engine_settings)
        table = DynamoTable(dynamodb, engine_settings.table, command_context()._replace(clock=ManualClock(T0)))
        await DynamoRoster(table).heartbeat("ingester", "one", 1)
        item = await raw_item(dynamodb, engine_settings.table, "member#ingester", b"one")
        assert int(item["ttl"]["N"]) > T0 // 1000

    async def test_every_kind_of_unreadable_record_is_reported(
        self, dynamodb: DynamoDBClient, engine_settings: Settings
    ) -> None:
        await bootstrapped(dynamodb, engine_settings)
        store = dynamo_table("", dynamodb, engine_settings).store
        good, other = trigger_at(T0 + 1), trigger_at(T0 + 1)
        await store.add([good])
        place = sort_key(other.key, Kind.TRIGGER)
        token, job = {"S": other.token}, {"S": other.record.decode()}
        elsewhere = TriggerKey(T0 + 2, b"a" * 12, 0)
        spoiled: dict[bytes, dict[str, Any]] = {
            place: {"tk": token},
            place[:-1] + b"\x07": {"tk": token, "job": job},
            place[:9]: {"tk": token, "job": job},
            sort_key(elsewhere, Kind.TRIGGER): {"tk": token, "job": job},
            sort_key(elsewhere._replace(job_id=b"b" * 12), Kind.TRIGGER): {"tk": {"S": "né"}, "job": job},
            sort_key(elsewhere._replace(job_id=b"c" * 12), Kind.TRIGGER): {"tk": token, "job": {"N": "1"}},
        }
        for sk, attributes in spoiled.items():
            item: Any = {"pk": {"S": partition_key(BUCKET, 0)}, "sk": {"B": sk}, **attributes}
            await dynamodb.put_item(TableName=engine_settings.table, Item=item)
        page = await store.read(BUCKET, 0, from_ms=T0, until_ms=T0 + 9, limit=99)
        assert page.triggers == [good]
        assert len(page.undecodable) == len(spoiled)
        assert {key.due_at_ms for key in page.undecodable} == {T0 + 1, T0 + 2}
        assert (await store.find(other.key)).trigger is None, "and finding one does not fail either"

    async def test_a_stray_right_on_the_upper_bound_is_not_in_range(
        self, dynamodb: DynamoDBClient, engine_settings: Settings
    ) -> None:
        await bootstrapped(dynamodb, engine_settings)
        store = dynamo_table("", dynamodb, engine_settings).store
        item: Any = {"pk": {"S": partition_key(BUCKET, 0)}, "sk": {"B": (T0 + 1).to_bytes(6, "big")}}
        await dynamodb.put_item(TableName=engine_settings.table, Item=item)
        assert (await store.read(BUCKET, 0, from_ms=T0, until_ms=T0, limit=9)).undecodable == []
        assert len((await store.read(BUCKET, 0, from_ms=T0, until_ms=T0 + 1, limit=9)).undecodable) == 1


async def raw_item(client: DynamoDBClient, table: str, pk: str, sk: bytes) -> dict[str, Any]:
    key: Any = {"pk": {"S": pk}, "sk": {"B": sk}}
    return dict((await client.get_item(TableName=table, Key=key, ConsistentRead=True))["Item"])
