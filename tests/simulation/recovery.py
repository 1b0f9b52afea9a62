"""What the end of a run waits for. Each wait has a limit: what is not met by then is for the checker."""

from __future__ import annotations

from collections.abc import Callable, Collection

from dynein.core.keys import bucket_of
from tests.simulation.flight import OUTSIDE_OF_JOBS, Fate, Flight
from tests.simulation.process import State, pause
from tests.simulation.process_parts import ProcessParts
from tests.simulation.world import World

_PASS_BACKOFF_MAX_S = 5.0
"""Longest pause of an agent that met errors (`dynein.runtime.periodic`, `dynein.ingest.ingester`)."""
BACKLOG_S = 3.0
"""How long the dispatchers may take, once they own all shards, to read what has become due."""
_POLL_S = 0.5


async def until(world: World, condition: Callable[[], bool], within_s: float) -> bool:
    """Wait for ``condition``; whether it came true within ``within_s``."""
    deadline = world.loop.time() + within_s
    while not condition():
        if world.loop.time() >= deadline:
            return False
        await pause(world.loop, _POLL_S)
    return True


def recovery_min_s(world: World) -> float:
    """Until every member has seen which others there are, and every backoff is over."""
    s = world.settings
    seen_s = max(s.member_ttl_s, _PASS_BACKOFF_MAX_S + s.member_ttl_s / 4)
    return seen_s + s.backoff_max_s + s.call_timeout_s + 4 * s.tick_s


def recovery_max_s(world: World) -> float:
    """Until every timeout is over, and the jobs in the inbound queue now have been admitted, all by one ingester.

    Each admits its share of the fleet's rate.
    """
    inbound = {message.message_id for message in world.queues.everything(world.settings.inbound_queue)}
    jobs = sum(not inbound.isdisjoint(carriers) for carriers in world.evidence.carriers.values())
    ingesters = sum("ingester" in process.roles for process in world.processes if process.state is not State.DEAD)
    return world.scenario.recovery_s + jobs * ingesters / world.settings.ingest_rate_per_s


def has_recovered(world: World) -> bool:
    """Is there nothing left that would make a job late: a shard or a message that no running process works on?"""
    healthy = {p.name for p in world.processes if p.state is State.RUNNING and not p.stopping.is_set()}
    if any(record.owner not in healthy for record in world.table.shards()):
        return False
    timeout_s = world.settings.call_timeout_s
    for flight in world.network.under_way:
        if flight.role in OUTSIDE_OF_JOBS:
            continue
        if flight.process not in healthy or not (flight.will_be_answered and flight.answered_within(timeout_s)):
            return False
    if any(_waits_for_its_rate(world.parts[name]) for name in healthy if name in world.parts):
        return False
    return not _messages_wait(world, healthy)


def _messages_wait(world: World, healthy: Collection[str]) -> bool:
    """Is there an inbound message that nobody works on?"""
    inbound = world.settings.inbound_queue
    if world.queues.peek(inbound):
        return True
    receipts = [world.evidence.receipts[message.message_id][-1] for message in world.queues.everything(inbound)]
    if any(receipt.flight.process not in healthy or not receipt.flight.answered for receipt in receipts):
        return True
    return any(_left_after(world, call) for calls in world.evidence.troubled_calls.values() for call in calls)


def _left_after(world: World, flight: Flight) -> bool:
    """May a message that was left after an unexpected error still be invisible?"""
    left_for_s = world.settings.visibility_timeout_s + world.settings.call_timeout_s
    return flight.fate is Fate.UNEXPECTED and world.loop.time() < flight.began_at + left_for_s


def _waits_for_its_rate(parts: ProcessParts) -> bool:
    """Is there an ingester that has received more than it may admit now?"""
    return parts.ingester is not None and parts.ingester.admission.waiting > 0


def is_idle(world: World) -> bool:
    """Has every job been delivered, cancelled or dead-lettered?"""
    return not world.table.triggers() and not world.queues.everything(world.settings.inbound_queue)


def has_retired(world: World, until_ms: int) -> bool:
    """Has every shard retired every bucket up to ``until_ms``?"""
    last = bucket_of(until_ms, world.scenario.bucket_width_s * 1000)
    return all(record.retired_before > last for record in world.table.shards())
