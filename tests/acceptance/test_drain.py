"""Stopping processes under load: what is in hand is finished or handed over, and nothing comes twice."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.acceptance.fleet import QUICK, Fleet, Process, fleet, monotonic, now_ms, pause, until
from tests.acceptance.load import Load

DRAIN_S = 25.0
HANDED_OVER_LATE_MS = 4_000
"""What nobody gave back would come when its visibility timeout ends, later than this."""
HAND_OVER_S = 2.5
"""Two looks at the shard records, and what a busy machine adds."""


def mixed(number: int) -> dict[str, Any]:
    """Jobs that are sent at once, held by SQS, held in the ingester's hand, and stored."""
    match number % 4:
        case 0:
            return {"policy": "IMMEDIATE"}
        case 1:
            return {"policy": "SQS_DELAYED", "delay": 1 + number % 3}
        case _:
            return {"policy": "SCHEDULED", "delay": 0.5 + number % 40 / 10}


async def until_all_owned(running: Fleet, dispatchers: list[Process], shards: int, within_s: float) -> None:
    async def owned() -> bool:
        held = [await running.metric(process, "dynein_leases_held") for process in dispatchers]
        return sum(held) == shards and min(held) > 0

    await until(owned, f"{shards} shards owned by {len(dispatchers)} dispatchers", within_s)


async def start_with_two_dispatchers(running: Fleet) -> tuple[Process, Process, Process]:
    """A process that takes jobs in, and two dispatchers that share the shards."""
    front, one, other = await asyncio.gather(
        running.start("api", "ingester"), running.start("dispatcher"), running.start("dispatcher")
    )
    await until_all_owned(running, [one, other], 8, within_s=15)
    return front, one, other


async def test_a_rolling_restart_loses_nothing_and_sends_nothing_twice(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        running.environment |= QUICK
        load = Load(running, "rolling")
        roles = ("api", "ingester", "dispatcher")
        old = dict(zip(roles, await asyncio.gather(*map(running.start, roles)), strict=True))
        load.apis = [old["api"].url]
        async with load.consumed():
            async with load.running(mixed):
                for role, predecessor in old.items():
                    successor = await running.start(role)
                    before = len(load.accepted)
                    if role == "api":
                        load.apis.append(successor.url)
                    assert await predecessor.terminate(within_s=DRAIN_S) == 0, predecessor.log.read_text()
                    assert len(load.accepted) > before, "it was stopped under load"
                    load.apis = load.apis[-1:]
            await load.settled(within_s=30)
        assert load.duplicated() == {}
        assert load.latest() < HANDED_OVER_LATE_MS
        assert {job.policy for job in load.accepted.values()} == {"IMMEDIATE", "SQS_DELAYED", "SCHEDULED"}
        print(f"\n{len(load.accepted)} jobs, {load.retries} retries, latest {load.latest()} ms")  # noqa: T201


async def test_a_lingering_api_says_it_is_not_ready_and_still_takes_jobs(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        load = Load(running, "lingering")
        async with load.consumed():
            api = await running.start("api", DYNEIN_LINGER_S="2")
            load.apis = [api.url]
            api.signal(signal.SIGTERM)
            told = monotonic()

            async def not_ready() -> bool:
                async with running.http.get(f"{api.url}/readyz") as answer:
                    return answer.status == 503 and "shutting down" in await answer.text()

            await until(not_ready, "/readyz says no", 1.5)
            await load.post()
            assert load.retries == 0
            async with asyncio.timeout(DRAIN_S):
                assert await api.wait() == 0
            assert monotonic() - told >= 2
            with pytest.raises(aiohttp.ClientConnectionError):
                await running.http.get(f"{api.url}/healthz")
            await load.settled(within_s=10)
        assert load.duplicated() == {}


async def test_another_dispatcher_takes_over_at_once_from_one_that_was_stopped(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        running.environment |= QUICK
        front, stopped, other = await start_with_two_dispatchers(running)
        load = Load(running, "handed-over")
        load.apis = [front.url]
        async with load.consumed():
            start_ms = now_ms() + 4_500  # later than the hold window: these are stored
            for number in range(80):
                await load.post(policy="SCHEDULED", run_at=start_ms + number * 50)
            await pause((start_ms + 1_000 - now_ms()) / 1000)
            assert await stopped.terminate(within_s=DRAIN_S) == 0
            await until_all_owned(running, [other], 8, within_s=HAND_OVER_S)
            await load.settled(within_s=30)
        assert load.duplicated() == {}
        assert load.latest() < HAND_OVER_S * 1000
        print(f"\nlatest {load.latest()} ms")  # noqa: T201


async def test_a_dispatcher_that_was_frozen_past_its_leases_repeats_only_what_was_in_flight(tmp_path: Path) -> None:
    lease_ttl_s = float(QUICK["DYNEIN_LEASE_TTL_S"])
    async with fleet(tmp_path) as running:
        running.environment |= QUICK
        front, frozen, other = await start_with_two_dispatchers(running)
        load = Load(running, "frozen")
        load.apis = [front.url]
        async with load.consumed():
            start_ms = now_ms() + 4_500
            dues_ms = range(start_ms, start_ms + 9_000, 15)
            for first in range(0, len(dues_ms), 50):
                posts = (load.post(policy="SCHEDULED", run_at=due_ms) for due_ms in dues_ms[first : first + 50])
                await asyncio.gather(*posts)
            await pause((start_ms + 1_000 - now_ms()) / 1000)
            frozen.signal(signal.SIGSTOP)
            frozen_at_ms = now_ms()
            try:
                await pause(lease_ttl_s)
                await until_all_owned(running, [other], 8, within_s=5)
                taken_at_ms = now_ms()
                await pause(1)
            finally:
                frozen.signal(signal.SIGCONT)
            await load.settled(within_s=40)
            await until_all_owned(running, [frozen, other], 8, within_s=15)
        in_flight = range(frozen_at_ms - 1_000, frozen_at_ms + 200)
        for job in load.duplicated().values():
            assert job.due_at_ms in in_flight, (job, frozen_at_ms)
        # What was due before the other took over came when it did, and what was due afterwards on time.
        for body, job in load.accepted.items():
            expected_ms = max(job.due_at_ms, taken_at_ms if job.due_at_ms >= frozen_at_ms - 1_000 else 0)
            assert load.arrivals[body][0] - expected_ms < 2_500, (body, job, frozen_at_ms, taken_at_ms)
        print(f"\n{len(load.duplicated())} duplicates, latest {load.latest()} ms")  # noqa: T201
