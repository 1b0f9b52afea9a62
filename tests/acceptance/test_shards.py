"""More shards while everything runs.

That jobs on new shards are on time is tested on a clock of its own (``tests/unit/scheduler/test_ownership.py``).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from dynein.core.job_token import TokenSigner
from tests.acceptance.fleet import QUICK, SECRET, fleet, until
from tests.acceptance.load import Accepted, Load

BEFORE, AFTER = 6, 10


def shard(job: Accepted) -> int:
    return TokenSigner([SECRET.encode()]).verify(job.token).key.shard


def soon(number: int) -> dict[str, Any]:
    """Held by the ingester, or stored, about half of them each."""
    return {"policy": "SCHEDULED", "delay": 1 + number % 50 / 10}


async def test_the_shard_count_is_raised_under_load_and_the_new_shards_are_served(tmp_path: Path) -> None:
    async with fleet(tmp_path, bootstrapped=False) as running:
        running.environment |= QUICK
        running.environment.pop("DYNEIN_SHARD_COUNT")
        await running.command("bootstrap", DYNEIN_SHARD_COUNT=str(BEFORE))
        front, *dispatchers = await asyncio.gather(
            running.start("api", "ingester"), running.start("dispatcher"), running.start("dispatcher")
        )

        async def owned() -> list[int]:
            return [int(await running.metric(process, "dynein_leases_held")) for process in dispatchers]

        async def shared_fairly(shards: int) -> bool:
            return sorted(await owned()) == [shards // 2, shards - shards // 2]

        await until(lambda: shared_fairly(BEFORE), "the shards are shared")
        load = Load(running, "sharded")
        load.apis = [front.url]

        async def new_shards_used() -> bool:
            return {shard(job) for job in load.accepted.values()} >= set(range(AFTER))

        async with load.consumed():
            async with load.running(soon, clients=4):
                output = await running.command("bootstrap", DYNEIN_SHARD_COUNT=str(AFTER))
                assert f"{AFTER} shards (before: {BEFORE})" in output
                await until(lambda: shared_fairly(AFTER), "the new shards have owners")
                # The API reads the shard count every ten seconds.
                await until(new_shards_used, "the API puts jobs on the new shards")
            await load.settled()
        assert load.duplicated() == {}
        stored = await running.metric(front, "dynein_jobs_ingested_total")
        assert stored >= len(load.accepted)
        print(f"\n{len(load.accepted)} jobs, latest {load.latest()} ms")  # noqa: T201
