"""How far a new owner may read at once."""

from __future__ import annotations

import random

import pytest

from dynein.core.shard_records import ShardRecord
from dynein.errors import Unavailable
from dynein.fleet.membership import Membership
from dynein.observability.telemetry import Telemetry
from dynein.runtime.context import Context
from dynein.scheduler.lease import Lease
from dynein.scheduler.lease_keeper import LeaseKeeper
from dynein.settings import Settings
from dynein.testing import FakeTriggerTable, ManualClock

SETTINGS = Settings(lease_ttl_s=10.0, tick_s=1.0, call_timeout_s=3.0, read_ahead_s=3.0)


class NoWork:
    """Nothing is read or sent."""

    def retire_before(self) -> int:
        return 0

    def renewed(self) -> None: ...

    def close(self) -> None: ...

    def settled(self, send_timeout_s: float) -> bool:
        del send_timeout_s
        return True


class Owner(LeaseKeeper):
    """A process that wants the only shard."""

    def __init__(self, name: str, table: FakeTriggerTable, clock: ManualClock) -> None:
        self.taken: list[Lease] = []
        membership = Membership(table, clock, role="dispatcher", member=name, ttl_s=SETTINGS.member_ttl_s)
        super().__init__(table, membership, Context(clock, random.Random(7), Telemetry()), SETTINGS, self._open)

    def _open(self, lease: Lease) -> NoWork:
        self.taken.append(lease)
        return NoWork()


class Shard:
    """One shard and those that own it in turn."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.table = FakeTriggerTable(self.clock, bucket_width_ms=60_000, shard_count=1)

    @property
    def record(self) -> ShardRecord:
        return self.table.shards()[0]

    def owner(self, name: str) -> Owner:
        return Owner(name, self.table, self.clock)

    async def ticks(self, owner: Owner, count: int) -> None:
        for _ in range(count):
            await owner.run_once()
            await self.clock.advance(SETTINGS.tick_s)


@pytest.fixture
def shard() -> Shard:
    return Shard()


async def test_a_new_owner_does_not_read_up_to_a_mark_that_was_raised_just_before(shard: Shard) -> None:
    """A cancel that checked the mark before may be half done: for a moment a read still shows the trigger."""
    p, q = shard.owner("p"), shard.owner("q")
    await shard.ticks(p, 3)
    stood_ms = shard.record.read_mark_ms
    await p.run_once()
    raised_ms = shard.record.read_mark_ms
    assert raised_ms > stood_ms
    await p.hand_over(0.1)
    await q.run_once()
    assert q.taken[0].readable_ms == stood_ms
    await shard.clock.advance(SETTINGS.tick_s)
    await q.run_once()
    assert q.taken[0].readable_ms >= raised_ms


async def test_nor_does_the_next_one_if_the_new_one_leaves_at_once(shard: Shard) -> None:
    p, q, r = (shard.owner(name) for name in "pqr")
    await shard.ticks(p, 3)
    stood_ms = shard.record.read_mark_ms
    await p.run_once()
    await p.hand_over(0.1)
    await q.run_once()
    await q.hand_over(0.1)
    await r.run_once()
    assert r.taken[0].readable_ms == stood_ms


async def test_a_mark_has_not_stood_while_its_renewal_was_not_answered(shard: Shard) -> None:
    p, q = shard.owner("p"), shard.owner("q")
    await shard.ticks(p, 3)
    stood_ms = shard.record.read_mark_ms
    shard.table.faults.lose_answer_next("renew", Unavailable("no answer"))
    await shard.ticks(p, 1)
    await p.run_once()
    await p.hand_over(0.1)
    await q.run_once()
    assert q.taken[0].readable_ms == stood_ms
