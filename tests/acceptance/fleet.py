"""A fleet of real ``dynein serve`` processes on a real engine, for the acceptance tests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from dynein.cli.engine import EmbeddedEngine

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient
    from types_aiobotocore_sqs import SQSClient

REGION = "us-east-1"
START_PATIENCE_S = 90.0
SECRET = "acceptance-test-secret-of-enough-bytes"
QUICK = {
    "DYNEIN_CALL_TIMEOUT_S": "2",
    "DYNEIN_TICK_S": "0.5",
    "DYNEIN_READ_AHEAD_S": "1.5",
    "DYNEIN_HOLD_WINDOW_S": "3.5",
    "DYNEIN_LEASE_TTL_S": "4",
    "DYNEIN_RETIRE_GRACE_S": "16",
    "DYNEIN_MEMBER_TTL_S": "3",
    "DYNEIN_RECEIVE_WAIT_S": "1",
    "DYNEIN_VISIBILITY_TIMEOUT_S": "6",
}
"""Everything happens sooner than by default, so that tests need not wait for it."""

ResultT = TypeVar("ResultT")


def now_ms() -> int:
    """Wall clock, as an independent observer has it."""
    return time.time_ns() // 1_000_000  # noqa: TID251 - tests watch real processes from outside


def monotonic() -> float:
    """Seconds, for how long something took."""
    return time.monotonic()  # noqa: TID251 - tests watch real processes from outside


async def pause(seconds: float) -> None:
    """Sleep: between two looks at a real process, or while a load runs."""
    await asyncio.sleep(seconds)  # noqa: TID251 - tests watch real processes from outside


async def until(look: Callable[[], Awaitable[ResultT]], what: str, within_s: float) -> ResultT:
    """The first result of ``look`` that is true; fails, saying ``what``, when there is none in time."""
    deadline = monotonic() + within_s
    while True:
        found = await look()
        if found:
            return found
        assert monotonic() < deadline, f"not within {within_s} s: {what} (last: {found!r})"
        await pause(0.05)


def free_port() -> int:
    """A port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Result(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


class Process:
    """One ``dynein serve``."""

    def __init__(self, roles: list[str], process: asyncio.subprocess.Process, port: int, log: Path) -> None:
        self.roles = roles
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = log

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def wait(self) -> int:
        return await self.process.wait()

    async def terminate(self, within_s: float) -> int:
        """SIGTERM; the exit code. Fails if it takes longer than that."""
        self.signal(signal.SIGTERM)
        async with asyncio.timeout(within_s):
            return await self.wait()

    async def ready(self, http: aiohttp.ClientSession) -> None:
        """Return once ``/readyz`` says yes; raise with the process's log if it ends first."""
        async with asyncio.timeout(START_PATIENCE_S):
            while True:
                if self.process.returncode is not None:
                    raise AssertionError(f"{self.roles} ended: {self.log.read_text()}")
                with contextlib.suppress(aiohttp.ClientError):
                    async with http.get(f"{self.url}/readyz") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.05)  # noqa: TID251 - polling a real process from outside


