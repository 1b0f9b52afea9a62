"""Real processes and a real engine under fault: nothing lost, nothing early, nothing cancelled sent, and every
duplicate explained.

Each test runs a fleet with two processes of each role behind a proxy, under load, and does one kind of damage to it.
Then the damage ends, everything comes to rest, and every job is accounted for by its token:

    accepted = delivered + cancelled + dead-lettered + still stored

The storm does everything at once, at random, for ``CHAOS_STORM_S`` seconds. An hour's soak, with its figures:

    CHAOS_STORM_S=3600 CHAOS_SEED=7 python -m pytest -s --timeout 0 tests/acceptance/test_chaos.py -k storm

The seed fixes what is done and when; how real processes take it is not repeatable.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.acceptance.chaos_accounts import RECOVERY_S, Way
from tests.acceptance.chaos_faults import ROLES, Chaos, chaos
from tests.acceptance.fleet import monotonic, pause
from tests.acceptance.proxy import LinkFaults

LINUX = sys.platform == "linux"
STORM_S = float(os.environ.get("CHAOS_STORM_S", "12"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
CLIENTS = 4
PAUSE_S = 0.15
BEFORE_S = 1.5
AFTER_S = 2.5
"""How long the load goes on after the last fault: some of its jobs are due when all is well again."""
PAST_LEASE_S = 10.0
"""Longer than a lease, and than a member's heartbeat."""
PAST_CALL_TIMEOUT_S = 6.0
PAST_VISIBILITY_S = 11.0
"""Longer than an inbound message's visibility timeout."""

LOSSY = LinkFaults(reset=0.1)
ANSWERS_LOST = LinkFaults(lose_answer=0.15)
SLOW = LinkFaults(request_delay_s=0.1, answer_delay_s=0.1)
BLACK_HOLE = LinkFaults(black_hole=True)


async def kills(disturbed: Chaos) -> None:
    for role in ROLES:
        await disturbed.kill(f"{role}-0")
        await pause(0.5)


async def freezes(disturbed: Chaos) -> None:
    await disturbed.clients.post_ahead(150, from_s=6, until_s=11)  # to be buffered when the dispatcher is frozen
    await pause(0.1)
    await disturbed.freeze("api-0", PAST_CALL_TIMEOUT_S)
    await pause(1.4)
    await disturbed.freeze("dispatcher-0", PAST_LEASE_S)
    await disturbed.freeze("ingester-0", PAST_VISIBILITY_S)


async def engine(disturbed: Chaos) -> None:
    await disturbed.engine_restart(kill=False, down_s=0.5)
    await pause(1.5)
    await disturbed.engine_restart(kill=True, down_s=1.5)


async def full_disk(disturbed: Chaos) -> None:
    await disturbed.disk_full(4)


async def network(disturbed: Chaos) -> None:
    await disturbed.link_faults("resets", LOSSY, 3)
    await disturbed.link_faults("answers lost", ANSWERS_LOST, 3)
    await disturbed.link_faults("delays", SLOW, 2, Way.NONE)
    await disturbed.reset_all()
    await disturbed.link_faults("black hole", BLACK_HOLE, PAST_CALL_TIMEOUT_S + 1)
    await pause(1.5)
    await disturbed.refuse(1.5)


async def run(disturb: Callable[[Chaos], Awaitable[None]], directory: Path) -> None:
    began = monotonic()
    async with chaos(directory, seed=SEED) as disturbed:
        async with disturbed.clients.running(CLIENTS, PAUSE_S):
            await pause(BEFORE_S)
            await disturb(disturbed)
            await disturbed.clients.post_ahead(20, from_s=RECOVERY_S + 0.1, until_s=RECOVERY_S + 2)
            await pause(AFTER_S)
        total = await disturbed.finish()
        print(f"\n{total}\n{disturbed.proxy.counts}\n{monotonic() - began:.0f} s")  # noqa: T201


@pytest.mark.parametrize(
    "disturb",
    [
        kills,
        freezes,
        engine,
        pytest.param(
            full_disk, marks=pytest.mark.skipif(not LINUX, reason="only Linux limits the files of a running process")
        ),
        network,
    ],
)
async def test_every_job_is_accounted_for_after(disturb: Callable[[Chaos], Awaitable[None]], tmp_path: Path) -> None:
    await run(disturb, tmp_path)


async def storm(disturbed: Chaos) -> None:
    """Two at work at once: one on the processes, one on the engine and the network."""
    ends_at = monotonic() + STORM_S

    async def blow(rng: random.Random, *damages: Callable[[random.Random], Awaitable[None]]) -> None:
        while monotonic() < ends_at:
            await rng.choice(damages)(rng)
            await pause(rng.uniform(0.5, 3.5))

    def process(rng: random.Random) -> str:
        return rng.choice(sorted(disturbed.processes))

    await asyncio.gather(
        blow(
            random.Random(f"{SEED} processes"),
            lambda rng: disturbed.kill(process(rng)),
            lambda rng: disturbed.freeze(process(rng), rng.uniform(2, PAST_VISIBILITY_S)),
            lambda rng: disturbed.restart(process(rng)),
        ),
        blow(
            random.Random(f"{SEED} network"),
            lambda rng: disturbed.engine_restart(kill=rng.random() < 0.5, down_s=rng.uniform(0, 2)),
            lambda rng: disturbed.link_faults("resets", LOSSY, rng.uniform(1, 4)),
            lambda rng: disturbed.link_faults("answers lost", ANSWERS_LOST, rng.uniform(1, 4)),
            lambda rng: disturbed.link_faults("delays", SLOW, rng.uniform(1, 4), Way.NONE),
            lambda rng: disturbed.link_faults("black hole", BLACK_HOLE, rng.uniform(1, 4)),
            lambda rng: disturbed.refuse(rng.uniform(0, 2)),
            *([lambda rng: disturbed.disk_full(rng.uniform(1, 4))] if LINUX else []),
        ),
    )


async def test_every_job_is_accounted_for_after_the_storm(tmp_path: Path) -> None:
    await run(storm, tmp_path)
