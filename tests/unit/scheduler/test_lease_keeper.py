"""How far a new owner may read at once, and what becomes of leases."""

from __future__ import annotations

import asyncio
import random

import pytest

from dynein.core.shard_records import ShardRecord
from dynein.errors import AccessDenied, Unavailable
from dynein.fleet.membership import Membership
from dynein.observability.telemetry import Telemetry
from dynein.runtime.context import Context
from dynein.scheduler.lease import Lease, LeaseState
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
    settled_ms = shard.record.read_mark_ms
    await p.run_once()
    raised_ms = shard.record.read_mark_ms
    assert raised_ms > settled_ms
    await p.hand_over(0.1)
    await q.run_once()
    assert q.taken[0].readable_ms == settled_ms
    await shard.clock.advance(SETTINGS.tick_s)
    await q.run_once()
    assert q.taken[0].readable_ms >= raised_ms


async def test_nor_does_the_next_one_if_the_new_one_leaves_at_once(shard: Shard) -> None:
    p, q, r = (shard.owner(name) for name in "pqr")
    await shard.ticks(p, 3)
    settled_ms = shard.record.read_mark_ms
    await p.run_once()
    await p.hand_over(0.1)
    await q.run_once()
    await q.hand_over(0.1)
    await r.run_once()
    assert r.taken[0].readable_ms == settled_ms


async def test_a_mark_has_not_stood_while_its_renewal_got_no_response(shard: Shard) -> None:
    p, q = shard.owner("p"), shard.owner("q")
    await shard.ticks(p, 3)
    settled_ms = shard.record.read_mark_ms
    shard.table.faults.lose_answer_next("renew", Unavailable("no response"))
    await shard.ticks(p, 1)
    await p.run_once()
    await p.hand_over(0.1)
    await q.run_once()
    assert q.taken[0].readable_ms == settled_ms


async def test_a_lease_that_another_has_taken_is_lost_and_may_be_taken_back_later(shard: Shard) -> None:
    p = shard.owner("p")
    await shard.ticks(p, 1)
    thief = await shard.table.take(shard.record, "thief")
    assert thief is not None
    await p.run_once()
    assert p.taken[0].state is LeaseState.LOST
    assert not p.owns(0)
    assert await shard.table.release(thief)
    await p.run_once()
    assert [lease.state for lease in p.taken] == [LeaseState.LOST, LeaseState.HELD]
    assert p.owns(0)


async def test_a_shard_handed_over_is_released(shard: Shard) -> None:
    p = shard.owner("p")
    await shard.ticks(p, 1)
    await p.hand_over(0.1)
    assert p.taken[0].state is LeaseState.RELEASED
    assert shard.record.owner is None


async def test_a_release_that_finds_another_owner_has_lost_the_shard(shard: Shard) -> None:
    p = shard.owner("p")
    await shard.ticks(p, 1)
    assert await shard.table.take(shard.record, "thief") is not None
    await p.hand_over(0.1)
    assert p.taken[0].state is LeaseState.LOST
    assert shard.record.owner == "thief"


async def test_a_failed_call_ends_no_pass_unless_an_operator_has_to_act(shard: Shard) -> None:
    p = shard.owner("p")
    await shard.ticks(p, 1)
    shard.table.faults.go_down(Unavailable("no response"))
    await shard.ticks(p, 2)
    assert p.taken[0].state is LeaseState.HELD
    shard.table.faults.go_down(AccessDenied("dynamodb:UpdateItem"))
    with pytest.raises(AccessDenied):
        await p.run_once()


async def test_a_call_without_a_response_is_given_up_while_there_is_time_to_repeat_it(shard: Shard) -> None:
    p = shard.owner("p")
    await shard.ticks(p, 1)
    gate = shard.table.faults.hold_before_next("renew")
    renewing = asyncio.ensure_future(p.run_once())
    await shard.clock.run_until(renewing.done, within_s=SETTINGS.lease_ttl_s / 3)
    assert gate.reached.is_set()
    await renewing
    await p.run_once()
    assert p.owns(0)
