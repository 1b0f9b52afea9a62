"""What is done to a fleet: one kind of damage after the other, or a storm of all at once."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable

from tests.acceptance.fleet import monotonic, pause
from tests.acceptance.proxy import LinkFaults
from tests.chaos.faults import EVERYONE, Chaos
from tests.chaos.settings import CALL_TIMEOUT_MS, CLOCK_SKEW_MS, LEASE_MS, ROLES, VISIBILITY_MS

LINUX = sys.platform == "linux"
PAST_LEASE_S = LEASE_MS / 1000 + 2
PAST_CALL_TIMEOUT_S = CALL_TIMEOUT_MS / 1000 + 1
PAST_VISIBILITY_S = VISIBILITY_MS / 1000 + 2
CLOCK_S = CLOCK_SKEW_MS / 1000
"""How far a clock may be off, and nothing else but due times is affected."""

LOSSY = LinkFaults(reset=0.1)
ANSWERS_LOST = LinkFaults(lose_answer=0.15)
SLOW = LinkFaults(request_delay_s=0.1, answer_delay_s=0.1)
BLACK_HOLE = LinkFaults(black_hole=True)
MUTE = LinkFaults(mute=True)


async def kills(disturbed: Chaos) -> None:
    """One process of each role is killed, while the clock of the other, if it can be set, is wrong."""
    await asyncio.gather(_kills(disturbed), *(_wrong_clock(disturbed, f"{role}-1") for role in ROLES))


async def _kills(disturbed: Chaos) -> None:
    for role in ROLES:
        await disturbed.kill(f"{role}-0")
        await pause(0.5)


async def _wrong_clock(disturbed: Chaos, process: str) -> None:
    if disturbed.clocks:
        await disturbed.clock(process, CLOCK_S, 2)
        await disturbed.clock(process, -CLOCK_S, 2)


async def freezes(disturbed: Chaos) -> None:
    """Each for longer than what it has lasts."""
    await disturbed.clients.post_ahead(150, from_s=6, until_s=11)  # to be buffered when the dispatcher is frozen
    await pause(0.1)
    await disturbed.freeze("api-0", PAST_CALL_TIMEOUT_S)
    await pause(1.4)
    await disturbed.freeze("dispatcher-0", PAST_LEASE_S)
    await disturbed.freeze("ingester-0", PAST_VISIBILITY_S)


async def engine(disturbed: Chaos) -> None:
    """Stopped, killed, frozen and slow."""
    await disturbed.engine_restart(kill=False, down_s=0.5)
    await pause(1.5)
    await disturbed.engine_restart(kill=True, down_s=1.5)
    await pause(1.5)
    await disturbed.engine_slow(2)
    await disturbed.engine_freeze(PAST_CALL_TIMEOUT_S)


async def full_disk(disturbed: Chaos) -> None:
    """For a few seconds."""
    await disturbed.disk_full(4)


async def network(disturbed: Chaos) -> None:
    """All links at once; then single ones."""
    await disturbed.link_faults("resets", LOSSY, 3)
    await disturbed.link_faults("answers lost", ANSWERS_LOST, 3)
    await disturbed.link_faults("delays", SLOW, 2, repeats=False)
    await disturbed.reset_all()
    await disturbed.link_faults("black hole", BLACK_HOLE, PAST_CALL_TIMEOUT_S)
    await pause(1.5)
    await disturbed.refuse(1.5)
    await partitions(disturbed)


async def partitions(disturbed: Chaos) -> None:
    """One process of each role is cut off from one service, all at the same time, while the others go on."""
    await disturbed.clients.post_ahead(100, from_s=2, until_s=12)  # to be buffered when the dispatcher is cut off
    await pause(0.5)
    await asyncio.gather(
        # It goes on sending, removes nothing, and must stop before others may take its shards.
        _cut_off(disturbed, "dispatcher-0", "dynamodb", BLACK_HOLE, PAST_LEASE_S),
        # It has its leases, and jobs that it cannot send.
        _cut_off(disturbed, "dispatcher-1", "sqs", MUTE, PAST_CALL_TIMEOUT_S),
        # It receives what it cannot store, and what it does is done without its knowledge.
        _cut_off(disturbed, "ingester-0", "dynamodb", MUTE, PAST_VISIBILITY_S),
        _cut_off(disturbed, "api-0", "sqs", MUTE, PAST_CALL_TIMEOUT_S),
    )


async def _cut_off(disturbed: Chaos, process: str, service: str, faults: LinkFaults, seconds: float) -> None:
    kind = "nothing passes" if faults.black_hole else "no answer passes"
    role = process.partition("-")[0]
    await disturbed.link_faults(
        f"{kind} between {service} and {role}", faults, seconds, processes={process}, services=[service]
    )


Damage = Callable[[random.Random], Awaitable[None]]


async def storm(disturbed: Chaos, seconds: float, seed: int) -> None:
    """For so long, two at work at once: one on the processes, one on the engine and the network."""
    ends_at = monotonic() + seconds

    async def blow(rng: random.Random, *damages: Damage) -> None:
        while monotonic() < ends_at:
            await rng.choice(damages)(rng)
            await pause(rng.uniform(0.5, 3.5))

    def process(rng: random.Random) -> str:
        return rng.choice(sorted(disturbed.processes))

    def one(rng: random.Random) -> str:
        return rng.choice(sorted(EVERYONE))

    def service(rng: random.Random) -> str:
        return rng.choice(("sqs", "dynamodb"))

    await asyncio.gather(
        blow(
            random.Random(f"{seed} processes"),
            lambda rng: disturbed.kill(process(rng)),
            lambda rng: disturbed.freeze(process(rng), rng.uniform(2, PAST_VISIBILITY_S)),
            lambda rng: disturbed.restart(process(rng)),
            *(
                [lambda rng: disturbed.clock(one(rng), rng.uniform(-CLOCK_S, CLOCK_S), rng.uniform(2, 6))]
                if disturbed.clocks
                else []
            ),
        ),
        blow(
            random.Random(f"{seed} network"),
            lambda rng: disturbed.engine_restart(kill=rng.random() < 0.5, down_s=rng.uniform(0, 2)),
            lambda rng: disturbed.engine_freeze(rng.uniform(0.5, PAST_CALL_TIMEOUT_S)),
            lambda rng: disturbed.engine_slow(rng.uniform(1, 4)),
            lambda rng: disturbed.link_faults("resets", LOSSY, rng.uniform(1, 4)),
            lambda rng: disturbed.link_faults("answers lost", ANSWERS_LOST, rng.uniform(1, 4)),
            lambda rng: disturbed.link_faults("delays", SLOW, rng.uniform(1, 4), repeats=False),
            lambda rng: disturbed.link_faults("black hole", BLACK_HOLE, rng.uniform(1, 4)),
            lambda rng: disturbed.refuse(rng.uniform(0, 2)),
            lambda rng: _cut_off(disturbed, one(rng), service(rng), BLACK_HOLE, rng.uniform(2, PAST_VISIBILITY_S)),
            lambda rng: _cut_off(disturbed, one(rng), service(rng), MUTE, rng.uniform(2, PAST_VISIBILITY_S)),
            *([lambda rng: disturbed.disk_full(rng.uniform(1, 4))] if LINUX else []),
        ),
    )
