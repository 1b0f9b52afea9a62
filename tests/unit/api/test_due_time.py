from __future__ import annotations

import contextlib
import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynein.api.due_time import format_rfc3339, parse_delay_ms, parse_run_at_ms
from dynein.errors import InvalidField

UNITS_MS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
INSTANTS = st.datetimes(
    dt.datetime(1973, 4, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
    dt.datetime(9999, 12, 31),  # noqa: DTZ001
    timezones=st.just(dt.UTC),
)


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
        ("3M", "no fixed length"),
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


@pytest.mark.parametrize(
    ("run_at", "expected_ms"),
    [
        (1_896_080_400_000, 1_896_080_400_000),
        ("2030-01-31T09:00:00Z", 1_896_080_400_000),
        ("2030-01-31T10:00:00+01:00", 1_896_080_400_000),
        ("2030-01-31t09:00:00.000z", 1_896_080_400_000),
        ("2030-01-31 03:30:00-05:30", 1_896_080_400_000),
        ("2030-01-31T09:00:00.0001Z", 1_896_080_400_001),
        ("2030-01-31T09:00:00.999999999Z", 1_896_080_401_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        ("1969-12-31T23:59:59Z", 0),
        ("0001-01-01T00:00:00+23:59", 0),
    ],
)
def test_times_are_read(run_at: int | str, expected_ms: int) -> None:
    assert parse_run_at_ms(run_at) == expected_ms


@pytest.mark.parametrize(
    ("run_at", "said"),
    [
        ("2030-01-31T09:00:00", "no UTC offset"),
        ("2030-01-31", "not an RFC 3339"),
        ("2030-02-30T09:00:00Z", "exists"),
        ("2030-01-31T24:00:00Z", "exists"),
        ("2030-01-31T09:00:61Z", "exists"),
        ("2030-01-31T09:00:00+24:00", "exists"),
        ("2030-01-31T09:00:00+01:60", "exists"),
        ("2030-01-31T09:00:00.Z", "not an RFC 3339"),
        ("tomorrow", "not an RFC 3339"),
        ("1896080400000", "not an RFC 3339"),
        ("", "not an RFC 3339"),
        (-1, "negative"),
        (1_896_080_400, "looks like seconds"),
    ],
)
def test_times_that_are_none_say_why(run_at: int | str, said: str) -> None:
    with pytest.raises(InvalidField, match=said) as caught:
        parse_run_at_ms(run_at)
    assert caught.value.field == "run_at"
    assert caught.value.fix


@given(INSTANTS, st.integers(-23 * 60 - 59, 23 * 60 + 59))
def test_a_time_means_the_same_in_every_offset(instant: dt.datetime, offset_min: int) -> None:
    since_epoch = instant - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)  # exact, as a float of seconds is not
    at_ms = -(-since_epoch // dt.timedelta(milliseconds=1))
    local = instant.replace(tzinfo=None) + dt.timedelta(minutes=offset_min) if instant.year < 9999 else None
    assert parse_run_at_ms(instant.isoformat()) == at_ms
    if local is not None:
        sign = "-" if offset_min < 0 else "+"
        text = f"{local.isoformat()}{sign}{abs(offset_min) // 60:02}:{abs(offset_min) % 60:02}"
        assert parse_run_at_ms(text) == at_ms


@given(st.integers(100_000_000_000, 253_402_300_799_999))
def test_formatting_round_trips(at_ms: int) -> None:
    assert parse_run_at_ms(format_rfc3339(at_ms)) == at_ms


def test_format() -> None:
    formatted: Any = format_rfc3339(1_896_080_400_007)
    assert formatted == "2030-01-31T09:00:00.007Z"
