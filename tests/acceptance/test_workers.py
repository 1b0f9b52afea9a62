"""``dynein serve --workers``: real processes that share a port, report as one, and end as one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.acceptance.fleet import EXPIRING, QUICK, Fleet, Process, fleet, until
from tests.acceptance.load import Load

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALL_ROLES = ("api", "ingester", "dispatcher")
SHARDS = 8


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path_factory.mktemp("workers")) as made:
        made.environment |= QUICK
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(running: Fleet) -> Process:
    """Two workers, all roles; the first two tests use it one after the other, and the second ends it."""
    return await start_workers(running, 2, *ALL_ROLES, **EXPIRING)


async def start_workers(running: Fleet, workers: int, *roles: str, **settings: str) -> Process:
    """Returns once all workers have started."""
    started = await running.start(*roles, **settings, DYNEIN_WORKERS=str(workers))

    async def all_started() -> bool:
        return len(await by_worker(running, started, "dynein_worker_starts_total")) == workers

    await until(all_started, f"{workers} workers have started")
    return started


async def by_worker(running: Fleet, process: Process, name: str) -> dict[str, float]:
    """A metric of each worker."""
    async with running.http.get(f"{process.ops_url}/metrics") as answer:
        assert answer.status == 200
        found = re.findall(rf'^{name}{{worker="(\d+)"}} (\S+)$', await answer.text(), re.MULTILINE)
    return {worker: float(value) for worker, value in found}


def workers_of(process: Process) -> dict[str, int]:
    """Process ids by worker number, of those alive."""
    parent = process.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in children}
    return {re.findall(r'"number":(\d+)', command)[0]: pid for pid, command in commands.items()}


def directory_of(worker_pid: int) -> Path:
    """Where the workers keep their metrics."""
    return Path(re.findall(r'"directory":"([^"]+)"', Path(f"/proc/{worker_pid}/cmdline").read_text())[0])


def there(directory: Path) -> bool:
    return directory.exists()


def alive(pid: int) -> bool:
    """Runs, and is not a zombie that nobody has reaped (an orphan's new parent may take its time)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until_all_leased(running: Fleet, process: Process) -> None:
    """Return once its workers own all shards between them, each counted once."""

    async def all_leased() -> bool:
        return await running.metric(process, "dynein_leases_held") == SHARDS

    await until(all_leased, "the workers own all shards between them")


async def post(process: Process, queue: str) -> None:
    """One immediate job, over a connection of its own."""
    async with aiohttp.ClientSession() as http:
        await post_over(http, process, queue)


async def post_over(http: aiohttp.ClientSession, process: Process, queue: str) -> None:
    """One immediate job; another in its place while the engine takes too long."""

    async def accepted() -> bool:
        async with http.post(f"{process.url}/v1/jobs", json={"queue": queue, "body": "x"}) as response:
            assert response.status in {202, 503}, await response.text()
            return response.status == 202

    await until(accepted, "a job is accepted")


async def test_all_workers_serve_and_report_as_one(running: Fleet, pair: Process) -> None:
    async with running.sqs() as sqs:
        await sqs.create_queue(QueueName="shared")
    accepted, requests = (
        await running.metric(pair, "dynein_jobs_accepted_total"),
        await by_worker(running, pair, "dynein_worker_requests_total"),
    )
    posted = 0

    async def both_have_served() -> bool:
        # How evenly they share connections is tested where nothing else runs: tests/unit/server/workers.
        nonlocal posted
        async with contextlib.AsyncExitStack() as connections:
            for http in [await connections.enter_async_context(aiohttp.ClientSession()) for _ in range(8)]:
                for _ in range(2):
                    await post_over(http, pair, "shared")
                    posted += 1
        assert await running.metric(pair, "dynein_jobs_accepted_total") == accepted + posted, "whoever is asked"
        served = await by_worker(running, pair, "dynein_worker_requests_total")
        return all(served[worker] > requests.get(worker, 0) for worker in ("0", "1"))

    await until(both_have_served, "each worker has served some")
    await until_all_leased(running, pair)
    lines = [line for line in pair.log.read_text().splitlines() if " process.started: " in line]
    told = {re.findall(r"\[worker (\d) (\d+)\]", line)[0] for line in lines}
    assert told == {(worker, str(pid)) for worker, pid in workers_of(pair).items()}, "each line says whose it is"


async def test_a_killed_worker_is_replaced_and_no_count_goes_backwards(running: Fleet, pair: Process) -> None:
    before = workers_of(pair)
    for _ in range(10):
        await post(pair, "shared")
    counted = await running.metric(pair, "dynein_jobs_accepted_total")
    os.kill(before["0"], signal.SIGKILL)

    async def is_gone() -> bool:
        alone = (await by_worker(running, pair, "dynein_worker_connections")).keys() == {"1"}
        return alone or await has_been_replaced()

    async def has_been_replaced() -> bool:
        return await by_worker(running, pair, "dynein_worker_starts_total") == {"0": 2, "1": 1}

    await until(is_gone, "the other alone is shown, unless it has been replaced by then")
    for done in range(1, 11):
        await post(pair, "shared")
        assert await running.metric(pair, "dynein_jobs_accepted_total") == counted + done

    await until(has_been_replaced, "another is in its place")
    after = workers_of(pair)
    assert after["1"] == before["1"]
    assert after["0"] != before["0"]
    assert await running.metric(pair, "dynein_jobs_accepted_total") == counted + 10

    async def both_take_connections() -> bool:
        return (await by_worker(running, pair, "dynein_worker_connections")).keys() == {"0", "1"}

    await until(both_take_connections, "two live workers are shown")

    # What the dead one held is held again, and counted once.
    await until_all_leased(running, pair)
    assert await pair.terminate() == 0


async def test_stopped_under_load_it_drains_and_another_goes_on(running: Fleet) -> None:
    pair = await start_workers(running, 2, *ALL_ROLES)
    load = Load(running, "flow")

    def job(turn: int) -> dict[str, Any]:
        return {"policy": ("SCHEDULED", "IMMEDIATE")[turn % 2], "delay": (turn * 37 % 50) / 10 if turn % 2 == 0 else 0}

    load.apis = [pair.url]
    successor = asyncio.create_task(running.start("api", "ingester", "dispatcher"))
    async with load.consumed():
        async with load.running(job, clients=8):
            load.apis.append((await successor).url)

            async def enough() -> bool:
                return len(load.accepted) > 150

            await until(enough, "jobs are flowing")
            parent, workers = pair.process.pid, workers_of(pair)
            assert await pair.terminate() == 0
            more = len(load.accepted) + 50

            async def others() -> bool:
                return len(load.accepted) > more

            await until(others, "jobs are flowing again")
        await load.settled()
    assert load.duplicated() == {}
    assert not any(map(alive, [parent, *workers.values()]))
    assert "Traceback" not in pair.log.read_text()


async def test_when_the_parent_is_killed_the_workers_drain_and_free_the_port(running: Fleet) -> None:
    doomed = await start_workers(running, 2, "api")
    workers = workers_of(doomed)
    directory = directory_of(workers["0"])
    assert there(directory)
    doomed.signal(signal.SIGKILL)

    async def all_gone() -> bool:
        return not any(map(alive, workers.values()))

    await until(all_gone, "no worker is left")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", doomed.port))
        probe.listen()
    assert not there(directory)
    log = doomed.log.read_text()
    assert Counter(re.findall(r"worker\.orphaned|process\.stopped", log)) == {
        "worker.orphaned": 2,
        "process.stopped": 2,
    }


async def test_what_is_wrong_is_said_once_and_ends_it(running: Fleet) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        arguments = ("serve", "--role", "api", "--workers", "2")
        busy, unsigned, unmade, wrong = await asyncio.gather(
            running.run(*arguments, "--port", port, DYNEIN_LOG_LEVEL="ERROR"),
            running.run(*arguments, "--port", "0", DYNEIN_TOKEN_SECRETS="", DYNEIN_LOG_LEVEL="ERROR"),
            running.run(*arguments, "--port", "0", DYNEIN_INBOUND_QUEUE="nowhere", DYNEIN_LOG_LEVEL="ERROR"),
            running.run("serve", "--workers", "some", "--port", "0", DYNEIN_LOG_LEVEL="ERROR"),
        )
    for result, sentence in (
        (busy, rf"error: port {port} on 127.0.0.1 is in use; choose another with --port or DYNEIN_PORT"),
        (unsigned, r"error: DYNEIN_TOKEN_SECRETS is needed by every role, to sign .*"),
        (unmade, r"error: queue nowhere does not exist: run `dynein bootstrap`"),
        (wrong, r"error: DYNEIN_WORKERS=.*: .*"),
    ):
        assert (result.code, result.out) == (1, "")
        assert re.fullmatch(sentence, result.err.strip()), result.err
