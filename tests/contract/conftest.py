"""Engines for the contract suite: every test runs over every implementation of the protocol it is about.

======== ==============================================================================================================
engine   what it is
======== ==============================================================================================================
fake     `dynein.testing`, in memory
roto     roto-aws, a child process on a temporary directory: the embedded engine of ``dynein dev``
moto     moto's server, in a thread of this process
real     the AWS account of the environment's credentials, only when ``CONTRACT_REAL_AWS=1``: makes and deletes tables
======== ==============================================================================================================
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from aiobotocore.session import AioSession, get_session
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from dynein.aws import dynamodb_client
from dynein.clock import SystemClock
from dynein.dynamodb_shards import DynamoRoster, DynamoShardRecords
from dynein.dynamodb_store import DynamoTriggerStore
from dynein.dynamodb_table import bootstrap_table
from dynein.partition import Kind, TriggerKey, bucket_of, partition_key, sort_key
from dynein.settings import Settings, load_settings
from dynein.telemetry import Telemetry
from dynein.testing import FakeTriggerTable, ManualClock
from dynein.trigger_store import Roster, ShardRecords, TriggerStore
from tests.contract.samples import SHARDS, WIDTH_MS

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient

ENGINES = ("fake", "roto", "moto", *(("real",) if os.environ.get("CONTRACT_REAL_AWS") == "1" else ()))
_START_PATIENCE_S = 30.0


class EngineEndpoint(NamedTuple):
    """Where an engine listens. ``url`` is ``None`` for the fake (nowhere) and for AWS (where the SDK says)."""

    engine: str
    url: str | None


class EngineTable(NamedTuple):
    """A fresh table with `SHARDS` shards, by its three protocols, and what tests do to it behind their back."""

    engine: str
    store: TriggerStore
    shards: ShardRecords
    roster: Roster
    spoil: Callable[[TriggerKey], Awaitable[None]]
    """Put a record at a trigger's place that is not one."""
    grow: Callable[[int], Awaitable[None]]
    """Raise the shard count."""


@pytest.fixture(scope="session", params=ENGINES)
def engine_endpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineEndpoint]:
    """Each engine in turn, running."""
    engine: str = request.param
    with contextlib.ExitStack() as running:
        url: str | None = None
        if engine in {"roto", "moto"}:
            running.enter_context(_credentials())
            url = running.enter_context(_roto(tmp_path_factory.mktemp("roto")) if engine == "roto" else _moto())
        yield EngineEndpoint(engine, url)


@pytest.fixture
def engine_settings(engine_endpoint: EngineEndpoint) -> Settings:
    """Settings that lead to the engine, with a table name of the test's own."""
    return load_settings(
        {
            "region": None if engine_endpoint.engine == "real" else "us-east-1",
            "endpoint_url": engine_endpoint.url,
            "table": f"dynein-contract-{uuid.uuid4().hex}",
            "bucket_width_s": WIDTH_MS // 1000,
            "shard_count": SHARDS,
            # A busy machine is no failure.
            "call_timeout_s": 20.0,
            "lease_ttl_s": 30.0,
            "visibility_timeout_s": 60,
        }
    )


@pytest.fixture(scope="session")
def sdk_session(engine_endpoint: EngineEndpoint) -> AioSession:  # noqa: ARG001 - a session keeps its first credentials
    """One SDK session for each engine: it reads the service models from disk once."""
    return get_session()


@pytest.fixture
async def dynamodb(engine_settings: Settings, sdk_session: AioSession) -> AsyncIterator[DynamoDBClient]:
    """A client of the engine; the test's table is deleted afterwards."""
    async with dynamodb_client(engine_settings, sdk_session) as client:
        yield client
        with contextlib.suppress(client.exceptions.ResourceNotFoundException):
            await client.delete_table(TableName=engine_settings.table)


@pytest.fixture
async def table(
    engine_endpoint: EngineEndpoint, engine_settings: Settings, sdk_session: AioSession
) -> AsyncIterator[EngineTable]:
    if engine_endpoint.engine == "fake":
        yield _fake_table()
        return
    async with dynamodb_client(engine_settings, sdk_session) as client:
        await bootstrap_table(client, engine_settings, SystemClock())
        yield dynamo_table(engine_endpoint.engine, client, engine_settings)
        await client.delete_table(TableName=engine_settings.table)


@pytest.fixture
def store(table: EngineTable) -> TriggerStore:
    return table.store


@pytest.fixture
def shards(table: EngineTable) -> ShardRecords:
    return table.shards


@pytest.fixture
def roster(table: EngineTable) -> Roster:
    return table.roster


def dynamo_table(engine: str, client: DynamoDBClient, settings: Settings) -> EngineTable:
    """The adapters on a bootstrapped table."""
    clock, telemetry, name = SystemClock(), Telemetry(), settings.table

    async def spoil(key: TriggerKey) -> None:
        pk = partition_key(bucket_of(key.due_at_ms, WIDTH_MS), key.shard)
        item: Any = {"pk": {"S": pk}, "sk": {"B": sort_key(key, Kind.TRIGGER)}, "job": {"S": "no token"}}
        await client.put_item(TableName=name, Item=item)

    async def grow(shard_count: int) -> None:
        await bootstrap_table(client, settings.model_copy(update={"shard_count": shard_count}), clock)

    return EngineTable(
        engine,
        DynamoTriggerStore(client, name, clock, telemetry, WIDTH_MS),
        DynamoShardRecords(client, name, clock, telemetry),
        DynamoRoster(client, name, clock, telemetry),
        spoil,
        grow,
    )


def _fake_table() -> EngineTable:
    fake = FakeTriggerTable(ManualClock(), bucket_width_ms=WIDTH_MS, shard_count=SHARDS)

    async def spoil(key: TriggerKey) -> None:
        fake.spoil(key)

    async def grow(shard_count: int) -> None:
        fake.raise_shard_count(shard_count)

    return EngineTable("fake", fake, fake, fake, spoil, grow)


@contextlib.contextmanager
def _credentials() -> Iterator[None]:
    """Engines take any credentials; the SDK insists on some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        yield


@contextlib.contextmanager
def _moto() -> Iterator[str]:
    app = DomainDispatcherApplication(create_backend_app)
    lock = threading.Lock()

    def one_table_call_at_a_time(environ: Any, start_response: Any) -> Any:
        # moto deviates: it checks a condition and then writes, without a lock, so of two calls at a time both may win.
        # SQS calls stay concurrent, or a long poll would block them all.
        locked = environ.get("HTTP_X_AMZ_TARGET", "").startswith("DynamoDB")
        with lock if locked else contextlib.nullcontext():
            return app(environ, start_response)

    server = make_server("127.0.0.1", 0, one_table_call_at_a_time, threaded=True)
    thread = threading.Thread(target=server.serve_forever, name="moto")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def _roto(directory: Path) -> Iterator[str]:
    # Beside the interpreter first: a virtual environment need not be activated.
    program = shutil.which("roto-server", path=str(Path(sys.executable).parent)) or shutil.which("roto-server")
    if program is None:
        pytest.skip("roto-aws has no wheel for this platform")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "--port", str(port), "--data-dir", str(directory / "data")], stdout=log, stderr=log
        )
    try:
        _wait_for_port(port, process, directory / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + _START_PATIENCE_S  # noqa: TID251 - a real process
    while process.poll() is None and time.monotonic() < give_up_at:  # noqa: TID251 - a real process
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)  # noqa: TID251 - polling a real process from outside
    process.kill()
    process.wait()
    raise AssertionError(f"roto-server does not listen on {port}: {log.read_text()}")
