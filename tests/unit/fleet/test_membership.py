from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dynein.fleet.membership import Liveness, Membership
from dynein.testing import FakeTriggerTable, ManualClock

TTL_S = 8.0


def test_a_member_seen_for_the_first_time_is_alive() -> None:
    liveness = Liveness(TTL_S)
    liveness.observe({"b": 41, "a": 7}, now=100)
    assert liveness.live(100) == ["a", "b"]


def test_a_beat_that_stands_still_for_the_ttl_is_dead_and_one_that_moves_is_not() -> None:
    liveness = Liveness(TTL_S)
    liveness.observe({"a": 1, "b": 1}, now=0)
    liveness.observe({"a": 1, "b": 2}, now=4)
    assert liveness.live(7.9) == ["a", "b"]
    assert liveness.live(8) == ["b"]
    liveness.observe({"a": 2, "b": 2}, now=9)
    assert liveness.live(9) == ["a", "b"]


def test_one_who_left_is_gone_at_the_next_look() -> None:
    liveness = Liveness(TTL_S)
    liveness.observe({"a": 1, "b": 1}, now=0)
    liveness.observe({"b": 1}, now=1)
    assert liveness.live(1) == ["b"]


@given(st.lists(st.tuples(st.dictionaries(st.sampled_from("abc"), st.integers(0, 3)), st.floats(0, 5)), max_size=20))
def test_a_member_is_alive_exactly_if_its_beat_changed_within_the_ttl(
    looks: list[tuple[dict[str, int], float]],
) -> None:
    liveness = Liveness(TTL_S)
    now = 0.0
    changed_at: dict[str, tuple[int, float]] = {}
    for beats, pause in looks:
        now += pause
        liveness.observe(beats, now)
        changed_at = {
            member: changed_at[member] if changed_at.get(member, (None, 0))[0] == beat else (beat, now)
            for member, beat in beats.items()
        }
        assert liveness.live(now) == sorted(m for m, (_, at) in changed_at.items() if now - at < TTL_S)


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
