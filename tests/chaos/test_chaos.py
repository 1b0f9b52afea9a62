"""Real processes and a real engine under fault: nothing lost, nothing early, nothing cancelled sent, nothing late that
nothing kept, and every duplicate explained.

Each test runs a fleet with two processes of each role, each behind links of its own, under load, and does one kind of
damage to it. Then the damage ends, everything comes to rest, and every job is accounted for by its token:

    accepted = delivered + cancelled + dead-lettered + still stored

The storm does everything at once, at random. ``python -m tests.chaos --minutes 60`` does so for long.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from tests.acceptance.fleet import monotonic, pause
from tests.chaos import clocks, damage
from tests.chaos.ending import finish
from tests.chaos.faults import Chaos, chaos
from tests.chaos.settings import RECOVERY_MAX_MS

STORM_S = 12.0
SEED = 1
CLIENTS = 4
PAUSE_S = 0.15
BEFORE_S = 1.5
AFTER_S = 2.5
RECOVERY_S = RECOVERY_MAX_MS / 1000
"""How long the load goes on after the last fault: some of its jobs are due when all is well again."""


async def run(disturb: Callable[[Chaos], Awaitable[None]], directory: Path) -> None:
    began = monotonic()
    async with chaos(directory, seed=SEED, clocks=clocks.library() is not None) as disturbed:
        async with disturbed.clients.running(CLIENTS, PAUSE_S):
            await pause(BEFORE_S)
            await disturb(disturbed)
            await disturbed.clients.post_ahead(20, from_s=RECOVERY_S + 0.1, until_s=RECOVERY_S + 2)
            await pause(AFTER_S)
        total = await finish(disturbed)
        print(f"\n{total}\n{disturbed.network.counts}\n{monotonic() - began:.0f} s")  # noqa: T201


@pytest.mark.parametrize(
    "disturb",
    [
        damage.kills,
        damage.freezes,
        damage.engine,
        pytest.param(
            damage.full_disk,
            marks=pytest.mark.skipif(not damage.LINUX, reason="only Linux limits the files of a running process"),
        ),
        damage.network,
    ],
)
async def test_every_job_is_accounted_for_after(disturb: Callable[[Chaos], Awaitable[None]], tmp_path: Path) -> None:
    await run(disturb, tmp_path)


async def test_every_job_is_accounted_for_after_the_storm(tmp_path: Path) -> None:
    await run(partial(damage.storm, seconds=STORM_S, seed=SEED), tmp_path)
