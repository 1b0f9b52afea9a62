"""For how long what others write has not changed, as one observer sees it by its own monotonic clock.

Owners of shards and members of the roster write a heartbeat that changes each time. A reader compares it with
what it read before: so the clocks of two machines are never compared, and a frozen process drops out by itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from dynein.core.shard_records import ShardRecord

KeyT = TypeVar("KeyT", bound=Hashable)


class _Seen(NamedTuple):
    value: Hashable
    since: float


class Staleness(Generic[KeyT]):
    """Pure. Keeps what was last observed of each key, and since when it has been so."""

    def __init__(self) -> None:
        self._seen: dict[KeyT, _Seen] = {}

    def observe(self, values: Mapping[KeyT, Hashable], now: float) -> None:
        """Take in all values of a response that came at ``now`` (monotonic seconds). Other keys are forgotten.

        ``now`` must not be earlier than the response: a value counts from when it was *seen*, which is later than when
        it was written, so that an observer never thinks a heartbeat older than its writer does.
        """
        seen = self._seen
        self._seen = {
            key: before if (before := seen.get(key)) is not None and before.value == value else _Seen(value, now)
            for key, value in values.items()
        }

    def unchanged_s(self, key: KeyT, now: float) -> float:
        """For how many seconds the value of ``key`` has not changed; 0 if it was never observed."""
        seen = self._seen.get(key)
        return 0.0 if seen is None else now - seen.since

    def changed_within(self, seconds: float, now: float) -> list[KeyT]:
        """Keys whose value has changed, or was first seen, less than ``seconds`` ago."""
        return [key for key, seen in self._seen.items() if now - seen.since < seconds]


def leases_of(records: Sequence[ShardRecord]) -> dict[int, Hashable]:
    """What of each shard's record changes at every renewal and every change of owner, for `Staleness.observe`."""
    return {record.shard: (record.owner, record.fence, record.heartbeat) for record in records}


class ShardsSeen(NamedTuple):
    """All shards, as one dispatcher has last seen them."""

    shards: int
    unowned: int
    """Without an owner, or with one that has not renewed for the lease's time."""


def shards_seen(
    records: Sequence[ShardRecord], staleness: Staleness[int], *, now: float, lease_ttl_s: float
) -> ShardsSeen:
    """Count all, and those without an owner. ``now``: when ``records`` came, monotonic seconds."""
    unowned = sum(record.owner is None or staleness.unchanged_s(record.shard, now) >= lease_ttl_s for record in records)
    return ShardsSeen(len(records), unowned)
