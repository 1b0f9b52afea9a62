"""Who should own which shard. Pure.

Every dispatcher works this out for itself, from the same records and roster, and acts on its own part alone: it takes
what it lacks, and gives up what it has too much of. Views differ for a moment, never for long, and taking is by
conditional write, so a wrong view costs a round, not an owner too many.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from dynein.core.shard_records import ShardRecord
from dynein.fleet.staleness import Staleness


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

    ``own_fences``: the last fence under which this process took, or tried to take, a shard. Such a lease needs no
    waiting out: the process knows that it does not use it (its take was answered too late, say). ``blocked``: shards
    that it holds already, or of which it still has sends under way.
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

    The rounding up goes to those who own most already (so that nothing moves without need), then by id.
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
