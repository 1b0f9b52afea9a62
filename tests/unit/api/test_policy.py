from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynein.api.policy import When, choose_policy, delay_s, due_at_ms, due_by_token_ms
from dynein.core.job import Policy
from dynein.errors import InvalidField

NOW = 1_750_000_000_000
MINUTES_15 = 900_000
POLICIES = st.sampled_from(list(Policy))
WAITS = st.one_of(st.integers(-10_000, 10_000), st.integers(MINUTES_15 - 5, MINUTES_15 + 5), st.integers(0, 10**11))


def placed(
    policy: Policy, wait_ms: int, *, fifo: bool = False, cancellable: bool = False, prepared: bool = False
) -> Policy:
    return choose_policy(policy, NOW + wait_ms, NOW, fifo=fifo, cancellable=cancellable, prepared=prepared)


@pytest.mark.parametrize(
    ("wait_ms", "fifo", "cancellable", "prepared", "expected"),
    [
        (0, False, False, False, Policy.IMMEDIATE),
        (-5, False, False, False, Policy.IMMEDIATE),
        (0, True, False, False, Policy.IMMEDIATE),
        (1, False, False, False, Policy.SQS_DELAYED),
        (MINUTES_15, False, False, False, Policy.SQS_DELAYED),
        (MINUTES_15 + 1, False, False, False, Policy.SCHEDULED),
        (1, True, False, False, Policy.SCHEDULED),
        (0, False, True, False, Policy.SCHEDULED),
        (5_000, False, True, False, Policy.SCHEDULED),
        (0, False, False, True, Policy.SCHEDULED),
    ],
)
def test_auto(wait_ms: int, fifo: bool, cancellable: bool, prepared: bool, expected: Policy) -> None:  # noqa: FBT001
    assert placed(Policy.AUTO, wait_ms, fifo=fifo, cancellable=cancellable, prepared=prepared) is expected


@pytest.mark.parametrize(
    ("policy", "wait_ms", "options", "said"),
    [
        (Policy.IMMEDIATE, 1, {}, "due later"),
        (Policy.SQS_DELAYED, MINUTES_15 + 1, {}, "900 s at most"),
        (Policy.SQS_DELAYED, 1, {"fifo": True}, "FIFO"),
        (Policy.IMMEDIATE, 0, {"cancellable": True}, "cancellable"),
        (Policy.SQS_DELAYED, 5, {"cancellable": True}, "cancellable"),
        (Policy.IMMEDIATE, 0, {"prepared": True}, "prepared token"),
        (Policy.SQS_DELAYED, 5, {"prepared": True}, "prepared token"),
    ],
)
def test_a_policy_that_cannot_be_kept_is_refused(
    policy: Policy, wait_ms: int, options: dict[str, bool], said: str
) -> None:
    with pytest.raises(InvalidField, match=said) as caught:
        placed(policy, wait_ms, **options)
    assert caught.value.field == "policy"
    assert caught.value.fix


@given(POLICIES, WAITS, st.booleans(), st.booleans(), st.booleans())
def test_whatever_is_placed_can_be_kept(
    policy: Policy,
    wait_ms: int,
    fifo: bool,  # noqa: FBT001
    cancellable: bool,  # noqa: FBT001
    prepared: bool,  # noqa: FBT001
) -> None:
    try:
        chosen = placed(policy, wait_ms, fifo=fifo, cancellable=cancellable, prepared=prepared)
    except InvalidField:
        assert policy in {Policy.IMMEDIATE, Policy.SQS_DELAYED}
        return
    assert policy in {Policy.AUTO, chosen}
    if chosen is Policy.IMMEDIATE:
        assert wait_ms <= 0
    if chosen is Policy.SQS_DELAYED:
        assert wait_ms <= MINUTES_15
        assert not fifo or wait_ms <= 0
    if chosen is not Policy.SCHEDULED:
        assert not cancellable
        assert not prepared


@given(st.integers(-(10**6), 10**6))
def test_sqs_never_delays_too_little_nor_a_second_too_much(wait_ms: int) -> None:
    seconds = delay_s(NOW + wait_ms, NOW)
    assert seconds >= 0
    assert seconds * 1000 >= wait_ms
    assert seconds == 0 or (seconds - 1) * 1000 < wait_ms


def test_due_times() -> None:
    def due(run_at: int | str | None = None, delay: float | str | None = None) -> int:
        return due_at_ms(When(run_at, delay), NOW, delay_max_days=10)

    assert due() == NOW
    assert due(delay=1.5) == NOW + 1_500
    assert due(run_at=NOW + 7) == NOW + 7
    assert due(run_at=NOW - 7) == NOW, "what is past is due now, so that lateness counts from now"
    assert due(run_at="1980-01-01T00:00:00Z") == NOW
    assert due(delay="10d") == NOW + 864_000_000


@pytest.mark.parametrize(
    ("when", "field", "said"),
    [
        (When(None, "10d 1ms"), "delay", "more than 10 days ahead"),
        (When(NOW + 864_000_001, None), "run_at", "more than 10 days ahead"),
        (When("9999-12-31T23:59:59Z", None), "run_at", "more than 10 days ahead"),
        (When(10**18, None), "run_at", "more than 10 days ahead"),
        (When(None, 1e300), "delay", "more than 10 days ahead"),
        (When(NOW, 0), "delay", "exclude each other"),
    ],
)
def test_due_times_that_are_refused(when: When, field: str, said: str) -> None:
    with pytest.raises(InvalidField, match=said) as caught:
        due_at_ms(when, NOW, delay_max_days=10)
    assert caught.value.field == field


def test_no_due_time_is_further_than_a_date_can_say() -> None:
    with pytest.raises(InvalidField):
        due_at_ms(When(253_402_300_800_000, None), NOW, delay_max_days=10**9)


def test_a_prepared_token_fixes_the_due_time() -> None:
    assert due_by_token_ms(When(None, None), NOW) == NOW
    assert due_by_token_ms(When(NOW, None), NOW) == NOW
    with pytest.raises(InvalidField, match=r"2025-06-15T15:06:40\.000Z") as caught:
        due_by_token_ms(When(NOW + 1, None), NOW)
    assert caught.value.field == "run_at"
    with pytest.raises(InvalidField, match="Leave it out") as caught:
        due_by_token_ms(When(None, 0), NOW)
    assert caught.value.field == "delay"
