"""The trigger store as Dynein needs it: protocols of domain verbs; no DynamoDB type crosses them.

Three things live in one table:

* **triggers** and their tombstones, in time buckets (`TriggerStore`);
* one **shard record** for each shard (`ShardRecords`): who owns it, and the marks that make cancelling, ingesting and
  retiring safe without anyone trusting another machine's clock;
* the **roster** of live processes by role (`Roster`).

The marks of a shard record
---------------------------
``read_mark_ms``
    Raised by the shard's owner *before* it reads: no trigger due later than this has been read by any dispatcher.
``settled_mark_ms``
    Where the read mark stood a tick before the owner's last renewal. A read mark just raised allows no reading yet (a
    cancel that checked the one before may be half done); what the last owner raised, the next one cannot know how long
    ago, so it begins with this one.
``hold_mark_ms``
    Raised by an ingester *before* it keeps a job in hand: no job due later than this is in an ingester's hand.
``retired_before``
    Every time bucket with a smaller index is finished with: no dispatcher will read it again.
``late_writes``
    Counted up by whoever stores a trigger that is due at or before ``read_mark_ms``. The owner sees the count move
    when it next renews, and reads its open buckets again: at once, and once more when that count has stood a tick, for
    a job moved there is counted by a transaction that a read may see half done. Retiring is conditional on the count it
    had seen.

A job can be cancelled exactly while it is due later than both marks; `TriggerStore.cancel` checks that in the same
transaction that writes the tombstone. Marks only rise, so a mark read once stays true.

Every verb may raise `dynein.errors.Throttled`, `Unavailable` and `AccessDenied`. Losing a race is a result.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from dynein.core.inbound_message import Arrival
from dynein.core.keys import TriggerKey, bucket_of
from dynein.core.trigger import Trigger


class Layout(NamedTuple):
    """How the table is cut; recorded in it. The width never changes, the shard count only grows."""

    bucket_width_ms: int
    shard_count: int


class ShardRecord(NamedTuple):
    """One shard's lease and marks."""

    shard: int
    owner: str | None
    fence: int
    """Goes up by one at every change of owner."""
    beat: int
    """Goes up at every renewal. An observer that sees (fence, beat) stand still for the lease's time may take over."""
    read_mark_ms: int
    settled_mark_ms: int
    hold_mark_ms: int
    retired_before: int
    late_writes: int

    @property
    def cancel_mark_ms(self) -> int:
        """Jobs due at or before this may already be in somebody's hand."""
        return max(self.read_mark_ms, self.hold_mark_ms)


def new_shard_record(shard: int, now_ms: int, bucket_width_ms: int) -> ShardRecord:
    """The record of a shard made at ``now_ms``: whatever lies `NEW_SHARD_LOOK_BACK_MS` back is retired from the start.

    So nobody has to read all buckets since 1970. The read mark stands at the end of the last retired bucket: whoever
    stores a trigger there all the same, by a clock that is far behind, takes it for the late write that it is.
    """
    first_open = bucket_of(now_ms - NEW_SHARD_LOOK_BACK_MS, bucket_width_ms)
    read_mark_ms = first_open * bucket_width_ms - 1
    return ShardRecord(
        shard,
        owner=None,
        fence=0,
        beat=0,
        read_mark_ms=read_mark_ms,
        settled_mark_ms=read_mark_ms,
        hold_mark_ms=0,
        retired_before=first_open,
        late_writes=0,
    )


class Tombstone(NamedTuple):
    """Stands at a trigger's key and keeps it from being delivered, now or when it is ingested late."""

    key: TriggerKey
    moved_to: str | None
    """The token that replaced this one, or ``None`` when the job was cancelled."""


class Page(NamedTuple):
    """Triggers of one (bucket, shard) range in due order."""

    triggers: list[Trigger]
    tombstones: list[Tombstone]
    undecodable: list[TriggerKey]
    """Records at a trigger's place that are not one. Never removed by reading; ``dynein audit`` reports them."""
    resume: bytes | None
    """Pass to `TriggerStore.read` for the next page; ``None`` at the end of the range."""


class DueCount(NamedTuple):
    """What `TriggerStore.count_due` found."""

    triggers: int
    reached: TriggerKey | None
    """The last record looked at, if that is not all of the range."""
    read_units: float
    """DynamoDB's price of it; 0 where the store does not say."""


class Found(NamedTuple):
    """What stands at a key. Both may be there: a tombstone with a trigger not yet removed means cancelled."""

    trigger: Trigger | None
    tombstone: Tombstone | None


class Cancelled(Enum):
    """What came of `TriggerStore.cancel`."""

    CANCELLED = "cancelled"
    BEFORE = "before"
    """It was cancelled already, by another call."""
    TOO_LATE = "too_late"


class Moved(Enum):
    """What came of `TriggerStore.move`."""

    MOVED = "moved"
    TOO_LATE = "too_late"
    NOT_STORED = "not_stored"
    """Still in the inbound queue, or never created."""


