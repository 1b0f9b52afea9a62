"""``delay`` as a caller writes it, in milliseconds, and due times as text. Pure. (``run_at``: `dynein.api.moments`.)

Everything rounds up to the next millisecond: rounding down would be early.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from decimal import Decimal

from dynein.errors import InvalidField

MS_PER_S = 1000
MS_PER_DAY = 86_400_000
DELAY_CHARS_MAX = 64
"""Longest text of a delay."""
EPOCH_MS_MIN = 100_000_000_000
"""Smaller numbers are epoch *seconds* by mistake (this one is 3 March 1973), and must not mean a job due now."""

_UNIT_MS = {
    "ms": 1,
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), MS_PER_S),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60 * MS_PER_S),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600 * MS_PER_S),
    **dict.fromkeys(("d", "day", "days"), MS_PER_DAY),
    **dict.fromkeys(("w", "week", "weeks"), 7 * MS_PER_DAY),
}
_CALENDAR_UNITS = frozenset(("mo", "mon", "month", "months", "y", "yr", "year", "years"))
_UPPER_UNITS = frozenset(unit.upper() for unit in _UNIT_MS) | frozenset(unit.capitalize() for unit in _UNIT_MS)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)", re.ASCII)
_ISO = re.compile(
    r"P(?:(\d+(?:[.,]\d+)?)W)?(?:(\d+(?:[.,]\d+)?)D)?"
    r"(?:T(?:(\d+(?:[.,]\d+)?)H)?(?:(\d+(?:[.,]\d+)?)M)?(?:(\d+(?:[.,]\d+)?)S)?)?",
    re.ASCII,
)
_ISO_UNITS_MS = (7 * MS_PER_DAY, MS_PER_DAY, 3600 * MS_PER_S, 60 * MS_PER_S, MS_PER_S)
_ISO_CALENDAR = re.compile(r"P[\d.,WD]*[YM][^T]*.*", re.ASCII)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_DELAY_FIX = 'Send seconds (90 or 1.5), or text such as "15m", "1h30m", "3d 4h" or ISO 8601 "PT15M".'


def parse_delay_ms(delay: float | str) -> int:
    """How long from now, in milliseconds. A bare number is seconds. Raises `InvalidField` for ``delay``."""
    if isinstance(delay, str):
        return _parse_delay_text(delay.strip())
    if isinstance(delay, int) and delay >= 0:
        return delay * MS_PER_S
    # repr of a float is the shortest text that reads back as it: what the caller wrote, without binary noise.
    milliseconds = up(Decimal(repr(delay)) * MS_PER_S)
    if milliseconds < 0:
        raise InvalidField("delay", "is negative.", "Send 0 or more; a run_at in the past is due at once.")
    return milliseconds


def format_rfc3339(at_ms: int) -> str:
    """UTC with milliseconds: ``2030-01-31T09:00:00.000Z``. For times up to the end of year 9999."""
    second, millisecond = divmod(at_ms, MS_PER_S)
    return f"{_format_second(second)}.{millisecond:03d}Z"


@functools.lru_cache(maxsize=1024)  # the jobs of a batch are often due within a few seconds
def _format_second(at_s: int) -> str:
    return (_EPOCH + dt.timedelta(seconds=at_s)).isoformat()[: len("2030-01-31T09:00:00")]


@functools.lru_cache(maxsize=1024)  # services use few delays
def _parse_delay_text(text: str) -> int:
    if not text or len(text) > DELAY_CHARS_MAX:
        raise InvalidField("delay", f"must have 1 to {DELAY_CHARS_MAX} characters.", _DELAY_FIX)
    if _NUMBER.fullmatch(text):
        return up(Decimal(text) * MS_PER_S)
    if text[0] == "P":
        return _parse_iso(text)
    total = Decimal(0)
    seen: set[int] = set()
    end = 0
    while match := _PART.match(text, end):
        unit_ms = _UNIT_MS.get(match[2])
        if unit_ms is None:
            raise _unknown_unit(match[2])
        if unit_ms in seen:
            raise InvalidField("delay", f"names the unit {match[2]!r} twice.", _DELAY_FIX)
        seen.add(unit_ms)
        total += Decimal(match[1]) * unit_ms
        end = match.end()
    if end != len(text):
        raise InvalidField("delay", f"cannot read {text[end:]!r}.", _DELAY_FIX)
    return up(total)


def _unknown_unit(unit: str) -> InvalidField:
    if unit == "M":
        return InvalidField(
            "delay",
            "the unit 'M' could mean minutes or months.",
            'Send m for minutes ("15m"), or days ("30d"): months have no fixed length.',
        )
    if unit in _UPPER_UNITS:
        return InvalidField("delay", f"the unit {unit!r} is unknown.", f"Send it in lower case: {unit.lower()}.")
    if unit.lower() in _CALENDAR_UNITS:
        return InvalidField(
            "delay", f"the unit {unit!r} has no fixed length.", 'Send days ("30d"), or the date itself as run_at.'
        )
    return InvalidField("delay", f"the unit {unit!r} is unknown.", "Use w, d, h, m, s or ms. " + _DELAY_FIX)


def _parse_iso(text: str) -> int:
    match = _ISO.fullmatch(text)
    if match is None and _ISO_CALENDAR.fullmatch(text):
        raise InvalidField(
            "delay", "years and months have no fixed length.", 'Send days ("P30D"), or the date itself as run_at.'
        )
    if match is None or not any(match.groups()) or text.endswith("T"):
        raise InvalidField("delay", f"{text!r} is not an ISO 8601 duration.", _DELAY_FIX)
    return up(
        sum(
            (
                Decimal(part.replace(",", ".")) * unit_ms
                for part, unit_ms in zip(match.groups(), _ISO_UNITS_MS, strict=True)
                if part is not None
            ),
            Decimal(0),
        )
    )


def up(milliseconds: Decimal) -> int:
    """The next whole millisecond."""
    whole = int(milliseconds)
    return whole + (milliseconds > whole)
