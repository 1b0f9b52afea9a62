"""All attacks in a row, on one real process: it serves everybody else meanwhile, and is no larger afterwards."""

from __future__ import annotations

import asyncio
import io
import re
from pathlib import Path

import aiohttp

from tests.acceptance.attacks import ATTACKS, MIB, Attacker, full_batch
from tests.acceptance.fleet import HANG_S, Fleet, Process, fleet, until

GROWTH_MAX = 150 * MIB
LOOK_UPS_MAX = 1_000
"""Of 11,000 queues that were made up."""


def resident_bytes(process: Process) -> int:
    """What the process has in memory now."""
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None, status
    return int(found[1]) * 1024


async def look_ups(running: Fleet, process: Process) -> float:
    """Calls for queues that the process has made."""
    async with running.http.get(f"{process.url}/metrics") as response:
        text = await response.text()
    found = re.findall(r'^dynein_aws_calls_total{operation="GetQueueUrl",.*} ([0-9.e+]+)$', text, re.MULTILINE)
    assert found
    return sum(map(float, found))


class Bystander:
    """Another caller, from another address: one request after another, on connections old and new."""

    def __init__(self, running: Fleet, process: Process) -> None:
        self._http = running.http
        self._url = process.url
        self.served = 0

    async def run(self, ending: asyncio.Event) -> None:
        while not ending.is_set():
            await self._ask(self._http)
            async with aiohttp.ClientSession() as fresh:
                await self._ask(fresh)

    async def _ask(self, http: aiohttp.ClientSession) -> None:
        async with asyncio.timeout(HANG_S):
            async with http.post(f"{self._url}/v1/jobs", json={"queue": "demo", "body": "x", "delay": 60}) as response:
                assert response.status == 202, await response.text()
            async with http.get(f"{self._url}/healthz") as response:
                assert response.status == 200
        self.served += 1


async def test_all_attacks_in_a_row(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        async with running.sqs() as sqs:
            await sqs.create_queue(QueueName="demo")
        process = await running.start("api", DYNEIN_HTTP_CONNECTIONS_MAX="200", DYNEIN_LOG_LEVEL="INFO")
        bystander, ending = Bystander(running, process), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(bystander.run(ending))

            async def has_been_served() -> bool:
                return bystander.served > 20

            await until(has_been_served, "requests before the attacks")
            before = resident_bytes(process)
            attacker = Attacker(process.port)
            for attack in ATTACKS:
                served = bystander.served
                await attack(attacker)

                async def was_served(served: int = served) -> bool:
                    return bystander.served > served

                await until(was_served, f"somebody served during {attack.__name__}")
            attacker.release()
            ending.set()

        async with running.http.post(f"{process.url}/v1/jobs/batch", data=io.BytesIO(full_batch())) as response:
            assert (await response.json())["accepted"] == 1000

        async def is_small_again() -> bool:
            return resident_bytes(process) < before + GROWTH_MAX

        await until(is_small_again, "memory given back")
        assert await look_ups(running, process) < LOOK_UPS_MAX
        assert [status for status in attacker.statuses if status >= 500 and status != 503] == []
        assert await process.terminate() == 0
        log = process.log.read_text()
        assert "Traceback" not in log
        assert len(log) < MIB
