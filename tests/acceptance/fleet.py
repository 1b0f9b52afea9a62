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
HANG_S = 240.0
"""Only what hangs takes so long, however busy the machine is.

Nothing here is timed: what a test waits for either comes or never does. Bounds on time are tested where the clock is
injected (``tests/unit``, ``tests/simulation``), speed is measured by ``benchmarks/``.
"""
SECRET = "acceptance-test-secret-of-enough-bytes"
QUICK = {
    "DYNEIN_CALL_TIMEOUT_S": "20",
    "DYNEIN_TICK_S": "0.5",
    "DYNEIN_READ_AHEAD_S": "1.5",
    "DYNEIN_HOLD_WINDOW_S": "3.5",
    "DYNEIN_LEASE_TTL_S": "600",
    "DYNEIN_RETIRE_GRACE_S": "2400",
    "DYNEIN_MEMBER_TTL_S": "30",
    "DYNEIN_RECEIVE_WAIT_S": "1",
    "DYNEIN_VISIBILITY_TIMEOUT_S": "600",
    "DYNEIN_DRAIN_S": "120",
}
"""Jobs pass sooner than by default, so that tests need not wait for them, and nothing expires.

Leases and visibility timeouts outlast `HANG_S`: a process that gets no processor for a while loses nothing by it, and
whatever was not handed over, but had to be waited out, is never seen.
"""
EXPIRING = {
    **QUICK,
    "DYNEIN_CALL_TIMEOUT_S": "5",
    "DYNEIN_LEASE_TTL_S": "10",
    "DYNEIN_MEMBER_TTL_S": "7",
    "DYNEIN_CLOCK_SKEW_MAX_S": "20",
    "DYNEIN_RETIRE_GRACE_S": "40",
    "DYNEIN_VISIBILITY_TIMEOUT_S": "10",
}
"""For tests in which a process is killed or frozen: soon enough, others may have what it had. On a machine so busy that
a healthy process does not renew in time, it loses a lease too, and logs ``lease.lost`` (or ``inbound.lost``)."""

ResultT = TypeVar("ResultT")


def now_ms() -> int:
    """Wall clock, as an independent observer has it."""
    return time.time_ns() // 1_000_000  # noqa: TID251 - tests watch real processes from outside


def monotonic() -> float:
    """Seconds, for how long something took."""
    return time.monotonic()  # noqa: TID251 - tests watch real processes from outside


async def pause(seconds: float) -> None:
    """Sleep: between two polls of a real process, or while a load runs."""
    await asyncio.sleep(seconds)  # noqa: TID251 - tests watch real processes from outside


async def until(poll: Callable[[], Awaitable[ResultT]], what: str) -> ResultT:
    """The first result of ``poll`` that is true; fails, saying ``what``, when there is none for `HANG_S`."""
    deadline = monotonic() + HANG_S
    while True:
        found = await poll()
        if found:
            return found
        assert monotonic() < deadline, f"not within {HANG_S} s: {what} (last: {found!r})"
        await pause(0.05)


async def until_holds(check: Callable[[], Awaitable[None]]) -> None:
    """Return once ``check`` passes; after `HANG_S`, fail as it fails then."""
    deadline = monotonic() + HANG_S
    while True:
        try:
            return await check()
        except AssertionError:
            if monotonic() > deadline:
                raise
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

    def __init__(
        self, roles: list[str], process: asyncio.subprocess.Process, port: int, log: Path, *, ops_port: int | None
    ) -> None:
        self.roles = roles
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.ops_url = f"http://127.0.0.1:{ops_port or port}"
        self.log = log

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def wait(self) -> int:
        return await self.process.wait()

    async def terminate(self) -> int:
        """SIGTERM; the exit code. Fails if it hangs."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        """Its exit code, once it has ended. Fails if it hangs."""
        async with asyncio.timeout(HANG_S):
            return await self.wait()

    async def ready(self, http: aiohttp.ClientSession) -> None:
        """Return once ``/readyz`` responds with 200; raise with the process's log if it ends first."""

        async def is_ready() -> bool:
            if self.process.returncode is not None:
                raise AssertionError(f"{self.roles} ended: {self.log.read_text()}")
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(f"{self.ops_url}/readyz") as answer:
                    return answer.status == 200
            return False

        await until(is_ready, f"{self.roles} are ready")

    def logged(self, event: str) -> list[str]:
        """The lines of one event in its log, which is in the format for people."""
        return [line for line in self.log.read_text().splitlines() if f" {event}: " in line]


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

    async def run(self, *arguments: str, given: str = "", **settings: str) -> Result:
        """Run the command line as a user does, in pipes. An empty setting is left out of the environment."""
        environment = {name: value for name, value in {**self.environment, **settings}.items() if value}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dynein", *arguments,
            env=environment, stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(HANG_S):
                out, err = await process.communicate(given.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return Result(process.returncode, out.decode(), err.decode())

    async def command(self, *arguments: str, given: str = "", **settings: str) -> str:
        """Run the command line; its standard output. Fails if it does."""
        result = await self.run(*arguments, given=given, **settings)
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
        ops_port = int(settings["DYNEIN_OPS_PORT"]) if "DYNEIN_OPS_PORT" in settings else None
        started = Process(list(roles), process, port, log, ops_port=ops_port)
        self.processes.append(started)
        await started.ready(self.http)
        return started

    @property
    def engine_pid(self) -> int | None:
        """The engine's process, while it runs."""
        child = self.engine._child
        return None if child is None else child.pid

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
        async with self.http.get(f"{process.ops_url}/metrics") as answer:
            text = await answer.text()
        values = re.findall(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+-]+)$", text, re.MULTILINE)
        return sum(map(float, values))

    async def stored_tokens(self) -> set[str]:
        """Of the jobs that are in the trigger store now."""
        async with self.dynamodb() as dynamodb:
            pages = dynamodb.get_paginator("scan").paginate(TableName="dynein", ConsistentRead=True)
            return {item["tk"]["S"] async for page in pages for item in page["Items"] if "tk" in item}

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
