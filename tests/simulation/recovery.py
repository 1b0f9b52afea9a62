"""What the end of a run waits for. Each wait has a limit: what is not so by then is the auditor's to judge."""

from __future__ import annotations

from collections.abc import Callable

from dynein.core.keys import bucket_of
from tests.simulation.agents import Innards
from tests.simulation.process import State, pause
from tests.simulation.world import World

_PASS_BACKOFF_MAX_S = 5.0
"""Longest pause of an agent that met errors (`dynein.runtime.periodic`, `dynein.ingest.ingester`)."""
BACKLOG_S = 3.0
"""How long the dispatchers may take, once they own all shards, to read what has become due."""
_LOOK_EVERY_S = 0.5


async def until(world: World, condition: Callable[[], bool], within_s: float) -> bool:
    """Wait for ``condition``; whether it came true within ``within_s``."""
    deadline = world.loop.time() + within_s
    while not condition():
        if world.loop.time() >= deadline:
            return False
        await pause(world.loop, _LOOK_EVERY_S)
    return True


def recovery_min_s(world: World) -> float:
    """Until everyone has seen who is there, and every backoff is over."""
    s = world.settings
    seen_s = max(s.member_ttl_s, _PASS_BACKOFF_MAX_S + s.member_ttl_s / 4)
    return seen_s + s.backoff_max_s + s.call_timeout_s + 4 * s.tick_s


def recovery_max_s(world: World) -> float:
    """Until every timeout there is is over, and what is in the inbound queue now has been let in, all by one ingester.

    Each lets in its share of the fleet's rate.
    """
    inbound = {message.message_id for message in world.queues.everything(world.settings.inbound_queue)}
    jobs = sum(not inbound.isdisjoint(carriers) for carriers in world.evidence.carriers.values())
    ingesters = sum("ingester" in process.roles for process in world.processes if process.state is not State.DEAD)
    return world.scenario.recovery_s + jobs * ingesters / world.settings.ingest_rate_per_s


def has_recovered(world: World) -> bool:
    """Is there nothing left that would make a job late: a shard or a message in dead hands, or not taken up yet?"""
    well = {p.name for p in world.processes if p.state is State.RUNNING and not p.stopping.is_set()}
    if any(record.owner not in well for record in world.table.shards()):
        return False
    timeout_s = world.settings.call_timeout_s
    for flight in world.network.under_way:
        if flight.process not in well or not (flight.heard and flight.answered_within(timeout_s)):
            return False
    if any(_waits_for_its_rate(world.innards[name]) for name in well if name in world.innards):
        return False
    inbound = world.settings.inbound_queue
    if world.queues.peek(inbound):
        return False
    for message in world.queues.everything(inbound):
        receipt = world.evidence.receipts[message.message_id][-1]
        if receipt.flight.process not in well or not receipt.flight.answered:
            return False
    return True


def _waits_for_its_rate(innards: Innards) -> bool:
    """Is there an ingester that has received more than it may let in now?"""
    return innards.ingester is not None and innards.ingester.admission.waiting > 0


def is_idle(world: World) -> bool:
    """Has every job come to its end?"""
    return not world.table.triggers() and not world.queues.everything(world.settings.inbound_queue)


def has_retired(world: World, until_ms: int) -> bool:
    """Has every shard retired every bucket up to ``until_ms``?"""
    last = bucket_of(until_ms, world.scenario.bucket_width_s * 1000)
    return all(record.retired_before > last for record in world.table.shards())
