"""What the fleet agrees on through the table: a record for each shard, the layout, and the roster of live processes.

A **shard record** names the shard's owner, and has the marks that make cancelling, ingesting and retiring safe without
trusting another machine's clock.

The marks of a shard record
---------------------------
``read_mark_ms``
    Raised by the shard's owner *before* it reads: no trigger due later than this has been read by any dispatcher.
``settled_mark_ms``
    The read mark as it was a tick before the owner's last renewal. A read mark just raised allows no reading yet (a
    cancel that checked the mark before it may be half done), and the next owner cannot know how long ago the last one
    raised it, so it begins with this one.
``hold_mark_ms``
    Raised by an ingester *before* it buffers a job: no job due later than this is in an ingester's buffer.
``retired_before``
    Every time bucket with a smaller index is finished with: no dispatcher will read it again.
``late_writes``
    Raised by one by whoever stores a trigger that is due at or before ``read_mark_ms``. The owner sees the new count
    when it next renews, and reads its open buckets again: at once, and once more when the count has not changed for a
    tick, since a job moved there is counted by a transaction that a read may see half done. Retiring is conditional on
    the count that the owner has seen.

A job can be cancelled exactly while it is due later than both marks; `TriggerStore.cancel` checks that in the same
transaction that writes the tombstone. Marks only rise, so a mark read once stays true. (Stream processors call such a
mark a *watermark*.)

Every verb may raise `dynein.errors.Throttled`, `Unavailable` and `AccessDenied`. Losing a race is a result.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol

from dynein.core.keys import bucket_of


class Layout(NamedTuple):
    """How the table is cut; recorded in it. The width never changes, the shard count only grows."""

    bucket_width_ms: int
    shard_count: int
    fifo_shard_count: int
    """The message groups of FIFO queues are spread over the first so many shards: as many as the table began with. It
    never changes."""


class ShardRecord(NamedTuple):
    """One shard's lease and marks."""

    shard: int
    owner: str | None
    fence: int
    """Goes up by one at every change of owner."""
    heartbeat: int
    """Goes up at every renewal. Whoever has seen (fence, heartbeat) unchanged for the lease's time may take over."""
    read_mark_ms: int
    settled_mark_ms: int
    hold_mark_ms: int
    retired_before: int
    late_writes: int

    @property
    def cancel_mark_ms(self) -> int:
        """Jobs due at or before this may already be buffered by a dispatcher or an ingester."""
        return max(self.read_mark_ms, self.hold_mark_ms)


def new_shard_record(shard: int, now_ms: int, bucket_width_ms: int) -> ShardRecord:
    """The record of a shard made at ``now_ms``: buckets older than `NEW_SHARD_LOOK_BACK_MS` are retired from the start.

    Otherwise its owner would have to read all buckets since 1970. The read mark is the end of the last retired bucket:
    whoever stores a trigger there all the same, by a clock that is far behind, takes it for the late write that it is.
    """
    first_open = bucket_of(now_ms - NEW_SHARD_LOOK_BACK_MS, bucket_width_ms)
    read_mark_ms = first_open * bucket_width_ms - 1
    return ShardRecord(
        shard,
        owner=None,
        fence=0,
        heartbeat=0,
        read_mark_ms=read_mark_ms,
        settled_mark_ms=read_mark_ms,
        hold_mark_ms=0,
        retired_before=first_open,
        late_writes=0,
    )


class ShardRecords(Protocol):
    """Leases and marks, one record a shard. Every write is conditional; ``None`` or ``False`` is a lost race."""

    async def layout(self) -> Layout | None:
        """The recorded layout, or ``None`` in a table that has none yet."""

    async def all(self) -> list[ShardRecord]:
        """Every shard's record; strongly consistent."""

    async def get(self, shards: Collection[int]) -> list[ShardRecord]:
        """Some shards' records; strongly consistent."""

    async def take(self, seen: ShardRecord, owner: str) -> ShardRecord | None:
        """Become the owner, if owner, fence and heartbeat are still as in ``seen``. Raises the fence."""

    async def renew(
        self, mine: ShardRecord, *, read_mark_ms: int, settled_mark_ms: int, retired_before: int
    ) -> ShardRecord | None:
        """Raise heartbeat and read mark, note the settled one and, if that is higher than before, retire buckets.

        Conditional on owner and fence; when it retires, on ``late_writes`` too: the returned record then still has the
        old ``retired_before`` if only that failed (everything else was renewed). ``None``: the lease is lost.
        """

    async def release(self, mine: ShardRecord) -> bool:
        """Give the shard up, if it is still ours."""

    async def raise_hold_mark(self, shard: int, hold_mark_ms: int) -> ShardRecord:
        """Raise the hold mark (never lowers it); the record as it then is."""

    async def report_late(self, shard: int, bucket: int) -> bool:
        """Count a late write in ``bucket``, unless the bucket is retired (``False``: it will not be read again)."""


class Roster(Protocol):
    """Live processes by role. Whether a member is alive each observer decides, by heartbeats and its own clock."""

    async def heartbeat(self, role: str, member: str, heartbeat: int) -> None:
        """Write that ``member`` is alive; ``heartbeat`` differs from the last one."""

    async def members(self, role: str) -> dict[str, int]:
        """The last heartbeat of every member that has not left."""

    async def last_seen(self, role: str) -> dict[str, int]:
        """When each of these wrote its last heartbeat: epoch milliseconds by its own clock, to the second."""

    async def leave(self, role: str, member: str) -> None:
        """Forget ``member`` at once."""


NEW_SHARD_LOOK_BACK_MS = 3_600_000
"""More than any clock in the fleet is wrong by."""
