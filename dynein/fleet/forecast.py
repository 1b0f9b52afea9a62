"""How many triggers are due in each of the coming minutes, by counting as few as will do. Pure.

A job's shard is a hash of its random id, so a few shards represent all: `Survey` visits shards until it has counted
`SAMPLE_TRIGGERS` of them or seen all shards, and scales up. The error of an estimate that rests on n counted triggers
is about 1/sqrt(n): 3 % for a busy minute; a quiet one is counted whole, and exact.

A page counts `PAGE_RECORDS_MAX` records at most. Where a shard has more of them in a minute, what is left of the minute
is cut into `STRATA` parts and the start of each is counted; and so on with each part that would make up much of the
whole by extrapolation. Jobs come in bursts, often at the full minute, and a burst must not be taken for the whole
minute's rate.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from dynein.core.keys import TriggerKey, bucket_of
from dynein.core.trigger_store import DueCount

MINUTES = 30
MINUTE_MS = 60_000
SAMPLE_TRIGGERS = 1000
SHARDS_MAX = 64
"""Shards visited for one minute. Should so many hold less than `SAMPLE_TRIGGERS`, then the minute is quiet anyway."""
PAGE_RECORDS_MAX = 1000
STRATA = 4
CUTS_MAX = 6
"""Then a part is 15 ms long."""
MUCH = 1 / 3
UNITS_MIN = 0.5
"""DynamoDB: what an eventually consistent query that finds nothing costs. (Some emulators report no cost at all.)"""
_ID_BYTES = 6


class Span(NamedTuple):
    """Due times, both included."""

    from_ms: int
    until_ms: int

    @property
    def length_ms(self) -> int:
        """How many due times that is."""
        return self.until_ms - self.from_ms + 1


def coming_minutes(now_ms: int) -> list[Span]:
    """What is left of the current minute, and the minutes after it."""
    first = now_ms // MINUTE_MS
    whole = [Span(minute * MINUTE_MS, (minute + 1) * MINUTE_MS - 1) for minute in range(first, first + MINUTES)]
    return [whole[0]._replace(from_ms=now_ms), *whole[1:]]


class Ask(NamedTuple):
    """One call of `dynein.core.trigger_store.TriggerStore.count_due`."""

    bucket: int
    shard: int
    span: Span
    limit: int
    cuts: int
    """How often its span was cut."""


class _Rest(NamedTuple):
    """What a page has left uncounted."""

    ask: Ask
    span: Span
    guess: float | None
    """How many triggers, were they as dense as those counted; unknown after a page of one millisecond: a burst there
    does not show how dense what follows is."""


class Survey:
    """Estimates how many triggers of a table are due in one ``span``: call what `next_ask` says, `note` it, repeat.

    ``shards`` are those it may visit, in random order, of ``shard_count``. ``units_max``: read units after which it
    visits no further shard and counts no strata; it visits one shard in any case.
    """

    def __init__(
        self, span: Span, shards: Sequence[int], shard_count: int, *, bucket_width_ms: int, units_max: float
    ) -> None:
        self._parts = _by_bucket(span, bucket_width_ms)
        self._to_visit = list(reversed(shards))
        self._shard_count = shard_count
        self._units_max = units_max
        self._asks: list[Ask] = []
        self._rests: list[_Rest] = []
        self._visited = 0
        self._counted = 0
        self._estimated = 0.0
        self._before_shard = 0.0
        self._page_units = UNITS_MIN
        self.units = 0.0
        """Read units taken so far."""

    @property
    def estimate(self) -> float:
        """Triggers due in the span, in all shards. Ask when `next_ask` has no more."""
        assert self._visited
        return self._estimated * self._shard_count / self._visited

    def next_ask(self) -> Ask | None:
        """What to count now; ``None`` when the estimate is done."""
        if not self._asks:
            self._cut_or_guess()
        if not self._asks:
            enough = self._counted >= SAMPLE_TRIGGERS or not self._affords(len(self._parts))
            if not self._to_visit or (self._visited and enough):
                return None
            shard = self._to_visit.pop()
            self._visited += 1
            self._before_shard = self._estimated
            self._asks = [Ask(bucket, shard, part, PAGE_RECORDS_MAX, cuts=0) for bucket, part in self._parts]
        return self._asks[-1]

    def note(self, found: DueCount) -> None:
        """The result of the last `next_ask`."""
        ask = self._asks.pop()
        units = max(UNITS_MIN, found.read_units)
        self.units += units
        self._page_units = max(self._page_units, units)
        self._counted += found.triggers
        if found.reached is None:
            self._estimated += found.triggers
            return
        read = ask.span._replace(until_ms=found.reached.due_at_ms)
        # The last due time was read in part: up to this job id, and ids are random.
        within = found.triggers * read.length_ms / (read.length_ms - 1 + _fraction(found.reached))
        rest = ask.span._replace(from_ms=read.until_ms + 1)
        self._estimated += within
        if rest.length_ms:
            guess = within * rest.length_ms / read.length_ms if read.length_ms > 1 else None
            self._rests.append(_Rest(ask, rest, guess))

    def _cut_or_guess(self) -> None:
        """Count again what matters of the rests of one shard's pages; take the guess for the others."""
        rests, self._rests = self._rests, []
        shard_total = self._estimated - self._before_shard + sum(rest.guess or 0.0 for rest in rests)
        for ask, span, guess in rests:
            matters = guess is None or guess > shard_total * MUCH
            if matters and ask.cuts < CUTS_MAX and self._affords(1):
                stratum = ask._replace(limit=PAGE_RECORDS_MAX // STRATA, cuts=ask.cuts + 1)
                self._asks += [stratum._replace(span=part) for part in _cut(span)]
            else:
                self._estimated += guess or 0.0

    def _affords(self, pages: int) -> bool:
        return self.units + pages * self._page_units <= self._units_max


def _by_bucket(span: Span, bucket_width_ms: int) -> list[tuple[int, Span]]:
    buckets = range(bucket_of(span.from_ms, bucket_width_ms), bucket_of(span.until_ms, bucket_width_ms) + 1)
    return [
        (
            bucket,
            Span(max(span.from_ms, bucket * bucket_width_ms), min(span.until_ms, (bucket + 1) * bucket_width_ms - 1)),
        )
        for bucket in buckets
    ]


def _cut(span: Span) -> list[Span]:
    """Up to `STRATA` parts of about the same length."""
    bounds = sorted({span.from_ms + span.length_ms * part // STRATA for part in range(STRATA + 1)})
    return [Span(start, end - 1) for start, end in itertools.pairwise(bounds)]


def _fraction(key: TriggerKey) -> float:
    """The position of a job id among all, above 0 and up to 1."""
    number = int.from_bytes(key.job_id[:_ID_BYTES].ljust(_ID_BYTES, b"\0"), "big")
    return (number + 1) / (1 << (8 * _ID_BYTES))
