"""For how long marks have stood, as responses show them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynein.ingest.standing import Standing

SETTLE_S = 2.0


def test_a_mark_counts_from_when_it_was_first_seen() -> None:
    standing = Standing(SETTLE_S)
    standing.see(100, 10.0)
    standing.see(100, 11.0)
    standing.see(90, 11.5)
    assert standing.wait_s(100, 11.0) == 1.0
    assert standing.wait_s(100, 12.0) == 0.0


def test_a_higher_mark_counts_for_itself() -> None:
    standing = Standing(SETTLE_S)
    standing.see(100, 10.0)
    standing.see(200, 11.0)
    assert standing.wait_s(100, 11.0) == 1.0
    assert standing.wait_s(101, 11.0) == 2.0
    assert standing.wait_s(101, 13.0) == 0.0


def test_what_the_record_says_has_stood_needs_no_wait() -> None:
    standing = Standing(SETTLE_S)
    standing.see(100, 10.0, settled_mark_ms=60)
    assert standing.wait_s(60, 10.0) == 0.0
    assert standing.wait_s(61, 10.0) == SETTLE_S


def test_it_is_asked_only_for_what_a_mark_covers() -> None:
    standing = Standing(SETTLE_S)
    standing.see(100, 10.0)
    with pytest.raises(StopIteration):
        standing.wait_s(101, 10.0)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 8)), min_size=1, max_size=30), st.integers(0, 50))
def test_it_agrees_with_a_full_record(steps: list[tuple[int, int]], due: int) -> None:
    standing, seen, now = Standing(SETTLE_S), [], 0.0
    for mark, quarters in steps:
        now += quarters / 4
        standing.see(mark, now)
        seen.append((mark, now))
        covering = [at for mark, at in seen if mark >= due]
        if covering:
            assert standing.wait_s(due, now) == max(0.0, covering[0] + SETTLE_S - now)
