"""The embedded engine, as real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dynein.aws.clients import sqs_client
from dynein.aws.sqs import SqsQueues
from dynein.cli import engine as engine_module
from dynein.cli.engine import EmbeddedEngine
from dynein.core.queues import OutgoingMessage
from dynein.errors import FatalError
from dynein.observability.telemetry import Telemetry
from dynein.runtime.clock import SystemClock
from dynein.settings import Settings, load_settings
from tests.acceptance.fleet import HANG_S

ENGINES = ["roto", "moto"]


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


def settings(engine: EmbeddedEngine) -> Settings:
    return load_settings({"region": "us-east-1", "endpoint_url": engine.endpoint_url})


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("name", ENGINES)
async def test_it_answers_while_it_is_open_and_is_gone_afterwards(name: str, tmp_path: Path) -> None:
    async with EmbeddedEngine(engine=name, data_dir=tmp_path) as engine:
        assert engine.name == name
        assert engine.port != 0
        assert f":{engine.port}" in engine.description
        assert ("nothing is kept" in engine.description) == (name == "moto")
        async with sqs_client(settings(engine)) as client:
            url = (await client.create_queue(QueueName="a"))["QueueUrl"]
            assert (await SqsQueues(client, Telemetry()).resolve("a")).url == url
    assert port_is_free(engine.port)


@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "killed"])
async def test_roto_keeps_everything_over_a_restart(tmp_path: Path, *, crash: bool) -> None:
    async with EmbeddedEngine(engine="roto", data_dir=tmp_path) as engine, sqs_client(settings(engine)) as client:
        url = (await client.create_queue(QueueName="a"))["QueueUrl"]
        await SqsQueues(client, Telemetry()).send(url, [OutgoingMessage("kept", {})])
        if crash:
            engine.kill()
    again = EmbeddedEngine(engine="roto", data_dir=tmp_path, port=engine.port)
    async with again, sqs_client(settings(again)) as client:
        queues = SqsQueues(client, Telemetry())
        destination = await queues.resolve("a")
        (message,) = await queues.receive(destination.url, entries_max=1, wait_s=5, visibility_timeout_s=30)
        assert message.body == "kept"


@pytest.mark.parametrize("name", ENGINES)
async def test_a_taken_port_is_reported_plainly(name: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            FatalError, match=rf"^port {port} on 127\.0\.0\.1 is in use; choose another with --engine-port$"
        ):
            await EmbeddedEngine(engine=name, data_dir=tmp_path, port=port).__aenter__()


async def test_a_data_directory_in_use_is_reported_plainly(tmp_path: Path) -> None:
    async with EmbeddedEngine(engine="roto", data_dir=tmp_path):
        with pytest.raises(FatalError, match="is in use by another engine"):
            await EmbeddedEngine(engine="roto", data_dir=tmp_path).__aenter__()
    async with EmbeddedEngine(engine="roto", data_dir=tmp_path):
        pass


async def test_an_unknown_engine_is_reported_plainly(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match="choose roto, moto or auto"):
        await EmbeddedEngine(engine="sqs", data_dir=tmp_path).__aenter__()


async def test_an_engine_that_does_not_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "roto").write_text("a file where the engine wants its directory")
    with pytest.raises(FatalError, match=r"(?s)roto ended at once \(exit status .*engine\.log:"):
        await EmbeddedEngine(engine="roto", data_dir=tmp_path).__aenter__()


_OWNER = """
import asyncio, os, signal, sys
from pathlib import Path
from dynein.cli.engine import EmbeddedEngine

async def main():
    async with EmbeddedEngine(engine="roto", data_dir=Path(sys.argv[1])) as engine:
        print(engine.port, os.getpgid(engine._child.pid), flush=True)
        await asyncio.Event().wait()

# A shell that starts a job in the background has it ignore SIGINT, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def start_owner(data_dir: Path) -> tuple[subprocess.Popen[str], int, int]:
    """The process, the engine's port and the engine's process group."""
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(data_dir)], stdout=subprocess.PIPE, text=True, process_group=0
    )
    assert owner.stdout is not None
    port, group = owner.stdout.readline().split()
    return owner, int(port), int(group)


async def until_free(port: int) -> None:
    clock = SystemClock()
    async with asyncio.timeout(HANG_S):
        while not port_is_free(port):
            await clock.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a child to its parent's death")
async def test_the_engine_does_not_outlive_an_owner_that_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "TAKEOVER_TIMEOUT_S", HANG_S)
    owner, port, _ = start_owner(tmp_path)
    try:
        owner.kill()
        owner.wait()
        # A new owner takes over at once, waiting for the old engine to leave.
        async with EmbeddedEngine(engine="roto", data_dir=tmp_path):
            await until_free(port)
    finally:
        assert owner.stdout is not None
        owner.stdout.close()


async def test_ctrl_c_at_the_terminal_reaches_the_owner_and_not_the_engine(tmp_path: Path) -> None:
    """A terminal signals its foreground process group, and the owner ends the engine when it has drained."""
    owner, port, group = start_owner(tmp_path)
    assert owner.stdout is not None
    try:
        assert group not in {owner.pid, os.getpgid(0)}
        os.killpg(owner.pid, signal.SIGINT)
        assert owner.stdout.readline() == "interrupted\n"
        owner.wait()
        await until_free(port)
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
