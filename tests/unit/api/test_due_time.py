from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynein.api.due_time import format_rfc3339, parse_delay_ms
from dynein.api.moments import parse_run_at_ms
from dynein.errors import InvalidField

UNITS_MS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}


@pytest.mark.parametrize(
    ("delay", "expected_ms"),
    [
        (0, 0),
        (90, 90_000),
        (1.5, 1_500),
        (0.29, 290),
        (4.35, 4_350),
        (0.0001, 1),
        ("0", 0),
        ("90", 90_000),
        ("2.5", 2_500),
        ("15m", 900_000),
        ("1h30m", 5_400_000),
        ("3d 4h", 273_600_000),
        ("1 hour 5 minutes", 3_900_000),
        ("250ms", 250),
        ("0.0001s", 1),
        ("1.5h", 5_400_000),
        (" 2w ", 1_209_600_000),
        ("PT15M", 900_000),
        ("P3DT4H", 273_600_000),
        ("P1W", 604_800_000),
        ("PT0.5S", 500),
        ("PT1,5H", 5_400_000),
        ("PT0S", 0),
    ],
)
def test_delays_are_read(delay: float | str, expected_ms: int) -> None:
    assert parse_delay_ms(delay) == expected_ms


@pytest.mark.parametrize(
    ("delay", "said"),
    [
        (-1, "negative"),
        (-0.001, "negative"),
        ("", "1 to 64"),
        ("9" * 65, "1 to 64"),
        ("soon", "cannot read"),
        ("15x", "unit 'x' is unknown"),
        ("1e3", "unit 'e' is unknown"),
        ("15m!", "cannot read '!'"),
        ("-5m", "cannot read"),
        ("5m 5m", "twice"),
        ("5m 1min", "twice"),
        ("2y", "no fixed length"),
        ("3 months", "no fixed length"),
        ("15M", "minutes or months"),
        ("15S", "Send it in lower case: s"),
        ("2 Hours", "Send it in lower case: hours"),
        ("P1Y", "no fixed length"),
        ("P3M", "no fixed length"),
        ("P1Y2M3DT4H", "no fixed length"),
        ("P", "not an ISO 8601"),
        ("PT", "not an ISO 8601"),
        ("P1DT", "not an ISO 8601"),
        ("PT5", "not an ISO 8601"),
        ("PTM", "not an ISO 8601"),
        ("P-1D", "not an ISO 8601"),
        ("\u0661\u0665m", "cannot read"),
    ],
)
def test_delays_that_are_none_say_why(delay: float | str, said: str) -> None:
    with pytest.raises(InvalidField, match=said) as caught:
        parse_delay_ms(delay)
    assert caught.value.field == "delay"
    assert caught.value.fix


@given(
    st.dictionaries(st.sampled_from(sorted(UNITS_MS)), st.integers(0, 10_000), min_size=1), st.sampled_from(["", " "])
)
def test_any_sum_of_units_is_read_as_that_sum(parts: dict[str, int], between: str) -> None:
    text = between.join(f"{number}{unit}" for unit, number in parts.items())
    assert parse_delay_ms(text) == sum(number * UNITS_MS[unit] for unit, number in parts.items())


@given(st.integers(0, 99), st.integers(0, 999), st.integers(0, 99), st.integers(0, 99), st.integers(0, 59_999))
def test_iso_durations_are_read(weeks: int, days: int, hours: int, minutes: int, milliseconds: int) -> None:
    text = f"P{weeks}W{days}DT{hours}H{minutes}M{milliseconds / 1000:.3f}S"
    expected = weeks * 604_800_000 + days * 86_400_000 + hours * 3_600_000 + minutes * 60_000 + milliseconds
    assert parse_delay_ms(text) == expected


@given(st.floats(0, 1e9))
def test_a_delay_is_never_cut_short_and_at_most_a_millisecond_longer(seconds: float) -> None:
    assert 0 <= parse_delay_ms(seconds) - seconds * 1000 < 1 + 1e-3


@given(st.text(max_size=20))
def test_no_text_is_read_as_anything_but_a_delay(text: str) -> None:
    with contextlib.suppress(InvalidField):
        assert parse_delay_ms(text) >= 0


@given(st.integers(100_000_000_000, 253_402_300_799_999))
def test_formatting_round_trips(at_ms: int) -> None:
    assert parse_run_at_ms(format_rfc3339(at_ms)) == at_ms


def test_format() -> None:
    formatted: Any = format_rfc3339(1_896_080_400_007)
    assert formatted == "2030-01-31T09:00:00.007Z"
