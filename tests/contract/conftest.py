"""Fixtures of the contract suite: an engine running, clients of it, and on them what the tests are about.

`tests.contract.subjects` says what the suite runs over.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import pytest_asyncio

from dynein.aws.clients import clients
from dynein.aws.dynamodb.items import tombstone_item
from dynein.aws.dynamodb.layout import bootstrap_table
from dynein.aws.dynamodb.ledger import DynamoLedger
from dynein.aws.dynamodb.roster import DynamoRoster
from dynein.aws.dynamodb.shards import DynamoShardRecords
from dynein.aws.dynamodb.table import DynamoTable
from dynein.aws.dynamodb.triggers import DynamoTriggerStore
from dynein.core.keys import Kind, TriggerKey, bucket_of, partition_key, sort_key
from dynein.core.ledger import LedgerStore
from dynein.core.shard_records import Roster, ShardRecords
from dynein.core.trigger_store import Cancelled, Tombstone, TriggerStore
from dynein.runtime.context import command_context
from dynein.settings import Settings, load_settings
from dynein.testing import FakeLedger, FakeTriggerTable, ManualClock
from tests import engines
from tests.contract.samples import SHARDS, WIDTH_MS
from tests.contract.subjects import CLIENTS, WITHOUT_TRANSACTIONS, Subject

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient
    from types_aiobotocore_sqs import SQSClient


LEDGER_WINDOW_MS = 3_600_000


class EngineTable(NamedTuple):
    """A fresh table with `SHARDS` shards, by its protocols, and what tests do to it behind their back."""

    engine: str
    store: TriggerStore
    shards: ShardRecords
    roster: Roster
    ledger: LedgerStore
    spoil: Callable[[TriggerKey], Awaitable[None]]
    """Put a record at a trigger's place that is not one."""
    entomb: Callable[[TriggerKey], Awaitable[None]]
    """Cancel the job; where an engine cannot, put its tombstone as a cancel would."""
    grow: Callable[[int], Awaitable[None]]
    """Raise the shard count."""


# --- engines and clients --------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def endpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str | None]]:
    """The URL of an engine, started when first asked for; ``None`` for AWS, whose URL the SDK knows."""
    urls: dict[str, str] = {}
    with contextlib.ExitStack() as running:

        def url(engine: str) -> str | None:
            if engine == "real":
                return None
            if engine not in urls:
                try:
                    urls[engine] = running.enter_context(engines.running(engine, tmp_path_factory.mktemp(engine)))
                except engines.NotInstalled as why:
                    pytest.skip(str(why))
            return urls[engine]

        yield url


@pytest.fixture(scope="session")
def subject(request: pytest.FixtureRequest) -> Subject:
    """Each implementation in turn; see `tests.contract.subjects.over`."""
    made: Subject = request.param
    return made


class Opened(NamedTuple):
    """An engine's clients, and the settings that led to it."""

    settings: Settings
    sqs: SQSClient
    dynamodb: DynamoDBClient

    def settings_of_a_test(self) -> Settings:
        """The settings, with a table name of a test's own."""
        return self.settings.model_copy(update={"table": f"dynein-contract-{uuid.uuid4().hex}"})


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def aws_clients(subject: Subject, endpoint_of: Callable[[str], str | None]) -> AsyncIterator[Opened | None]:
    """Clients that settings lead to, opened once for each subject: that takes longer than a test. None for the fake."""
    if subject.engine == "fake":
        yield None
        return
    settings = load_settings(
        {
            **CLIENTS[subject.client],
            "region": None if subject.engine == "real" else engines.REGION,
            "endpoint_url": endpoint_of(subject.engine),
            "bucket_width_s": WIDTH_MS // 1000,
            "shard_count": SHARDS,
            # A busy machine is no failure.
            "call_timeout_s": 20.0,
            "lease_ttl_s": 42.0,
            "member_ttl_s": 30.0,
            "visibility_timeout_s": 60,
        }
    )
    with pytest.MonkeyPatch.context() as environment:
        if subject.engine != "real":
            for name, value in engines.CREDENTIALS.items():
                environment.setenv(name, value)
        async with clients(settings) as opened:
            ours = type(opened.sqs).__module__.startswith("dynein.aws.wire")
            assert ours == (subject.client == "wire"), "no stand-in: a proxy in the environment makes it the SDK's"
            yield Opened(settings, opened.sqs, opened.dynamodb)


