"""``run_at`` and ``timezone`` as a caller writes them, to a due time in milliseconds since the epoch. Pure.

Read is what the common languages print of a moment (ISO 8601 and RFC 3339, RFC 9557 with a zone in brackets, RFC 2822,
JavaScript's ``Date``, numbers with or without a fraction). A time without a UTC offset needs a time zone. What could
mean two moments is refused, and the error says what is missing.

Where clocks are changed, by one rule (that of RFC 5545 and of ``java.time``): a local time that is skipped is read with
the offset before the change, so 02:30 becomes 03:30; of a local time that comes twice, the first is meant.

Everything rounds up to the next millisecond: rounding down would be early.
"""

from __future__ import annotations

import datetime as dt
import difflib
import functools
import re
import zoneinfo
from decimal import Decimal
from typing import NamedTuple

from dynein.api.due_time import EPOCH_MS_MIN, MS_PER_S, up
from dynein.errors import InvalidField

TIME_CHARS_MAX = 128
"""Longest text of a time: that of a ``Date`` in JavaScript, with the zone's name in another language."""
ZONE_CHARS_MAX = 64

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, start=1)}
_OFFSET = r"[Zz]|UTC|GMT|UT|(?:UTC|GMT)?[+-]\d\d(?::?\d\d(?::?\d\d)?)?"
_CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,32}))?)?"
_WEEKDAY = r"(?:[A-Z][a-z]{2,8},?[ ])?"
_MONTH = rf"(?P<month_name>{'|'.join(_MONTHS)})"
_TAGS = r"(?P<tags>(?:\[[^\[\]]{1,70}\])*)"
_YMD = r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)"
_COMPACT = r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)[Tt](?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)?"
_SPACED_OFFSET = rf"(?:[ ](?P<offset>{_OFFSET}))?"
_FORMATS = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        # 2027-06-30T12:00:00.5+02:00[Europe/Berlin], 2027-06-30 12:00 +0200 CEST
        rf"{_YMD}[Tt ]{_CLOCK}(?:[ ]?(?P<offset>{_OFFSET})(?:[ ][A-Z]{{2,5}})?)?{_TAGS}",
        # 20270630T120000Z
        rf"{_COMPACT}(?P<offset>{_OFFSET})?{_TAGS}",
        # Wed, 30 Jun 2027 12:00:00 +0200; Wednesday, 30-Jun-2027 12:00:00 UTC
        rf"{_WEEKDAY}(?P<day>\d\d?)[- ]{_MONTH}[- ](?P<year>\d{{4}})[ ]{_CLOCK}{_SPACED_OFFSET}",
        # Wed Jun 30 2027 12:00:00 GMT+0200 (Central European Summer Time)
        rf"{_WEEKDAY}{_MONTH}[ ]+(?P<day>\d\d?)[ ](?P<year>\d{{4}})[ ]{_CLOCK}{_SPACED_OFFSET}",
        # Wed Jun 30 12:00:00 UTC 2027
        rf"{_WEEKDAY}{_MONTH}[ ]+(?P<day>\d\d?)[ ]{_CLOCK}{_SPACED_OFFSET}[ ](?P<year>\d{{4}})",
    )
)
_COMMENT = re.compile(r" \([^()]*\)\Z")
_NUMBER = re.compile(r"\d{1,20}(?:\.\d{1,20})?(?:[eE]\+?\d{1,2})?", re.ASCII)
_ABBREVIATION = re.compile(r"(?<![\w/])(?!UTC|GMT|UT\b)[A-Z]{2,5}(?![\w/])", re.ASCII)
_DATE = re.compile(r"\d{4}-?\d\d-?\d\d", re.ASCII)
_TIME = re.compile(r"\d\d?:\d\d(?::\d\d)?", re.ASCII)
_ZONE = re.compile(rf"[A-Za-z][A-Za-z0-9_+\-/]{{0,{ZONE_CHARS_MAX - 1}}}", re.ASCII)
_HOURS_MAX, _MINUTES_MAX = 23, 59
_FIX = 'Send RFC 3339 with an offset ("2030-01-31T09:00:00Z") or milliseconds since 1970 (1896080400000).'
_ZONE_FIX = 'Send a name of the IANA time zone database, such as "Europe/Berlin".'


class _Read(NamedTuple):
    """A time as it was written."""

    local: dt.datetime
    """Marked as UTC, which it is only if the offset is 0."""
    leap: bool
    fraction: str | None
    offset: str | None
    zone: str | None


def parse_run_at_ms(run_at: float | str, timezone: str | None = None) -> int:
    """A moment in milliseconds since the epoch. ``timezone`` is that of a ``run_at`` without a UTC offset.

    Raises `InvalidField` for ``run_at`` or ``timezone``.
    """
    if isinstance(run_at, str):
        text = run_at.strip()
        if not _NUMBER.fullmatch(text):
            return _parse_text(text, timezone)
        number = Decimal(text)
    else:
        number = Decimal(repr(run_at))  # of a float: the shortest text that reads back as it
    if timezone is not None:
        raise InvalidField(
            "timezone",
            "says nothing about a number, which is the same moment everywhere.",
            "Leave it out, or send run_at as text.",
        )
    return _checked(number)


def _checked(number: Decimal) -> int:
    if number < 0:
        raise InvalidField("run_at", "is negative.", _FIX)
    if number < EPOCH_MS_MIN:
        raise InvalidField(
            "run_at",
            f"{number} milliseconds since the epoch lies before 1973-03-03; it looks like seconds.",
            "Multiply seconds by 1000.",
        )
    return up(number)


