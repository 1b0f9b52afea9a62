"""Invariant 5: one owner a shard, and nothing is sent for a shard whose lease can have expired."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator

from dynein.core.job_token import parse
from tests.simulation.evidence import Handover
from tests.simulation.flight import Fate, Flight
from tests.simulation.world import World

_ROUNDING_S = 1e-6


def check_ownership(world: World) -> Iterator[str]:
    """Every violation."""
    yield from _takes(world)
    sends = [
        (token, parse(token).key.shard, attempt.flight)
        for token, attempts in world.evidence.sends.items()
        for attempt in attempts
        if token and attempt.flight.role == "dispatcher"
    ]
    yield from _sends(world, sends)
    yield from _releases(world, sends)


def _takes(world: World) -> Iterator[str]:
    """A lease is taken only from an owner struck by a fault, or by a process whose own take was not answered.

    And not before it has seen, for as long as a lease lasts, that its owner does not renew it.
    """
    lease_s = world.settings.lease_ttl_s
    for take in world.evidence.handovers:
        theirs = take.previous is not None and take.previous != take.owner
        heartbeats = [at for at in world.evidence.heartbeats.get(take.shard, []) if at < take.at]
        stale_s = take.at - max(heartbeats, default=-math.inf)
        if take.owner is not None and theirs and stale_s < lease_s - _ROUNDING_S:
            taken = f"shard {take.shard}: {take.owner} took it at {take.at:.3f} from {take.previous}"
            yield f"{taken}, {stale_s:.3f} s after it was renewed"
        if take.owner is not None and theirs and not _lease_may_end(world, take):
            taken = f"shard {take.shard}: {take.owner} took it at {take.at:.3f} from {take.previous}"
            yield f"{taken}, which no fault had struck"


def _lease_may_end(world: World, take: Handover) -> bool:
    assert take.previous is not None
    settings, evidence = world.settings, world.evidence
    owner = next(p for p in world.processes if p.name == take.previous)
    if owner.died_at is not None and owner.died_at <= take.at:
        return True
    # It may have lost the lease long before: the shards of a member are taken once it is seen to have ended.
    held = [f.began_at for f in evidence.renewals.get((take.previous, take.shard), []) if f.began_at <= take.at]
    held += [t.at for t in evidence.handovers if (t.shard, t.owner) == (take.shard, take.previous) and t.at < take.at]
    since = max(held, default=take.at) - 2 * (settings.lease_ttl_s + settings.call_timeout_s)
    if evidence.disturbed_by(take.previous, since, take.at) is not None:
        return True
    return any(
        since <= call.began_at <= take.at
        and (not call.answered or call.fate is not Fate.FINE or call.there_s + call.back_s > settings.tick_s / 2)
        for call in evidence.lease_calls.get(take.previous, [])
    )


def _sends(world: World, sends: list[tuple[str, int, Flight]]) -> Iterator[str]:
    """A send begins while its lease, counted from the start of the last answered renewal, lasts long enough for it."""
    settings, evidence = world.settings, world.evidence
    trusted_s = settings.lease_ttl_s - settings.call_timeout_s
    for token, shard, flight in sends:
        renewal = _last_renewal(evidence.renewals.get((flight.process, shard), []), flight.began_at)
        if renewal is None:
            yield f"{token[12:24]}: {flight.process} sent it at {flight.began_at:.3f} and never owned shard {shard}"
            continue
        # By its own clock, which stopped while it was suspended.
        elapsed_s = flight.began_at - renewal.began_at - _suspended_s(world, flight, renewal.began_at)
        if elapsed_s > trusted_s + _ROUNDING_S:
            yield (
                f"{token[12:24]}: {flight.process} began to send it at {flight.began_at:.3f}, "
                f"{elapsed_s:.3f} s after it renewed shard {shard}"
            )


def _releases(world: World, sends: list[tuple[str, int, Flight]]) -> Iterator[str]:
    """A shard is released when none of its jobs is being sent any more."""
    timeout_s = world.settings.call_timeout_s
    for release in world.evidence.handovers:
        if release.owner is not None:
            continue
        for token, shard, flight in sends:
            mine = shard == release.shard and flight.process == release.previous
            over_at = _answered_at(flight) if flight.answered_within(timeout_s) else flight.began_at + timeout_s
            if mine and flight.began_at <= release.at < over_at:
                yield f"{token[12:24]}: {flight.process} released shard {shard} at {release.at:.3f}, still sending it"


def _last_renewal(renewals: list[Flight], at: float) -> Flight | None:
    """The last that was begun, of those whose response had arrived at ``at``."""
    known = [flight for flight in renewals[: bisect_right(renewals, at, key=_began_at)] if _answered_at(flight) <= at]
    return known[-1] if known else None


def _began_at(flight: Flight) -> float:
    return flight.began_at


def _answered_at(flight: Flight) -> float:
    return flight.began_at + flight.there_s + flight.back_s


def _suspended_s(world: World, flight: Flight, since: float) -> float:
    episodes = [d for d in world.evidence.disturbances.get(flight.process, []) if d.what == "suspended"]
    return sum(max(0.0, min(episode.until, flight.began_at) - max(episode.since, since)) for episode in episodes)