@pytest.fixture
def opened(aws_clients: Opened | None) -> Opened:
    """The same, for tests that have no fake."""
    assert aws_clients is not None
    return aws_clients


@pytest.fixture
def engine_settings(opened: Opened) -> Settings:
    """Settings that lead to the engine, with a table name of the test's own."""
    return opened.settings_of_a_test()


@pytest_asyncio.fixture(loop_scope="session")
async def dynamodb(opened: Opened, engine_settings: Settings) -> AsyncIterator[DynamoDBClient]:
    """A client of the engine; the test's table is deleted afterwards."""
    async with without_table_afterwards(opened.dynamodb, engine_settings.table):
        yield opened.dynamodb


@contextlib.asynccontextmanager
async def without_table_afterwards(client: DynamoDBClient, table: str) -> AsyncIterator[None]:
    """Deletes the table on leaving, if there is one."""
    yield
    with contextlib.suppress(client.exceptions.ResourceNotFoundException):
        await client.delete_table(TableName=table)


@pytest.fixture
def transactions(subject: Subject) -> None:
    """See `tests.contract.subjects.needs_transactions`."""
    if subject.engine in WITHOUT_TRANSACTIONS:
        pytest.skip(WITHOUT_TRANSACTIONS[subject.engine])


# --- what the tests are about ---------------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="session")
async def table(subject: Subject, aws_clients: Opened | None) -> AsyncIterator[EngineTable]:
    if aws_clients is None:
        yield _fake_table()
        return
    settings = aws_clients.settings_of_a_test()
    async with without_table_afterwards(aws_clients.dynamodb, settings.table):
        await bootstrap_table(table_of(aws_clients.dynamodb, settings), settings)
        yield dynamo_table(subject.engine, aws_clients.dynamodb, settings)


@pytest.fixture
def store(table: EngineTable) -> TriggerStore:
    return table.store


@pytest.fixture
def shards(table: EngineTable) -> ShardRecords:
    return table.shards


@pytest.fixture
def roster(table: EngineTable) -> Roster:
    return table.roster


@pytest.fixture
def ledger(table: EngineTable) -> LedgerStore:
    return table.ledger


def table_of(client: DynamoDBClient, settings: Settings) -> DynamoTable:
    """The table that the settings name."""
    return DynamoTable(client, settings.table, command_context())


def dynamo_table(engine: str, client: DynamoDBClient, settings: Settings) -> EngineTable:
    """The adapters on a bootstrapped table."""
    table, name = table_of(client, settings), settings.table
    store = DynamoTriggerStore(table, WIDTH_MS)

    async def spoil(key: TriggerKey) -> None:
        pk = partition_key(bucket_of(key.due_at_ms, WIDTH_MS), key.shard)
        item: Any = {"pk": {"S": pk}, "sk": {"B": sort_key(key, Kind.TRIGGER)}, "job": {"S": "no token"}}
        await client.put_item(TableName=name, Item=item)

    async def entomb(key: TriggerKey) -> None:
        if engine in WITHOUT_TRANSACTIONS:
            tombstone: Any = tombstone_item(Tombstone(key, None), table.clock.now_ms(), WIDTH_MS)
            await client.put_item(TableName=name, Item=tombstone)
        else:
            assert await store.cancel(key) is Cancelled.CANCELLED

    async def grow(shard_count: int) -> None:
        await bootstrap_table(table, settings.model_copy(update={"shard_count": shard_count}))

    return EngineTable(
        engine,
        store,
        DynamoShardRecords(table),
        DynamoRoster(table),
        DynamoLedger(table, LEDGER_WINDOW_MS),
        spoil,
        entomb,
        grow,
    )


def _fake_table() -> EngineTable:
    fake = FakeTriggerTable(ManualClock(), bucket_width_ms=WIDTH_MS, shard_count=SHARDS)

    async def spoil(key: TriggerKey) -> None:
        fake.spoil(key)

    async def entomb(key: TriggerKey) -> None:
        assert await fake.cancel(key) is Cancelled.CANCELLED

    async def grow(shard_count: int) -> None:
        fake.raise_shard_count(shard_count)

    return EngineTable("fake", fake, fake, fake, FakeLedger(), spoil, entomb, grow)
