from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from dynein.runtime.backoff import pause_s


@given(
    failures=st.integers(1, 10_000),
    first_s=st.floats(0.001, 10),
    max_s=st.floats(0.001, 3600),
    seed=st.integers(0, 1 << 32),
)
def test_a_pause_lies_between_half_and_all_of_its_ceiling(
    failures: int, first_s: float, max_s: float, seed: int
) -> None:
    ceiling = min(max_s, first_s * 2.0 ** min(failures - 1, 60))
    assert ceiling / 2 <= pause_s(failures, first_s=first_s, max_s=max_s, rng=random.Random(seed)) <= ceiling


def test_the_ceiling_doubles_until_it_is_the_longest() -> None:
    class Highest(random.Random):
        def random(self) -> float:
            return 1.0

    pauses = [pause_s(n, first_s=0.1, max_s=1.0, rng=Highest()) for n in range(1, 7)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_two_members_of_a_fleet_do_not_retry_together() -> None:
    pauses = {pause_s(3, first_s=1, max_s=60, rng=random.Random(seed)) for seed in range(20)}
    assert len(pauses) == 20