def _parse_text(text: str, timezone: str | None) -> int:
    read = _read(text)
    zone = _zone(read.zone, "run_at") if read.zone is not None else None
    given = _zone(timezone, "timezone") if timezone is not None else None
    if read.zone is not None and timezone is not None and read.zone != timezone:
        raise InvalidField("timezone", f"is another one than {read.zone} in run_at.", "Send the one that is meant.")
    if read.offset is None:
        here = zone or given
        if here is None:
            raise InvalidField(
                "run_at",
                "has no UTC offset.",
                'End it with "Z" or an offset such as "+02:00", or send its time zone as timezone ("Europe/Berlin").',
            )
        # Python's fold 0: the offset before a change, for skipped times and for the first of two.
        offset = here.utcoffset(read.local.replace(tzinfo=None))
        offset_s = 0 if offset is None else round(offset.total_seconds())
    else:
        offset_s = _offset_s(read.offset)
    at_s = (read.local - _EPOCH) // dt.timedelta(seconds=1) + read.leap - offset_s
    if read.offset is not None and (zone or given) is not None:
        _check_agrees(at_s, read.offset, offset_s, zone or given)
    at_ms = at_s * MS_PER_S + (up(Decimal("0." + read.fraction) * MS_PER_S) if read.fraction else 0)
    return max(at_ms, 0)  # before 1970: in the past, like 1970


def _read(text: str) -> _Read:
    if len(text) > TIME_CHARS_MAX:
        raise InvalidField("run_at", f"has {len(text)} characters, more than any time has.", _FIX)
    bare = _COMMENT.sub("", text)
    found = next((match for form in _FORMATS if (match := form.fullmatch(bare))), None)
    if found is None:
        raise _unreadable(bare)
    part = found.groupdict()
    month = _MONTHS[part["month_name"]] if part.get("month_name") else int(part["month"])
    second = int(part["second"] or 0)
    leap = second == 60  # noqa: PLR2004 - RFC 3339, 5.7: a leap second is written :60
    try:
        day = dt.datetime(int(part["year"]), month, int(part["day"]), tzinfo=dt.UTC)
        local = day.replace(hour=int(part["hour"]), minute=int(part["minute"]), second=second - leap)
    except ValueError as error:
        raise InvalidField("run_at", "is not a date and time that exists.", _FIX) from error
    return _Read(local, leap, part.get("fraction"), part.get("offset"), _zone_in(part.get("tags") or ""))


def _unreadable(text: str) -> InvalidField:
    """What is missing, or not clear."""
    abbreviation = _ABBREVIATION.search(text)
    if _DATE.fullmatch(text):
        return InvalidField("run_at", "has no time of day.", _FIX)
    if _TIME.fullmatch(text):
        return InvalidField("run_at", "has no date.", _FIX)
    if abbreviation is not None and any(character.isdigit() for character in text):
        return InvalidField(
            "run_at",
            f"has the abbreviation {abbreviation[0]}, which stands for more than one UTC offset.",
            'Write the offset in its place ("+02:00"), or send the time zone as timezone ("Europe/Berlin").',
        )
    return InvalidField("run_at", "is not a date and time that can be read.", _FIX)


def _zone_in(tags: str) -> str | None:
    """The time zone of RFC 9557's tags: ``[Europe/Berlin]``. Others, such as ``[u-ca=iso8601]``, say how to show it."""
    for tag in re.findall(r"\[(!?)([^\]]*)\]", tags):
        critical, name = tag
        if "=" not in name:
            return str(name)
        if critical and name not in {"u-ca=iso8601", "u-ca=gregory"}:
            raise InvalidField("run_at", f"has the tag [!{name}], which is not understood here.", "Send it without.")
    return None


def _offset_s(offset: str) -> int:
    numbers = [int(number) for number in re.findall(r"\d\d", offset)]
    if not numbers:
        return 0  # Z, UTC
    hours, minutes, seconds = [*numbers, 0, 0][:3]
    if hours > _HOURS_MAX or minutes > _MINUTES_MAX or seconds > _MINUTES_MAX:
        raise InvalidField("run_at", f"has the UTC offset {offset}, which does not exist.", _FIX)
    return (-1 if "-" in offset else 1) * (hours * 3600 + minutes * 60 + seconds)


def _check_agrees(at_s: int, offset: str, offset_s: int, zone: dt.tzinfo | None) -> None:
    """An offset and a zone that are both given mean the same moment. ``Z`` is a moment whatever the zone."""
    if not any(character.isdigit() for character in offset):
        return
    try:
        there = (_EPOCH + dt.timedelta(seconds=at_s)).astimezone(zone).utcoffset()
    except OverflowError:
        return
    if there is not None and abs(there.total_seconds() - offset_s) >= 60:  # noqa: PLR2004 - LMT
        raise InvalidField(
            "run_at",
            f"has the UTC offset {offset}, but {zone} has another one at that time.",
            "Send the offset or the time zone, whichever is meant.",
        )


def _zone(name: str, field: str) -> dt.tzinfo:
    found = _find_zone(name) if _ZONE.fullmatch(name) else None
    if found is None:
        close = difflib.get_close_matches(name[:ZONE_CHARS_MAX], _zones(), n=1, cutoff=0.7)
        hint = f" Did you mean {close[0]}?" if close else ""
        problem = "is no time zone that is known." if field == "timezone" else "has a time zone that is not known."
        raise InvalidField(field, problem, _ZONE_FIX + hint)
    return found


@functools.lru_cache(maxsize=1024)  # misses too: each would look into several directories
def _find_zone(name: str) -> dt.tzinfo | None:
    try:
        return zoneinfo.ZoneInfo(name)
    except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
        return None


@functools.cache
def _zones() -> tuple[str, ...]:
    return tuple(sorted(zoneinfo.available_timezones()))
