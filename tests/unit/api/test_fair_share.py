from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynein.api.fair_share import CALLERS_MAX, CAPACITY_MIN, WINDOW_S, FairShare, fair_share


@given(st.lists(st.floats(0, 1000), max_size=20), st.floats(0.1, 5000))
def test_shares_fill_the_capacity_and_whoever_asks_for_less_gets_it_all(asked: list[float], capacity: float) -> None:
    share = fair_share(asked, capacity)
    given_out = [min(demand, share) for demand in asked]
    if math.isinf(share):
        assert sum(asked) <= capacity * 1.000001
    else:
        assert sum(given_out) == pytest.approx(capacity)
        assert share >= capacity / len(asked) * 0.999999, "nobody's share is less than an equal part"


def ask(shares: FairShare, caller: str, requests: int) -> int:
    """How many are admitted."""
    return sum(shares.admit(caller, 1.0) for _ in range(requests))


def test_while_the_process_keeps_up_all_are_admitted() -> None:
    shares = FairShare()
    for _ in range(10):
        assert ask(shares, "a", 1000) == 1000
        shares.end_window(overloaded=False)
    assert shares.capacity is None


def test_a_flood_is_cut_and_a_modest_caller_is_not() -> None:
    shares = FairShare()
    flood, modest = [], []
    for window in range(200):
        # The process keeps up with 100 requests a window.
        flood.append(ask(shares, "flood", 1000))
        modest.append(ask(shares, "modest", 10))
        shares.end_window(overloaded=flood[-1] + modest[-1] > 100)
        del window
    assert modest == [10] * 200
    settled = flood[50:]
    assert 60 <= sum(settled) / len(settled) <= 110, "about what the process keeps up with"


def test_a_window_that_a_busy_process_ended_late_counts_for_what_it_was() -> None:
    shares = FairShare()
    ask(shares, "a", 400)
    shares.end_window(overloaded=True, length_s=4 * WINDOW_S)
    assert shares.capacity is not None
    assert 80 <= shares.capacity <= 100, "a little less than it has done in a window"


def test_while_what_was_too_much_is_worked_off_the_capacity_stays() -> None:
    shares = FairShare()
    ask(shares, "a", 400)
    shares.end_window(overloaded=True)
    capacity = shares.capacity
    for _ in range(20):
        ask(shares, "a", 400)
        shares.end_window(overloaded=True, draining=True)
    assert shares.capacity == capacity


def test_in_a_crowd_whoever_asks_for_most_gets_less_and_others_as_before() -> None:
    shares = FairShare()
    for _ in range(2):
        ask(shares, "flood", 400)
        ask(shares, "modest", 10)
        shares.end_window(overloaded=True)
    crowded = sum(shares.admit("flood", 1.0, crowded=True) for _ in range(400))
    assert sum(shares.admit("modest", 1.0, crowded=True) for _ in range(10)) == 10
    shares.end_window(overloaded=True, draining=True)
    assert 0 < crowded < 0.6 * ask(shares, "flood", 400)


def test_equal_callers_get_equal_shares() -> None:
    shares = FairShare()
    for _ in range(50):
        served = [ask(shares, caller, 500) for caller in "abcd"]
        shares.end_window(overloaded=sum(served) > 200)
    assert max(served) - min(served) <= 1


def test_something_is_served_however_slow_everything_is() -> None:
    shares = FairShare()
    for _ in range(100):
        served = ask(shares, "a", 1000)
        shares.end_window(overloaded=True)
    assert served >= CAPACITY_MIN


def test_when_it_is_over_there_is_no_limit_any_more() -> None:
    shares = FairShare()
    ask(shares, "a", 1000)
    shares.end_window(overloaded=True)
    assert ask(shares, "a", 10_000) < 10_000
    for _ in range(40):
        ask(shares, "a", 20)
        shares.end_window(overloaded=False)
    assert ask(shares, "a", 10_000) == 10_000


def test_any_number_of_callers_takes_bounded_memory() -> None:
    shares = FairShare()
    for number in range(3 * CALLERS_MAX):
        shares.admit(f"caller {number}", 1.0)
    assert len(shares._asked) <= CALLERS_MAX + 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 300), st.booleans()), max_size=60))
def test_a_callers_first_request_of_a_window_is_always_served(steps: list[tuple[str, int, bool]]) -> None:
    shares = FairShare()
    for caller, requests, late in steps:
        assert shares.admit(caller, 1.0)
        ask(shares, caller, requests)
        shares.end_window(overloaded=late)
