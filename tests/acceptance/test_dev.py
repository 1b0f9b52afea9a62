"""``dynein dev`` as a newcomer meets it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

import aiohttp
import pytest
import pytest_asyncio

from dynein.cli.engine import CREDENTIALS
from tests.acceptance.fleet import HANG_S, Result, free_port, now_ms, until
from tests.acceptance.test_bootstrap import refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")

ARRIVAL = re.compile(r"^(?P<at>[\d:.]{12})  (?P<queue>\S+) +\+(?P<late_ms>\d+) ms  (?P<name>.{22}) (?P<body>.*)$")


class Dev:
    """One ``dynein dev`` with a terminal's view of it: a line at a time."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, engine_port: int, data: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.engine_port = engine_port
        self.data = data
        self.lines: list[str] = []

    async def line(self, wanted: Callable[[str], object]) -> str:
        """The next line that is wanted."""
        assert self.process.stdout is not None
        async with asyncio.timeout(HANG_S):
            while raw := await self.process.stdout.readline():
                self.lines.append(raw.decode().rstrip("\n"))
                if wanted(self.lines[-1]):
                    return self.lines[-1]
        raise AssertionError(f"it ended before that line: {self.lines}")

    async def rest(self) -> list[str]:
        """All that is still to come, until it ends."""
        assert self.process.stdout is not None
        self.lines += (await self.process.stdout.read()).decode().splitlines()
        return self.lines

    async def stop(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        lines = await self.rest()
        assert await self.process.wait() == 0, lines
        assert lines[-1] == "stopped"
        # `drain_s` is short, so that Ctrl-C is: a busy machine may use it up, and then jobs are given back.
        assert [line for line in lines if "WARNING" in line and " inbound.given_back: " not in line] == []

    async def submit(self, **job: object) -> dict[str, object]:
        """POST a job."""
        async with aiohttp.ClientSession() as http, http.post(f"{self.url}/v1/jobs", json=job) as answer:
            assert answer.status == 202, await answer.text()
            accepted: dict[str, object] = await answer.json()
            return accepted

    def engines(self) -> list[int]:
        """Processes that have this one's engine directory on their command line."""
        found = subprocess.run(["ps", "-eww", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
        return [int(line.split()[0]) for line in found.splitlines() if "roto-server" in line and str(self.data) in line]


@contextlib.asynccontextmanager
async def dev(
    data: Path, *options: str, cwd: Path | None = None, variables: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[Dev]:
    port, engine_port = free_port(), free_port()
    arguments = ["--port", str(port), "--engine-port", str(engine_port), "--engine", "roto", "--data", str(data)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dynein", "dev", *arguments, *options,
        env=environment() | dict(variables), cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield Dev(process, port, engine_port, data)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("DYNEIN_", "AWS_"))}


def is_ready(line: str) -> bool:
    return line.startswith("ready  API http")


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def sample_run(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Dev]:
    """Begun before all tests: its sample jobs arrive while others wait for something else."""
    async with dev(tmp_path_factory.mktemp("sample"), "--exit-after-sample") as run:
        yield run


async def test_ctrl_c_stops_it_at_once_even_while_samples_are_on_their_way(tmp_path: Path) -> None:
    async with dev(tmp_path) as run:
        await run.line(lambda line: "due  sample IMMEDIATE" in line)
        assert len(run.engines()) == 1
        await run.stop()
        assert not any("error" in line or "Traceback" in line for line in run.lines), run.lines
        assert run.engines() == []


@pytest.mark.parametrize("host", ["::1", "localhost", "0.0.0.0", "::", "[::1]"])
async def test_it_listens_wherever_it_is_asked_to(host: str, tmp_path: Path) -> None:
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:1")
    async with dev(tmp_path, "--host", host, "--no-sample", "--no-consumer", variables=proxies) as run:
        ready = await run.line(is_ready)
        run.url = ready.split()[2]
        assert urlsplit(run.url).hostname == ("::1" if ":" in host else "127.0.0.1")
        await run.submit(queue="demo", body="x")
        await run.stop()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--host", "no-such-host.invalid"], "--host (or DYNEIN_HOST) 'no-such-host.invalid' is no address"),
        (["--host", "192.0.2.1"], "on 192.0.2.1 cannot be listened on"),
        (["--data", "/dev/null/x"], "the data directory /dev/null/x cannot be made (Not a directory)"),
    ],
)
async def test_what_it_cannot_use_is_named(options: list[str], sentence: str, tmp_path: Path) -> None:
    async with dev(tmp_path, *options) as run:
        lines = await run.rest()
        assert await run.process.wait() == 1
        assert len(lines) == 1
        assert sentence in lines[0]


async def command(cwd: Path, *arguments: str, **variables: str) -> Result:
    """Another terminal's, in that directory."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dynein", *arguments),
        env=environment() | {"AWS_CONFIG_FILE": "/nowhere"} | variables,
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return Result(process.returncode or 0, out.decode(), err.decode())


async def test_commands_of_a_second_terminal_find_it(tmp_path: Path) -> None:
    async with dev(Path(".dynein"), "--no-sample", "--no-consumer", cwd=tmp_path) as run:
        await run.line(is_ready)
        note = f"using the `dynein dev` that runs in this directory, at http://127.0.0.1:{run.engine_port}\n"
        named = {"DYNEIN_REGION": "eu-west-3", "DYNEIN_ENDPOINT_URL": "http://127.0.0.1:1", **CREDENTIALS}
        submitted, audited, read, redriven, elsewhere, other = await asyncio.gather(
            command(tmp_path, "submit", "demo", "x", "--delay", "1h"),
            command(tmp_path, "audit"),
            command(tmp_path, "ledger"),
            command(tmp_path, "redrive"),
            command(tmp_path.parent, "audit"),
            command(tmp_path, "audit", **named),
        )
        assert submitted.code == 0, submitted.err
        for result in (audited, read, redriven):
            assert (result.code, result.err) == (0, note), result
        assert "no AWS region" in refusal(elsewhere)
        assert "http://127.0.0.1:1 (from DYNEIN_ENDPOINT_URL) cannot be reached" in refusal(other), "named: it wins"
        run.process.kill()
        await run.process.wait()
        stale = await command(tmp_path, "audit")
        assert stale.err.startswith("no `dynein dev` runs in this directory; .dynein/running.json was left by one")
        assert "error: no AWS region" in stale.err
    async with dev(Path(".dynein"), "--no-sample", "--no-consumer", cwd=tmp_path) as run:
        await run.line(is_ready)
        await run.stop()
        assert not (tmp_path / ".dynein" / "running.json").exists()


async def test_a_job_outlives_a_restart(tmp_path: Path) -> None:
    # Due when the first run has ended; a machine that has much else to do gets more time for that.
    for delay in (9, 40, 160):
        async with dev(tmp_path, "--no-sample", "--queue", "mine") as run:
            await run.line(is_ready)
            accepted = await run.submit(queue="mine", body="kept", name="kept", policy="SCHEDULED", delay=delay)
            await run.stop()
            if now_ms() < int(str(accepted["due_at_ms"])):
                break
    assert not any("kept" in line for line in run.lines)
    async with dev(tmp_path, "--no-sample", "--queue", "mine") as run:
        shown = ARRIVAL.match(await run.line(ARRIVAL.match))
        assert shown is not None
        assert (shown["queue"], shown["name"].strip(), shown["body"]) == ("mine", "kept", "kept")
        assert [line.split()[0] for line in run.lines[1:5]] == ["verified"] * 4
        async with aiohttp.ClientSession() as http, http.get(f"{run.url}/v1/jobs/{accepted['token']}") as answer:
            assert answer.status == 200, "tokens stay valid"
            assert (await answer.json())["state"] == "released"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a child to its parent's death")
async def test_killed_it_leaves_no_engine_behind_and_its_data_can_be_used(tmp_path: Path) -> None:
    async with dev(tmp_path, "--no-sample", "--no-consumer") as run:
        await run.line(is_ready)
        accepted = await run.submit(queue="demo", body="kept", policy="SCHEDULED", delay="1h")

        async def stored() -> bool:
            async with aiohttp.ClientSession() as http, http.get(f"{run.url}/v1/jobs/{accepted['token']}") as answer:
                return bool((await answer.json())["state"] == "scheduled")

        await until(stored, "the job is stored")
        assert len(run.engines()) == 1
        run.process.kill()
        await run.process.wait()

        async def gone() -> bool:
            return run.engines() == []

        await until(gone, "the engine has ended too")
    async with dev(tmp_path, "--no-sample", "--no-consumer") as run:
        await run.line(is_ready)
        async with aiohttp.ClientSession() as http, http.delete(f"{run.url}/v1/jobs/{accepted['token']}") as answer:
            assert (await answer.json())["state"] == "cancelled"


async def test_a_port_in_use_is_told_and_nothing_is_left_running(tmp_path: Path) -> None:
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    try:
        for option, fix in (("--port", "--port or DYNEIN_PORT"), ("--engine-port", "--engine-port")):
            async with dev(tmp_path, option, str(port)) as run:
                lines = await run.rest()
                code = await run.process.wait()
                refused = Result(code, "", "".join(f"{line}\n" for line in lines))
                assert refusal(refused) == f"port {port} on 127.0.0.1 is in use; choose another with {fix}"
                assert run.engines() == []
    finally:
        taken.close()
        await taken.wait_closed()


async def test_it_shows_a_sample_of_each_policy_arriving_and_exits(sample_run: Dev) -> None:
    run = sample_run
    async with asyncio.timeout(HANG_S):
        lines = await run.rest()
        assert await run.process.wait() == 0, lines
        arrivals = [found for found in map(ARRIVAL.match, lines) if found is not None]
        assert sorted(found["name"].strip() for found in arrivals) == [
            "sample AUTO",
            "sample IMMEDIATE",
            "sample SCHEDULED",
            "sample SCHEDULED",
            "sample SQS_DELAYED",
        ]
        for found in arrivals:
            assert found["queue"] == "demo"
            assert json.loads(found["body"]) == {"hello": found["name"].strip()}
        assert not any("\x1b" in line or "Traceback" in line for line in lines)
        assert any(line.startswith(f"  curl -s {run.url}/v1/jobs -d ") for line in lines), "what to paste next"
        assert lines[-1] == "stopped"
        assert run.engines() == []
