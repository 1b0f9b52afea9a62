from __future__ import annotations

from dynein.fleet.membership import Membership
from dynein.testing import FakeTriggerTable, ManualClock

TTL_S = 8.0


class Fleet:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.table = FakeTriggerTable(self.clock)

    def member(self, name: str, role: str = "ingester") -> Membership:
        return Membership(self.table, self.clock, role=role, member=name, ttl_s=TTL_S)


async def test_members_of_a_role_find_one_another() -> None:
    fleet = Fleet()
    a, b, other = fleet.member("a"), fleet.member("b"), fleet.member("c", role="dispatcher")
    assert a.live == ["a"]
    for member in (a, b, other, a):
        assert await member.run_once() == TTL_S / 4
    assert a.live == ["a", "b"]
    assert other.live == ["c"]


async def test_one_who_dies_drops_out_after_the_ttl_and_one_who_leaves_at_once() -> None:
    fleet = Fleet()
    a, dead, leaver = fleet.member("a"), fleet.member("b"), fleet.member("c")
    for member in (dead, leaver, a):
        await member.run_once()
    assert a.live == ["a", "b", "c"]
    await leaver.leave()
    await a.run_once()
    assert a.live == ["a", "b"]
    for _ in range(4):
        assert "b" in a.live
        await fleet.clock.advance(a.interval_s)
        await a.run_once()
    assert a.live == ["a"]


async def test_a_process_that_woke_from_a_pause_counts_itself_whatever_the_others_think() -> None:
    fleet = Fleet()
    a, b = fleet.member("a"), fleet.member("b")
    await a.run_once()
    await b.run_once()
    await fleet.clock.advance(100)  # both were frozen; neither has seen the other beat
    await b.run_once()
    assert b.live == ["b"]
    await a.run_once()
    assert a.live == ["a", "b"]
