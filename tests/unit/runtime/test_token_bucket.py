import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynein.runtime.token_bucket import TokenBucket

RATES = st.floats(min_value=0.1, max_value=1e5)


def test_it_starts_with_its_burst() -> None:
    bucket = TokenBucket(10, 0.0, burst_s=1.0)
    assert bucket.wait_s(0.0) == 0
    bucket.take(9, 0.0)
    assert bucket.wait_s(0.0) == 0
    bucket.take(1, 0.0)
    assert bucket.wait_s(0.0) == pytest.approx(0.1)


def test_a_debt_is_paid_before_the_next_is_let_in() -> None:
    bucket = TokenBucket(10, 0.0, burst_s=1.0)
    bucket.take(60, 0.0)
    assert bucket.wait_s(0.0) == pytest.approx(5.1)
    assert bucket.wait_s(5.2) == 0


def test_a_new_rate_counts_from_now_on() -> None:
    bucket = TokenBucket(10, 0.0, burst_s=1.0)
    bucket.take(30, 0.0)
    bucket.set_rate(5, 1.0)
    assert bucket.wait_s(1.0) == pytest.approx(11 / 5)


def test_a_lower_rate_takes_away_what_is_beyond_its_burst() -> None:
    bucket = TokenBucket(100, 0.0, burst_s=1.0)
    bucket.set_rate(10, 0.0)
    bucket.take(10, 0.0)
    assert bucket.wait_s(0.0) > 0


def test_time_that_goes_backwards_gives_and_takes_nothing() -> None:
    bucket = TokenBucket(10, 100.0, burst_s=1.0)
    bucket.take(20, 100.0)
    assert bucket.wait_s(50.0) == pytest.approx(1.1)
    assert bucket.wait_s(100.0) == pytest.approx(1.1)


@given(
    rate=RATES,
    burst_s=st.floats(min_value=0.01, max_value=10),
    steps=st.lists(st.tuples(st.floats(min_value=0, max_value=10), st.integers(min_value=1, max_value=500))),
)
def test_no_stretch_of_time_gives_more_than_rate_and_burst_and_one_debt(
    rate: float, burst_s: float, steps: list[tuple[float, int]]
) -> None:
    bucket = TokenBucket(rate, 0.0, burst_s=burst_s)
    now = 0.0
    taken: list[tuple[float, int]] = []
    for pause_s, tokens in steps:
        now += pause_s
        if bucket.wait_s(now) == 0:
            bucket.take(tokens, now)
            taken.append((now, tokens))
    for first, (began, _) in enumerate(taken):
        total = 0
        for at, tokens in taken[first:]:
            bound = max(1.0, rate * burst_s) + rate * (at - began)
            # Whoever was let in last may have gone into debt.
            assert total <= bound * (1 + 1e-9) + 1e-6
            total += tokens


@given(rate=RATES, takes=st.lists(st.integers(min_value=1, max_value=500), min_size=1))
def test_the_wait_it_names_is_enough_and_not_much_too_long(rate: float, takes: list[int]) -> None:
    bucket = TokenBucket(rate, 0.0, burst_s=1.0)
    now = 0.0
    for tokens in takes:
        wait_s = bucket.wait_s(now)
        if wait_s > 0:
            assert bucket.wait_s(now + wait_s * 0.9) > 0
            now += wait_s * (1 + 1e-9) + 1e-6
        assert bucket.wait_s(now) <= 1e-6
        bucket.take(tokens, now)
