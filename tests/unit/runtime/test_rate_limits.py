from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dynein.runtime.rate_limits import NAMES_MAX, RateLimits


@given(
    st.floats(0.5, 1000),
    st.floats(0.1, 10),
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 2), st.floats(0, 50)), max_size=60),
)
def test_nobody_takes_more_than_its_rate_and_who_waits_as_told_may(
    rate: float, burst_s: float, steps: list[tuple[str, float, float]]
) -> None:
    limits = RateLimits(rate, burst_s)
    now = 0.0
    taken: dict[str, float] = {}
    last: dict[str, float] = {}
    for name, passed_s, cost in steps:
        now += passed_s
        wait_s = limits.take(name, cost, now)
        if wait_s > 0:
            now += wait_s + 1e-6
            assert limits.take(name, cost, now) == 0
        taken[name] = taken.get(name, 0.0) + cost
        last[name] = cost
    for name, total in taken.items():
        assert total - last[name] <= max(1.0, rate * burst_s) + rate * now + 1e-3 + max(cost for _, _, cost in steps)


def test_without_a_rate_there_is_no_limit_and_nothing_is_remembered() -> None:
    limits = RateLimits(0.0, 1.0)
    assert all(limits.take("a", 1e9, 0.0) == 0 for _ in range(100))
    assert len(limits) == 0


def test_any_number_of_names_takes_bounded_memory() -> None:
    limits = RateLimits(1.0, 1.0)
    for number in range(NAMES_MAX + 500):
        limits.take(f"name {number}", 1.0, 0.0)
    assert len(limits) == NAMES_MAX