class TriggerStore(Protocol):
    """Triggers in time buckets, by (time bucket, shard)."""

    async def add(self, triggers: Sequence[Trigger]) -> list[Trigger]:
        """Store up to `ADD_MAX` triggers; returns those that were *not* stored (write them again, after a pause).

        Storing a trigger that is there already changes nothing, so a write whose answer was lost may be repeated.
        """

    async def read(
        self, bucket: int, shard: int, *, from_ms: int, until_ms: int, limit: int, resume: bytes | None = None
    ) -> Page:
        """What is due from ``from_ms`` to ``until_ms`` (both included) in one bucket; strongly consistent."""

    async def count_due(self, bucket: int, shard: int, *, from_ms: int, until_ms: int, limit: int) -> DueCount:
        """How many triggers are due from ``from_ms`` to ``until_ms`` (both included) in one bucket, tombstones apart.

        Looks at up to ``limit`` records, or 1 MB of them. Eventually consistent, at half of the price: for estimates.
        """

    async def remove(self, keys: Sequence[TriggerKey]) -> list[TriggerKey]:
        """Remove up to `REMOVE_MAX` triggers (tombstones stay); returns those that were *not* removed."""

    async def find(self, key: TriggerKey) -> Found:
        """What stands at ``key``; strongly consistent."""

    async def tombstones(self, keys: Sequence[TriggerKey]) -> list[Tombstone]:
        """Those of up to `LOOKUP_MAX` keys that have a tombstone; strongly consistent."""

    async def claim(self, arrival: Arrival) -> bool:
        """For a prepared token: may this create go ahead? The first create id to claim a job id keeps it.

        ``True`` also for the same create id again (its inbound message was received twice).
        """

    async def cancel(self, key: TriggerKey) -> Cancelled | Tombstone:
        """Write a tombstone at ``key`` and remove its trigger, if the job is due later than both of its shard's marks.

        All in one transaction. Returns the tombstone found there if the job was moved instead. Of many cancels of one
        job one finds it `Cancelled.CANCELLED`. It matters not whether the trigger is stored yet: the tombstone stops it
        when it comes.
        """

    async def move(self, key: TriggerKey, to: Trigger) -> Moved | Tombstone:
        """Replace the trigger at ``key`` by ``to`` (same shard) and leave a tombstone that says where it went.

        All in one transaction. It counts a late write too if the new due time is behind the read mark, and only then:
        each makes the owner read all its open buckets again.
        Returns the tombstone found there if the job was cancelled or moved before. ``to.record`` is ignored: the
        stored record moves along.
        """

    async def buckets(self) -> list[tuple[int, int]]:
        """Every (bucket, shard) that holds anything, by a scan of the whole table: for ``dynein audit`` only."""


class ShardRecords(Protocol):
    """Leases and marks, one record a shard. Every write is conditional; ``None`` or ``False`` is a lost race."""

    async def layout(self) -> Layout | None:
        """The recorded layout, or ``None`` in a table that has none yet."""

    async def all(self) -> list[ShardRecord]:
        """Every shard's record; strongly consistent."""

    async def get(self, shards: Collection[int]) -> list[ShardRecord]:
        """Some shards' records; strongly consistent."""

    async def take(self, seen: ShardRecord, owner: str) -> ShardRecord | None:
        """Become the owner, if owner, fence and beat are still as in ``seen``. Raises the fence."""

    async def renew(
        self, mine: ShardRecord, *, read_mark_ms: int, settled_mark_ms: int, retired_before: int
    ) -> ShardRecord | None:
        """Beat, raise the read mark, note the settled one and, if that is higher than before, retire buckets.

        Conditional on owner and fence; when it retires, on ``late_writes`` too: the returned record then still has the
        old ``retired_before`` if only that failed (everything else was renewed). ``None``: the lease is lost.
        """

    async def release(self, mine: ShardRecord) -> bool:
        """Give the shard up, if it is still ours."""

    async def raise_hold_mark(self, shard: int, hold_mark_ms: int) -> ShardRecord:
        """Raise the hold mark (never lowers it); the record as it then is."""

    async def report_late(self, shard: int, bucket: int) -> bool:
        """Count a late write in ``bucket``, unless the bucket is retired (``False``: nobody will read it again)."""


class Roster(Protocol):
    """Live processes by role. Whether a member is alive is for the observer to say, from beats and its own clock."""

    async def beat(self, role: str, member: str, beat: int) -> None:
        """Write that ``member`` is alive; ``beat`` differs from the last one."""

    async def members(self, role: str) -> dict[str, int]:
        """Last beat of every member that has not left."""

    async def leave(self, role: str, member: str) -> None:
        """Forget ``member`` at once."""


NEW_SHARD_LOOK_BACK_MS = 3_600_000
"""More than any clock in the fleet is wrong."""
ADD_MAX = 25
"""DynamoDB: items in a BatchWriteItem."""
REMOVE_MAX = 25
LOOKUP_MAX = 100
"""DynamoDB: keys in a BatchGetItem."""
