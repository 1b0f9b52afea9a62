"""Who should own which shard, and when to work it out again. Pure.

Every dispatcher works this out for itself, from the same records and roster, and acts on its own part alone: it takes
what it lacks, and gives up what it has too much of. Views differ for a moment, never for long, and taking is by
conditional write, so a wrong view costs a round, but never makes a second owner.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from dynein.core.shard_records import ShardRecord
from dynein.fleet.staleness import Staleness

_POLL_EVERY_TICKS = 2


class Plan(NamedTuple):
    """What one dispatcher should do now."""

    take: list[ShardRecord]
    release: list[int]
    lacking: int
    """How many shards it is short of its share, whether or not there is one to take."""


def takeable(
    records: Sequence[ShardRecord],
    staleness: Staleness[int],
    *,
    now: float,
    lease_ttl_s: float,
    me: str,
    own_fences: Mapping[int, int],
    blocked: Collection[int],
) -> list[ShardRecord]:
    """Shards that nobody owns any more.

    ``own_fences``: the last fence under which this process took, or tried to take, a shard. Such a lease need not be
    waited for until it expires: the process knows that it does not use it (the response to its take came too late,
    say). ``blocked``: shards that it holds already, or of which it still has sends under way.
    """
    return [
        record
        for record in records
        if record.shard not in blocked
        and (
            record.owner is None
            or (record.owner == me and own_fences.get(record.shard) == record.fence)
            or staleness.unchanged_s(record.shard, now) >= lease_ttl_s
        )
    ]


def fair_share(me: str, live: Sequence[str], held: Mapping[str, int], shard_count: int) -> int:
    """How many of ``shard_count`` shards ``me`` should own: an n-th, rounded up for as many members as needed.

    Rounding up goes to those who own most already (so that nothing moves without need), then by id.
    """
    floor, extras = divmod(shard_count, len(live))
    ranked = sorted(live, key=lambda member: (-held.get(member, 0), member))
    return floor + (ranked.index(me) < extras)


def plan(
    me: str,
    live: Sequence[str],
    records: Sequence[ShardRecord],
    *,
    mine: Collection[int],
    free: Sequence[ShardRecord],
) -> Plan:
    """What to take and what to give up.

    ``live`` is sorted and holds ``me``; ``mine`` are the shards I own and mean to keep; ``free`` is `takeable`.
    The order in which free shards are taken starts elsewhere for each member, so that two takers rarely collide.
    """
    unowned = {record.shard for record in free}
    held = {me: len(mine)}
    for record in records:
        owner = record.owner
        if owner is not None and owner != me and record.shard not in unowned:
            held[owner] = held.get(owner, 0) + 1
    share = fair_share(me, live, held, len(records))
    start = live.index(me) * len(records) // len(live)
    lacking = max(0, share - len(mine))
    return Plan(
        take=_rotated(sorted(free, key=lambda record: record.shard), start)[:lacking],
        # Given up from the far end of what it would take first.
        release=_rotated_shards(sorted(mine), start)[share:] if len(mine) > share else [],
        lacking=lacking,
    )


def _rotated(records: list[ShardRecord], start: int) -> list[ShardRecord]:
    return [r for r in records if r.shard >= start] + [r for r in records if r.shard < start]


def _rotated_shards(shards: list[int], start: int) -> list[int]:
    return [shard for shard in shards if shard >= start] + [shard for shard in shards if shard < start]


class PollSchedule:
    """When to read all shard records again. Pure."""

    def __init__(self) -> None:
        self._polled_at = -math.inf
        self._polled_for: list[str] = []
        self._poll_fast = True

    def is_due(self, now: float, live: list[str], tick_s: float) -> bool:
        """Every second tick; at once when the roster has changed, or a shard is about to change owners."""
        return (
            self._poll_fast or live != self._polled_for or now - self._polled_at >= (_POLL_EVERY_TICKS - 0.5) * tick_s
        )

    def pause_s(self, tick_s: float) -> float:
        """From one pass to the next: half a tick while shards change owners, so that they soon have."""
        return tick_s / 2 if self._poll_fast else tick_s

    def polled(self, now: float, live: list[str], *, fast: bool) -> None:
        """All records were read at ``now``, with that roster. ``fast``: shards are about to change owners."""
        self._polled_at, self._polled_for, self._poll_fast = now, live, fast

    def hurry(self) -> None:
        """A shard has changed owners: poll at the next pass."""
        self._poll_fast = True
