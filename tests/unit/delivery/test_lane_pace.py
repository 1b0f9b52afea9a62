"""When a lane may try again, and when it must give up: by ``now`` alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynein.delivery.lane_pace import UNTRIED_MAX_S, LanePace
from dynein.settings import Settings

BUDGET_S = 60.0
FIRST_S, MAX_S = 0.1, 5.0
SETTINGS = Settings(backoff_first_s=FIRST_S, backoff_max_s=MAX_S, retry_budget_s=BUDGET_S)
START = 1000.0


@pytest.fixture
def pace() -> LanePace:
    return LanePace(SETTINGS, random.Random(7))


def test_a_lane_that_has_not_failed_may_try_at_once(pace: LanePace) -> None:
    assert pace.pause_s(START) <= 0
    assert not pace.is_over_budget(START)
    assert pace.failing_s(START) == 0.0


def test_each_failure_doubles_the_pause_up_to_its_maximum(pace: LanePace) -> None:
    now = START
    for failures in range(1, 20):
        pace.failed(now)
        ceiling = min(MAX_S, FIRST_S * 2 ** (failures - 1))
        assert pace.failures == failures
        assert ceiling / 2 <= pace.pause_s(now) <= ceiling * 1.001
        now += pace.pause_s(now)


def test_failures_during_a_pause_are_one_step(pace: LanePace) -> None:
    """Calls that were in flight together have met one outage."""
    for _ in range(4):
        pace.failed(START)
    assert pace.failures == 1
    assert pace.pause_s(START) <= FIRST_S


def test_a_success_ends_the_failure_and_its_pause(pace: LanePace) -> None:
    pace.failed(START)
    pace.succeeded()
    assert pace.failing_since is None
    assert pace.failures == 0
    assert pace.pause_s(START) <= 0


def test_the_budget_runs_from_the_first_failure(pace: LanePace) -> None:
    pace.failed(START)
    pace.failed(START + BUDGET_S - 1)
    assert pace.failing_s(START + BUDGET_S - 1) == BUDGET_S - 1
    assert not pace.is_over_budget(START + BUDGET_S - 1)
    assert pace.is_over_budget(START + BUDGET_S)


def test_a_batch_that_partly_goes_through_starts_the_budget_anew_but_not_the_pauses(pace: LanePace) -> None:
    pace.failed(START)
    pace.failed(START + 10, partly=True)
    assert pace.failures == 2
    assert not pace.is_over_budget(START + 10 + BUDGET_S - 1)
    assert pace.is_over_budget(START + 10 + BUDGET_S)


def test_a_lane_that_was_not_tried_for_long_starts_anew(pace: LanePace) -> None:
    for second in range(5):
        pace.failed(START + second)
    later = START + 4 + MAX_S + UNTRIED_MAX_S
    pace.failed(later)
    assert pace.is_over_budget(later), "just not long enough"
    pace.failed(2 * later)
    assert pace.failures == 1
    assert not pace.is_over_budget(2 * later)


def test_a_lane_over_budget_is_given_up_until_it_may_be_tried_again(pace: LanePace) -> None:
    pace.failed(START)
    assert not pace.is_given_up(START)
    now = START + BUDGET_S
    pace.failed(now)
    assert pace.is_given_up(now)
    assert not pace.is_given_up(now + pace.pause_s(now))
    pace.succeeded()
    assert not pace.is_given_up(now)


@given(st.lists(st.tuples(st.floats(0, 20), st.sampled_from(["failed", "partly", "succeeded"])), max_size=60))
def test_it_never_pauses_longer_than_the_maximum_and_never_forgets_a_failure(steps: list[tuple[float, str]]) -> None:
    pace, now = LanePace(SETTINGS, random.Random(1)), START
    for seconds, how in steps:
        now += seconds
        if how == "succeeded":
            pace.succeeded()
        else:
            pace.failed(now, partly=how == "partly")
        assert pace.pause_s(now) <= MAX_S
        assert (pace.failing_since is None) == (how == "succeeded") == (pace.failures == 0)
