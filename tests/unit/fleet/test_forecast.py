from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynein.core.keys import TriggerKey, bucket_of
from dynein.core.trigger_store import DueCount
from dynein.fleet.forecast import (
    MINUTE_MS,
    MINUTES,
    PAGE_RECORDS_MAX,
    SAMPLE_TRIGGERS,
    SHARDS_MAX,
    STRATA,
    UNITS_MIN,
    Ask,
    Span,
    Survey,
    coming_minutes,
)

T0 = 1_800_000_000_000
"""A full minute."""
MINUTE = Span(T0, T0 + MINUTE_MS - 1)
RECORD_UNITS = 0.05
"""Of 400 bytes."""
PLENTY = 1e9


class Table:
    """Triggers in shards, and what counting them has cost."""

    def __init__(self, due_times_ms: list[int], shard_count: int, rng: random.Random) -> None:
        self.shard_count = shard_count
        self.shards: dict[int, list[TriggerKey]] = {}
        for due_at_ms in sorted(due_times_ms):
            job_id = rng.randbytes(12)
            key = TriggerKey(due_at_ms, job_id, rng.randrange(shard_count))
            self.shards.setdefault(key.shard, []).append(key)
        for keys in self.shards.values():
            keys.sort()
        self.asks: list[Ask] = []
        self.pages_units: list[float] = []

    def count(self, ask: Ask, width_ms: int) -> DueCount:
        self.asks.append(ask)
        assert bucket_of(ask.span.from_ms, width_ms) == bucket_of(ask.span.until_ms, width_ms) == ask.bucket
        keys = self.shards.get(ask.shard, [])
        start = bisect_left(keys, (ask.span.from_ms,))
        end = bisect_left(keys, (ask.span.until_ms + 1,))
        page = keys[start : min(end, start + ask.limit)]
        units = max(UNITS_MIN, len(page) * RECORD_UNITS)
        self.pages_units.append(units)
        return DueCount(len(page), page[-1] if len(page) == ask.limit else None, units)

    def survey(
        self, span: Span = MINUTE, *, width_ms: int = MINUTE_MS, units_max: float = PLENTY, seed: int = 1
    ) -> float:
        self.pages_units.clear()
        visit = random.Random(seed).sample(range(self.shard_count), min(self.shard_count, SHARDS_MAX))
        survey = Survey(span, visit, self.shard_count, bucket_width_ms=width_ms, units_max=units_max)
        while (ask := survey.next_ask()) is not None:
            survey.note(self.count(ask, width_ms))
        assert survey.units == pytest.approx(sum(self.pages_units))
        return survey.estimate


@given(
    due=st.lists(st.integers(T0 - 1000, T0 + MINUTE_MS + 1000), max_size=200),
    shard_count=st.integers(1, SHARDS_MAX),
    width_ms=st.sampled_from([1000, 10_000, 45_000, 60_000, 300_000]),
    span=st.tuples(st.integers(T0, T0 + 30_000), st.integers(T0 + 30_000, T0 + MINUTE_MS - 1)),
    rng=st.randoms(use_true_random=False),
)
def test_what_is_counted_whole_is_exact(
    due: list[int], shard_count: int, width_ms: int, span: tuple[int, int], rng: random.Random
) -> None:
    expected = sum(span[0] <= due_at_ms <= span[1] for due_at_ms in due)
    assert Table(due, shard_count, rng).survey(Span(*span), width_ms=width_ms) == expected


def spread(rng: random.Random) -> int:
    return rng.randrange(MINUTE_MS)


def at_the_full_minute(_: random.Random) -> int:
    return 0


def at_full_seconds(rng: random.Random) -> int:
    return rng.randrange(60) * 1000


def in_one_second(rng: random.Random) -> int:
    return 37_000 + rng.randrange(1000)


def mixed(rng: random.Random) -> int:
    return rng.choice([at_the_full_minute, spread, at_full_seconds])(rng)


@pytest.mark.parametrize("when", [spread, at_the_full_minute, at_full_seconds, in_one_second, mixed])
@pytest.mark.parametrize(("shard_count", "jobs"), [(16, 5_000), (4, 30_000), (512, 20_000), (64, 50_000)])
def test_an_estimate_is_near_whatever_the_jobs_are_spread_like(
    when: Callable[[random.Random], int], shard_count: int, jobs: int
) -> None:
    rng = random.Random(f"{when.__name__} {shard_count}")
    table = Table([T0 + when(rng) for _ in range(jobs)], shard_count, rng)
    estimates = [table.survey(seed=seed) for seed in range(10)]
    assert estimates == pytest.approx([jobs] * 10, rel=0.3)
    assert sum(estimates) / 10 == pytest.approx(jobs, rel=0.25)


@given(
    shard_count=st.integers(1, 300),
    jobs=st.integers(0, 6000),
    units_max=st.floats(0, 200),
    when=st.sampled_from([spread, at_the_full_minute, in_one_second]),
    rng=st.randoms(use_true_random=False),
)
def test_it_ends_with_the_page_that_passes_its_bound(
    shard_count: int, jobs: int, units_max: float, when: Callable[[random.Random], int], rng: random.Random
) -> None:
    table = Table([T0 + when(rng) for _ in range(jobs)], shard_count, rng)
    table.survey(units_max=units_max)
    assert sum(table.pages_units) <= max(units_max, table.pages_units[0]) + max(table.pages_units)
    assert len({ask.shard for ask in table.asks}) <= SHARDS_MAX


def test_a_busy_minute_takes_a_few_shards_and_a_quiet_one_all() -> None:
    rng = random.Random(5)
    busy = Table([T0 + spread(rng) for _ in range(50_000)], 200, rng)
    busy.survey()
    assert SAMPLE_TRIGGERS / 250 <= len(busy.asks) <= 8
    quiet = Table([T0 + spread(rng) for _ in range(50)], 16, rng)
    assert quiet.survey() == 50
    assert len(quiet.asks) == 16


def test_the_rest_of_a_full_page_is_looked_at_in_parts() -> None:
    rng = random.Random(6)
    table = Table([T0 + spread(rng) for _ in range(10 * PAGE_RECORDS_MAX)], 1, rng)
    assert table.survey() == pytest.approx(10 * PAGE_RECORDS_MAX, rel=0.1)
    assert len(table.asks) == 1 + STRATA
    assert table.asks[0].span == MINUTE
    assert sum(ask.span.length_ms for ask in table.asks[1:]) < MINUTE_MS


def test_the_minutes_to_come_begin_now() -> None:
    spans = coming_minutes(T0 + 12_345)
    assert len(spans) == MINUTES
    assert spans[0] == Span(T0 + 12_345, T0 + 59_999)
    assert spans[1] == Span(T0 + 60_000, T0 + 119_999)
    assert spans[-1].until_ms == T0 + MINUTES * MINUTE_MS - 1
