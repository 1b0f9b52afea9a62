"""The trigger store as Dynein needs it: a protocol of domain verbs; no DynamoDB type crosses it.

It holds triggers and their tombstones, in time buckets. The shard records are in the same table
(`dynein.core.shard_records`); their marks decide what may still be cancelled.

Every verb may raise `dynein.errors.Throttled`, `Unavailable` and `AccessDenied`. Losing a race is a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from dynein.core.inbound_message import Arrival
from dynein.core.keys import TriggerKey
from dynein.core.trigger import Trigger


class Tombstone(NamedTuple):
    """Is stored at a trigger's key and keeps the trigger from being delivered, now or when it is ingested late."""

    key: TriggerKey
    moved_to: str | None
    """The token that replaced this one, or ``None`` when the job was cancelled."""


class Page(NamedTuple):
    """Triggers of one (bucket, shard) range in due order."""

    triggers: list[Trigger]
    tombstones: list[Tombstone]
    undecodable: list[TriggerKey]
    """Records in the place of a trigger that are not one. Never removed by reading; ``dynein audit`` reports them."""
    resume: bytes | None
    """Pass to `TriggerStore.read` for the next page; ``None`` at the end of the range."""


class DueCount(NamedTuple):
    """What `TriggerStore.count_due` found."""

    triggers: int
    reached: TriggerKey | None
    """The last record examined, if there are more in the range."""
    read_units: float
    """What it cost; 0 where the store does not report it."""


class Found(NamedTuple):
    """What is stored at a key. Both may be: a tombstone with a trigger not yet removed means cancelled."""

    trigger: Trigger | None
    tombstone: Tombstone | None


class Cancelled(Enum):
    """The result of `TriggerStore.cancel`."""

    CANCELLED = "cancelled"
    BEFORE = "before"
    """It was cancelled already, by another call."""
    TOO_LATE = "too_late"


class Moved(Enum):
    """The result of `TriggerStore.move`."""

    MOVED = "moved"
    TOO_LATE = "too_late"
    NOT_STORED = "not_stored"
    """Still in the inbound queue, or never created."""


class TriggerStore(Protocol):
    """Triggers in time buckets, by (time bucket, shard)."""

    async def add(self, triggers: Sequence[Trigger]) -> list[Trigger]:
        """Store up to `ADD_MAX` triggers; returns those that were *not* stored (write them again, after a pause).

        Storing a trigger that is there already changes nothing, so a write whose response was lost may be repeated.
        """

    async def read(
        self, bucket: int, shard: int, *, from_ms: int, until_ms: int, limit: int, resume: bytes | None = None
    ) -> Page:
        """What is due from ``from_ms`` to ``until_ms`` (both included) in one bucket; strongly consistent."""

    async def count_due(self, bucket: int, shard: int, *, from_ms: int, until_ms: int, limit: int) -> DueCount:
        """How many triggers are due from ``from_ms`` to ``until_ms`` (both included) in one bucket, tombstones apart.

        Examines up to ``limit`` records, or 1 MB of them. Eventually consistent, at half the price: for estimates.
        """

    async def remove(self, keys: Sequence[TriggerKey]) -> list[TriggerKey]:
        """Remove up to `REMOVE_MAX` triggers (tombstones stay); returns those that were *not* removed."""

    async def find(self, key: TriggerKey) -> Found:
        """What is stored at ``key``; strongly consistent."""

    async def tombstones(self, keys: Sequence[TriggerKey]) -> list[Tombstone]:
        """Those of up to `LOOKUP_MAX` keys that have a tombstone; strongly consistent."""

    async def claim(self, arrival: Arrival) -> bool:
        """For a prepared token: may this create go ahead? The first create id to claim a job id keeps it.

        ``True`` also for the same create id again (its inbound message was received twice).
        """

    async def cancel(self, key: TriggerKey) -> Cancelled | Tombstone:
        """Write a tombstone at ``key`` and remove its trigger, if the job is due later than both of its shard's marks.

        All in one transaction. Returns the tombstone found there if the job was moved instead. Of many cancels of one
        job, one returns `Cancelled.CANCELLED`. The trigger need not be stored yet: the tombstone stops it when it is
        ingested.
        """

    async def move(self, key: TriggerKey, to: Trigger) -> Moved | Tombstone:
        """Replace the trigger at ``key`` by ``to`` (same shard) and leave a tombstone that names the new token.

        All in one transaction. It counts a late write too if the new due time is behind the read mark, and only then:
        each makes the owner read all its open buckets again.

        Returns the tombstone found there if the job was cancelled or moved before. ``to.record`` is ignored: the
        stored record moves along.
        """

    async def reserve(self, key: TriggerKey, for_s: int) -> bool:
        """Reserve a stored trigger for one repair, for so long by wall clocks. ``False``: it is another's, or gone."""

    async def buckets(self) -> list[tuple[int, int]]:
        """Every (bucket, shard) that holds anything, by a scan of the whole table: for ``dynein audit`` only."""


MARKER_TTL_S = 15 * 86_400
"""How long a tombstone or claim outlives its job's due time: SQS keeps an inbound message for 14 days at most, so
nothing that it must stop can come later. (A redrive puts a message there anew; see `dynein.admin.redrive`.)"""
ADD_MAX = 25
"""DynamoDB: items in a BatchWriteItem."""
REMOVE_MAX = 25
LOOKUP_MAX = 100
"""DynamoDB: keys in a BatchGetItem."""