class Fleet:
    """An engine with queues and table, and whatever processes a test starts on it."""

    def __init__(self, directory: Path, engine: EmbeddedEngine, http: aiohttp.ClientSession) -> None:
        self.directory = directory
        self.engine = engine
        self.endpoint = endpoint = engine.endpoint_url
        self.http = http
        self.processes: list[Process] = []
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DYNEIN_")},
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": REGION,
            "DYNEIN_REGION": REGION,
            "DYNEIN_ENDPOINT_URL": endpoint,
            "DYNEIN_TOKEN_SECRETS": SECRET,
            "DYNEIN_SHARD_COUNT": "8",
        }

    async def run(self, *arguments: str, given: str = "", within_s: float = 60.0, **settings: str) -> Result:
        """Run the command line as a user does, in pipes. An empty setting is left out of the environment."""
        environment = {name: value for name, value in {**self.environment, **settings}.items() if value}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dynein", *arguments,
            env=environment, stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(within_s):
                out, err = await process.communicate(given.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return Result(process.returncode, out.decode(), err.decode())

    async def command(self, *arguments: str, given: str = "", within_s: float = 60.0, **settings: str) -> str:
        """Run the command line; its standard output. Fails if it does."""
        result = await self.run(*arguments, given=given, within_s=within_s, **settings)
        if result.code != 0:
            raise AssertionError(f"dynein {' '.join(arguments)} exited {result.code}: {result.out!r} {result.err!r}")
        return result.out

    @contextlib.asynccontextmanager
    async def command_line(self, *arguments: str, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A command that runs until it is told to stop; killed on leaving, if it still does."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dynein", *arguments,
            env={**self.environment, **settings}, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def start(self, *roles: str, **settings: str) -> Process:
        """Start a process with these roles; returns once it is ready."""
        port = free_port()
        log = self.directory / f"{'-'.join(roles)}-{port}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "dynein", "serve", *(part for role in roles for part in ("--role", role)),
                env={**self.environment, "DYNEIN_PORT": str(port), **settings},
                stdout=output, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
        started = Process(list(roles), process, port, log)
        self.processes.append(started)
        await started.ready(self.http)
        return started

    async def stop_engine(self, *, kill: bool = False) -> None:
        """Stop the engine, or end it as a crash would; `start_engine` brings it back where it was."""
        if kill:
            self.engine.kill()
        await self.engine.__aexit__(None, None, None)

    async def start_engine(self) -> None:
        """Start it again: same data, same port."""
        await self.engine.__aenter__()

    def endpoint_of(self, service: str) -> str:
        """Where the processes find SQS or DynamoDB."""
        return self.environment.get(f"DYNEIN_{service.upper()}_ENDPOINT_URL", self.endpoint)

    def sqs(self, config: AioConfig | None = None) -> AbstractAsyncContextManager[SQSClient]:
        """A plain SQS client on the engine: what a consumer would use."""
        return get_session().create_client(
            "sqs",
            region_name=REGION, endpoint_url=self.endpoint_of("sqs"), config=config,
            aws_access_key_id="test", aws_secret_access_key="test",
        )  # fmt: skip

    def dynamodb(self, config: AioConfig | None = None) -> AbstractAsyncContextManager[DynamoDBClient]:
        """A plain DynamoDB client on the engine: what an operator would use."""
        return get_session().create_client(
            "dynamodb",
            region_name=REGION, endpoint_url=self.endpoint_of("dynamodb"), config=config,
            aws_access_key_id="test", aws_secret_access_key="test",
        )  # fmt: skip

    async def metric(self, process: Process, name: str) -> float:
        """The sum over all labels of one metric of a process."""
        async with self.http.get(f"{process.url}/metrics") as answer:
            text = await answer.text()
        values = re.findall(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+-]+)$", text, re.MULTILINE)
        return sum(map(float, values))

    async def stop(self) -> None:
        for process in self.processes:
            if process.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.signal(signal.SIGKILL)
                await process.wait()


@contextlib.asynccontextmanager
async def fleet(
    directory: Path, *, bootstrapped: bool = True, elsewhere: Mapping[str, str] | None = None
) -> AsyncIterator[Fleet]:
    """A fleet without processes, on the embedded engine.

    ``elsewhere``: the URLs of other engines, by service (``sqs``, ``dynamodb``). The embedded one is then not started;
    its address stays in the settings, so that whoever asks there in place of the service's own URL fails.
    """
    embedded = EmbeddedEngine(engine="roto", host="127.0.0.1", port=free_port(), data_dir=directory / "engine")
    async with (
        embedded if elsewhere is None else contextlib.nullcontext(embedded) as engine,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        made = Fleet(directory, engine, http)
        for service, url in (elsewhere or {}).items():
            made.environment[f"DYNEIN_{service.upper()}_ENDPOINT_URL"] = url
        if bootstrapped:
            await made.command("bootstrap")
        try:
            yield made
        finally:
            await made.stop()
