"""Stopping processes under load: what is buffered is finished or handed over, and nothing arrives twice.

That a successor owns the shards within a few ticks, and takes those of a frozen process as soon as the lease has
expired, is tested on a clock of its own (``tests/unit/scheduler/test_ownership.py``). Here leases and visibility
timeouts outlast the test (`QUICK`): what is not handed over does not arrive at all.
"""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.acceptance.fleet import EXPIRING, QUICK, Fleet, Process, fleet, monotonic, now_ms, pause, until
from tests.acceptance.load import Load

SHARDS = 8


def mixed(number: int) -> dict[str, Any]:
    """Jobs that are sent at once, held by SQS, held by the ingester, and stored."""
    match number % 4:
        case 0:
            return {"policy": "IMMEDIATE"}
        case 1:
            return {"policy": "SQS_DELAYED", "delay": 1 + number % 3}
        case _:
            return {"policy": "SCHEDULED", "delay": 0.5 + number % 40 / 10}


async def until_all_owned(running: Fleet, *dispatchers: Process) -> None:
    """Return once these own all shards between them, each of them its share."""

    async def owned() -> bool:
        held = [await running.metric(process, "dynein_leases_held") for process in dispatchers]
        return held == [SHARDS / len(dispatchers)] * len(dispatchers)

    await until(owned, f"{SHARDS} shards owned by {len(dispatchers)} dispatchers")


def shards_of(process: Process, event: str) -> list[str]:
    """The shards of which a process has logged this, in order."""
    return [found[1] for line in process.logged(event) if (found := re.search(r"\bshard=(\d+)", line))]


async def start_with_two_dispatchers(running: Fleet) -> tuple[Process, Process, Process]:
    """A process that takes jobs in, and two dispatchers that share the shards."""
    front, one, other = await asyncio.gather(
        running.start("api", "ingester", **QUICK), running.start("dispatcher"), running.start("dispatcher")
    )
    await until_all_owned(running, one, other)
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
                    assert await predecessor.terminate() == 0, predecessor.log.read_text()
                    assert len(load.accepted) > before, "it was stopped under load"
                    load.apis = load.apis[-1:]
            # What nobody gave back would come only when its visibility timeout or its lease ends: not in this test.
            await load.settled()
        assert load.duplicated() == {}
        assert {job.policy for job in load.accepted.values()} == {"IMMEDIATE", "SQS_DELAYED", "SCHEDULED"}
        print(f"\n{len(load.accepted)} jobs, {load.retries} retries, latest {load.latest()} ms")  # noqa: T201


async def test_a_lingering_api_says_it_is_not_ready_and_still_takes_jobs(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        load = Load(running, "lingering")
        async with load.consumed():
            # Once is enough. It is tried again with more time on a machine so busy that the time was over too soon.
            for linger_s in (2, 10, 60):
                if await lingers(running, load, linger_s):
                    break
            else:
                pytest.fail("no lingering API was seen to take a job")
            await load.settled()
        assert load.duplicated() == {}


async def lingers(running: Fleet, load: Load, linger_s: float) -> bool:
    """Was a job taken after ``/readyz`` said no, within the time to linger?"""
    api = await running.start("api", DYNEIN_LINGER_S=str(linger_s), DYNEIN_DRAIN_S="120")
    signalled_at = monotonic()
    api.signal(signal.SIGTERM)
    seen = {"not ready": False, "took a job": False}

    async def took_a_job() -> bool:
        async with running.http.get(f"{api.url}/readyz") as answer:
            seen["not ready"] = answer.status == 503 and "shutting down" in await answer.text()
        if seen["not ready"]:
            seen["took a job"] = await load.post_once(api.url) is not None
        return seen["took a job"]

    try:
        await until(took_a_job, "an API that is not ready takes a job")
    except aiohttp.ClientConnectionError:
        assert monotonic() - signalled_at >= linger_s, "it has closed its port too soon"
    assert await api.ended() == 0
    assert monotonic() - signalled_at >= linger_s
    with pytest.raises(aiohttp.ClientConnectionError):
        await running.http.get(f"{api.url}/healthz")
    return seen["took a job"]


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

            async def some_have_arrived() -> bool:
                return len(load.arrivals) > 10

            await until(some_have_arrived, "jobs are arriving")
            released, taken = len(shards_of(stopped, "lease.released")), len(shards_of(other, "lease.taken"))
            assert await stopped.terminate() == 0
            # At once, that is without waiting for its leases to expire: they outlast this test.
            await until_all_owned(running, other)
            await load.settled()
        assert load.duplicated() == {}
        handed_over = shards_of(stopped, "lease.released")[released:]
        assert len(handed_over) == len(set(handed_over)) == SHARDS // 2
        assert sorted(shards_of(other, "lease.taken")[taken:]) == sorted(handed_over)
        assert stopped.logged("lease.lost") + other.logged("lease.lost") == []
        print(f"\nlatest {load.latest()} ms")  # noqa: T201


async def test_a_dispatcher_that_was_frozen_past_its_leases_repeats_only_what_was_in_flight(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        running.environment |= EXPIRING
        front, frozen, other = await start_with_two_dispatchers(running)
        load = Load(running, "frozen")
        load.apis = [front.url]
        async with load.consumed():
            start_ms = now_ms() + 4_500
            dues_ms = range(start_ms, start_ms + 15_000, 25)
            for first in range(0, len(dues_ms), 50):
                posts = (load.post(policy="SCHEDULED", run_at=due_ms) for due_ms in dues_ms[first : first + 50])
                await asyncio.gather(*posts)
            await pause((start_ms + 1_000 - now_ms()) / 1000)
            still_stored = await running.stored_tokens()
            frozen.signal(signal.SIGSTOP)
            frozen_at_ms = now_ms()
            try:
                await until_all_owned(running, other)
                await load.settled()  # all of it, while the one that had half of the shards is frozen
            finally:
                frozen.signal(signal.SIGCONT)
            await until_all_owned(running, frozen, other)
            # They end when everything on its way is over; then what came twice has come.
            assert [await process.terminate() for process in (frozen, other)] == [0, 0]
            await load.until_queue_is_empty()
        assert len(shards_of(frozen, "lease.lost")) == SHARDS // 2
        assert other.logged("lease.lost") == [], "it was frozen too"
        for job in load.duplicated().values():
            # In flight is what had been sent by then, and not yet removed.
            assert job.due_at_ms <= frozen_at_ms, (job, frozen_at_ms)
            assert job.token in still_stored, (job, frozen_at_ms)
        print(f"\n{len(load.duplicated())} duplicates, latest {load.latest()} ms")  # noqa: T201
