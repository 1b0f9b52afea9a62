"""``run_at`` and ``timezone``: what the common languages print, local times, and what could mean two moments."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import zoneinfo
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynein.api.moments import parse_run_at_ms
from dynein.errors import InvalidField

INSTANTS = st.datetimes(
    dt.datetime(1973, 4, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
    dt.datetime(9999, 12, 31),  # noqa: DTZ001
    timezones=st.just(dt.UTC),
)


@pytest.mark.parametrize(
    ("run_at", "expected_ms"),
    [
        (1_896_080_400_000, 1_896_080_400_000),
        # JavaScript: Date, JSON, Temporal
        ("2030-01-31T09:00:00.000Z", 1_896_080_400_000),
        ("Thu, 31 Jan 2030 09:00:00 GMT", 1_896_080_400_000),
        ("Thu Jan 31 2030 10:00:00 GMT+0100 (Central European Standard Time)", 1_896_080_400_000),
        ("Thu Jan 31 2030 10:00:00 GMT+0100 (Mitteleuropäische Normalzeit)", 1_896_080_400_000),
        ("2030-01-31T10:00:00+01:00[Europe/Berlin][u-ca=gregory]", 1_896_080_400_000),
        # Java: Instant, OffsetDateTime, ZonedDateTime, Date in UTC
        ("2030-01-31T09:00:00.000000001Z", 1_896_080_400_001),
        ("2030-01-31T09:00Z", 1_896_080_400_000),
        ("2030-01-31T10:00+01:00", 1_896_080_400_000),
        ("2030-01-31T10:00+01:00[Europe/Berlin]", 1_896_080_400_000),
        ("2030-01-31T09:00Z[UTC]", 1_896_080_400_000),
        ("Thu Jan 31 09:00:00 UTC 2030", 1_896_080_400_000),
        # Lua and others that know floats only
        (1_896_080_400_000.0, 1_896_080_400_000),
        (1_896_080_400_000.25, 1_896_080_400_001),
        ("1896080400000", 1_896_080_400_000),
        ("1896080400000.0", 1_896_080_400_000),
        ("1.8960804e+12", 1_896_080_400_000),
        # PHP: ATOM, ISO8601, RFC2822, COOKIE, RFC850-like
        ("2030-01-31T10:00:00+01:00", 1_896_080_400_000),
        ("2030-01-31T10:00:00+0100", 1_896_080_400_000),
        ("Thu, 31 Jan 2030 10:00:00 +0100", 1_896_080_400_000),
        ("Thursday, 31-Jan-2030 09:00:00 UTC", 1_896_080_400_000),
        # Python: isoformat, str, email; PostgreSQL; Go
        ("2030-01-31 10:00:00.000001+01:00", 1_896_080_400_001),
        ("2030-01-31T09:53:28+00:53:28", 1_896_080_400_000),
        ("Thu, 31 Jan 2030 09:00:00 -0000", 1_896_080_400_000),
        ("2030-01-31 10:00:00+01", 1_896_080_400_000),
        ("2030-01-31 10:00:00 +0100 CET", 1_896_080_400_000),
        ("2030-01-31 09:00:00 UTC", 1_896_080_400_000),
        # ISO 8601, basic format; a comma before the fraction
        ("20300131T090000Z", 1_896_080_400_000),
        ("20300131T1000+0100", 1_896_080_400_000),
        ("2030-01-31T09:00:00,5Z", 1_896_080_400_500),
        (" 2030-01-31T09:00:00Z ", 1_896_080_400_000),
        ("2030-01-31T09:00:00Z", 1_896_080_400_000),
        ("2030-01-31t09:00:00.000z", 1_896_080_400_000),
        ("2030-01-31 03:30:00-05:30", 1_896_080_400_000),
        ("2030-01-31T09:00:00.0001Z", 1_896_080_400_001),
        ("2030-01-31T09:00:00.999999999Z", 1_896_080_401_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        ("1969-12-31T23:59:59Z", 0),
        ("0001-01-01T00:00:00+23:59", 0),
    ],
)
def test_times_are_read(run_at: float | str, expected_ms: int) -> None:
    assert parse_run_at_ms(run_at) == expected_ms


@pytest.mark.parametrize(
    ("run_at", "said"),
    [
        ("2030-01-31T09:00:00", "no UTC offset"),
        ("2030-01-31", "no time of day"),
        ("20300131", "looks like seconds"),
        ("09:00", "no date"),
        ("2030-01-31T09:00:00 CEST", "abbreviation CEST, which stands for more than one UTC offset"),
        ("Thu Jan 31 09:00:00 PST 2030", "abbreviation PST"),
        ("Thu Jan 31 09:00:00 2030", "no UTC offset"),
        ("31.01.2030 09:00", "cannot be read|can be read"),
        ("01/31/2030 09:00 AM", "abbreviation AM"),
        ("2030-01-31T09:00:00[Mars/Olympus]", "time zone that is not known"),
        ("2030-01-31T09:00:00+02:00[Europe/Berlin]", "has the UTC offset .02:00, but Europe/Berlin has another"),
        ("2030-01-31T09:00:00Z[!x-new=1]", "tag .!x-new=1., which is not understood"),
        ("1896080400", "looks like seconds"),
        ("1896080400.25", "looks like seconds"),
        (1896080400.25, "looks like seconds"),
        ("x" * 129, "more than any time has"),
        ("2030-02-30T09:00:00Z", "exists"),
        ("2030-01-31T24:00:00Z", "exists"),
        ("2030-01-31T09:00:61Z", "exists"),
        ("2030-01-31T09:00:00+24:00", "does not exist"),
        ("2030-01-31T09:00:00+01:60", "does not exist"),
        ("2030-01-31T09:00:00.Z", "can be read"),
        ("tomorrow", "can be read"),
        ("", "can be read"),
        (-1, "negative"),
        (1_896_080_400, "looks like seconds"),
    ],
)
def test_times_that_are_none_say_why(run_at: float | str, said: str) -> None:
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


EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
ZONES = st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"])
NEAR = st.datetimes(dt.datetime(1980, 1, 1), dt.datetime(2100, 1, 1))  # noqa: DTZ001 - local times


@pytest.mark.parametrize(
    ("local", "zone", "utc"),
    [
        ("2027-06-30T12:00", "Europe/Berlin", "2027-06-30T10:00:00Z"),
        ("2027-01-30T12:00", "Europe/Berlin", "2027-01-30T11:00:00Z"),
        ("2027-06-30 12:00:00.5", "Asia/Kolkata", "2027-06-30T06:30:00.5Z"),
        ("Wed Jun 30 12:00:00 2027", "Europe/Berlin", "2027-06-30T10:00:00Z"),
        ("20270630T120000", "UTC", "2027-06-30T12:00:00Z"),
        # skipped: the offset before the change, so an hour later by the clock
        ("2027-03-28T02:30", "Europe/Berlin", "2027-03-28T01:30:00Z"),
        ("2027-03-28T03:30", "Europe/Berlin", "2027-03-28T01:30:00Z"),
        ("2027-03-14T02:00", "America/New_York", "2027-03-14T07:00:00Z"),
        # twice: the first
        ("2027-10-31T02:30", "Europe/Berlin", "2027-10-31T00:30:00Z"),
        ("2027-11-07T01:30", "America/New_York", "2027-11-07T05:30:00Z"),
        # with an offset the second can be meant
        ("2027-10-31T02:30+01:00", "Europe/Berlin", "2027-10-31T01:30:00Z"),
        # an offset that agrees, and UTC, which is a moment whatever the zone
        ("2027-06-30T12:00+02:00", "Europe/Berlin", "2027-06-30T10:00:00Z"),
        ("2027-06-30T12:00Z", "Europe/Berlin", "2027-06-30T12:00:00Z"),
    ],
)
def test_a_local_time_with_its_zone(local: str, zone: str, utc: str) -> None:
    assert parse_run_at_ms(local, zone) == parse_run_at_ms(utc)
    if local.startswith("2027-") and "." not in local:
        assert parse_run_at_ms(f"{local}[{zone}]") == parse_run_at_ms(utc), "RFC 9557"


@pytest.mark.parametrize(
    ("run_at", "zone", "field", "said"),
    [
        ("2027-06-30T12:00", "Europe/Berln", "timezone", "Did you mean Europe/Berlin"),
        ("2027-06-30T12:00", "CEST", "timezone", "no time zone that is known"),
        ("2027-06-30T12:00", "+02:00", "timezone", "no time zone that is known"),
        ("2027-06-30T12:00", "", "timezone", "no time zone that is known"),
        ("2027-06-30T12:00", "../../etc/passwd", "timezone", "no time zone that is known"),
        ("2027-06-30T12:00", "Europe", "timezone", "no time zone that is known"),
        ("2027-06-30T12:00", "/etc/localtime", "timezone", "no time zone that is known"),
        ("2027-06-30T12:00", "x" * 100_000, "timezone", "no time zone that is known"),
        (1_828_000_000_000, "Europe/Berlin", "timezone", "says nothing about a number"),
        ("1828000000000", "Europe/Berlin", "timezone", "says nothing about a number"),
        ("2027-06-30T12:00+01:00", "Europe/Berlin", "run_at", "another one at that time"),
        ("2027-06-30T12:00[Europe/Paris]", "Asia/Tokyo", "timezone", "another one than Europe/Paris"),
    ],
)
def test_a_zone_that_does_not_fit(run_at: float | str, zone: str, field: str, said: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parse_run_at_ms(run_at, zone)
    assert said in f"{caught.value.problem} {caught.value.fix}"
    assert caught.value.field == field
    assert len(str(caught.value)) < 400


@given(NEAR, ZONES)
def test_a_local_time_is_read_as_the_language_reads_it(local: dt.datetime, zone: str) -> None:
    meant = local.replace(tzinfo=zoneinfo.ZoneInfo(zone))
    at_ms = parse_run_at_ms(local.isoformat(), zone)
    assert at_ms == -((EPOCH - meant.astimezone(dt.UTC)) // dt.timedelta(milliseconds=1))


@given(NEAR, ZONES, st.integers(0, 1))
def test_a_moment_with_offset_and_zone_is_read_whichever_of_two_it_is(local: dt.datetime, zone: str, fold: int) -> None:
    meant = (
        local.replace(tzinfo=zoneinfo.ZoneInfo(zone), fold=fold).astimezone(dt.UTC).astimezone(zoneinfo.ZoneInfo(zone))
    )
    at_ms = -((EPOCH - meant.astimezone(dt.UTC)) // dt.timedelta(milliseconds=1))
    for text in (f"{meant.isoformat()}[{zone}]", meant.isoformat(), str(meant)):
        assert parse_run_at_ms(text) == at_ms
    assert parse_run_at_ms(meant.isoformat(), zone) == at_ms
    assert parse_run_at_ms(format_datetime(meant)) == int(meant.timestamp()) * 1000, "RFC 2822 has whole seconds"


@given(st.integers(100_000_000_000, 253_402_300_799_999))
def test_a_number_is_read_in_any_notation(at_ms: int) -> None:
    for number in (at_ms, float(at_ms), str(at_ms), f"{at_ms}.0", json.dumps(float(at_ms)), f"{at_ms:.20e}"):
        assert parse_run_at_ms(number) == at_ms


@given(
    st.text(max_size=40) | st.from_regex(r"[0-9TZ:+\-\[\]A-Za-z ]{1,40}", fullmatch=True),
    st.none() | st.text(max_size=20),
)
def test_no_text_is_read_as_anything_but_a_moment(text: str, zone: str | None) -> None:
    with contextlib.suppress(InvalidField):
        assert parse_run_at_ms(text, zone) >= 0
