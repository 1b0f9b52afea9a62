from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dynein.fleet.staleness import Staleness

TTL_S = 8.0


def live(staleness: Staleness[str], now: float) -> list[str]:
    return sorted(staleness.changed_within(TTL_S, now))


def test_a_member_seen_for_the_first_time_is_alive() -> None:
    staleness: Staleness[str] = Staleness()
    staleness.observe({"b": 41, "a": 7}, now=100)
    assert live(staleness, 100) == ["a", "b"]


def test_a_heartbeat_that_is_stale_for_the_ttl_is_dead_and_one_that_moves_is_not() -> None:
    staleness: Staleness[str] = Staleness()
    staleness.observe({"a": 1, "b": 1}, now=0)
    staleness.observe({"a": 1, "b": 2}, now=4)
    assert live(staleness, 7.9) == ["a", "b"]
    assert live(staleness, 8) == ["b"]
    staleness.observe({"a": 2, "b": 2}, now=9)
    assert live(staleness, 9) == ["a", "b"]


def test_one_who_left_is_gone_at_the_next_poll() -> None:
    staleness: Staleness[str] = Staleness()
    staleness.observe({"a": 1, "b": 1}, now=0)
    staleness.observe({"b": 1}, now=1)
    assert live(staleness, 1) == ["b"]


@given(st.lists(st.tuples(st.dictionaries(st.sampled_from("abc"), st.integers(0, 3)), st.floats(0, 5)), max_size=20))
def test_a_member_is_alive_exactly_if_its_heartbeat_changed_within_the_ttl(
    polls: list[tuple[dict[str, int], float]],
) -> None:
    staleness: Staleness[str] = Staleness()
    now = 0.0
    changed_at: dict[str, tuple[int, float]] = {}
    for heartbeats, pause in polls:
        now += pause
        staleness.observe(heartbeats, now)
        changed_at = {
            member: changed_at[member] if changed_at.get(member, (None, 0))[0] == heartbeat else (heartbeat, now)
            for member, heartbeat in heartbeats.items()
        }
        assert live(staleness, now) == sorted(m for m, (_, at) in changed_at.items() if now - at < TTL_S)
