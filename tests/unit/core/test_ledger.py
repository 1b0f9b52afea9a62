"""Counting, taking and judging."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dynein.core import ledger
from dynein.core.ledger import FLOWS, NOT_KEPT, Closing, Counts, Flow, Tally, balance_of, rows

WINDOW_MS = 1000
NOW_MS = 1_000_000
counts = st.builds(Counts, *[st.integers(-3, 5)] * len(FLOWS))
due_times = st.integers(NOW_MS - 20 * WINDOW_MS, NOW_MS + 200 * WINDOW_MS)


def everything(tally: Tally, windows_max: int = 2) -> dict[int, Counts]:
    taken: dict[int, Counts] = {}
    while len(tally):
        for start_ms, window in tally.take(NOW_MS, windows_max).items():
            assert start_ms not in taken, "nothing was counted meanwhile"
            taken[start_ms] = window
    return taken


def test_the_flows_are_the_fields_in_their_order() -> None:
    assert Counts._fields == FLOWS
    assert [Counts(*range(10, 16))[flow] for flow in Flow] == list(range(10, 16))


# --- the tally -------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(Flow), st.lists(due_times, max_size=6))), st.integers(2, 30))
def test_what_is_counted_is_taken_once_in_its_window(batches: list[tuple[Flow, list[int]]], windows_max: int) -> None:
    tally = Tally(WINDOW_MS)
    wanted: dict[int, Counter[Flow]] = {}
    for flow, dues in batches:
        tally.add_all(flow, dues)
        for due_ms in dues:
            wanted.setdefault(due_ms - due_ms % WINDOW_MS, Counter())[flow] += 1
    assert everything(tally, windows_max) == {
        start_ms: Counts(*(counted[flow] for flow in Flow)) for start_ms, counted in wanted.items()
    }


def test_what_is_taken_back_before_it_is_taken_out_leaves_nothing() -> None:
    tally = Tally(WINDOW_MS)
    tally.add(Flow.ACCEPTED, NOW_MS, 2)
    tally.add(Flow.ACCEPTED, NOW_MS + 1, -2)
    assert tally.take(NOW_MS, 10) == {}
    assert len(tally) == 0


def test_windows_that_are_over_soon_go_first_and_then_those_that_have_waited() -> None:
    tally = Tally(WINDOW_MS)
    for ahead in (50, 90, 10, 1, -3, 0, 30):
        tally.add(Flow.ACCEPTED, NOW_MS + ahead * WINDOW_MS)
    assert list(tally.take(NOW_MS, 4)) == [NOW_MS + ahead * WINDOW_MS for ahead in (1, -3, 0, 50)]
    tally.add(Flow.ACCEPTED, NOW_MS + 50 * WINDOW_MS)
    assert list(tally.take(NOW_MS, 4)) == [NOW_MS + ahead * WINDOW_MS for ahead in (90, 10, 30, 50)]


def test_a_far_window_comes_along_however_many_near_ones_there_are() -> None:
    tally = Tally(WINDOW_MS)
    far_ms = NOW_MS + 99 * WINDOW_MS
    tally.add(Flow.ACCEPTED, far_ms)
    for ago in range(30):
        tally.add(Flow.DELIVERED, NOW_MS - ago * WINDOW_MS)
    taken = tally.take(NOW_MS, 25)
    assert len(taken) == 25
    assert far_ms in taken


def test_its_memory_is_bounded_and_the_farthest_are_forgotten() -> None:
    tally = Tally(WINDOW_MS)
    windows = ledger.WINDOWS_MAX + 5
    for ahead in range(windows):
        tally.add(Flow.ACCEPTED, NOW_MS + ahead * WINDOW_MS)
    assert len(tally) <= ledger.WINDOWS_MAX
    assert 0 < tally.forgotten_jobs == windows - len(tally)
    near = [NOW_MS + ahead * WINDOW_MS for ahead in range(1000)]
    assert list(tally.take(NOW_MS, 1000)) == near


def test_where_no_ledger_is_kept_nothing_is_counted() -> None:
    NOT_KEPT.add(Flow.ACCEPTED, NOW_MS)
    NOT_KEPT.add_all(Flow.ACCEPTED, [NOW_MS])
    assert len(NOT_KEPT) == 0


# --- judging ---------------------------------------------------------------------------------------------------------


@given(st.lists(counts))
def test_gaps_and_surpluses_are_summed_apart_and_nothing_is_left_over(windows: list[Counts]) -> None:
    balance = balance_of(windows)
    assert balance.gap_jobs - balance.surplus_jobs == balance.flows.pending
    assert balance.gap_jobs == sum(window.pending for window in windows if window.pending > 0)
    assert balance.surplus_jobs >= 0


def test_one_windows_duplicate_does_not_hide_anothers_loss() -> None:
    lost, doubled = Counts(accepted=5, delivered=4), Counts(accepted=5, delivered=6)
    assert balance_of([lost, doubled]) == (Counts(accepted=10, delivered=10), 1, 1)


def test_every_way_in_and_out() -> None:
    assert Counts(accepted=7, moved_in=3, moved_out=1, delivered=4, cancelled=3, dead_lettered=2).pending == 0


@given(st.integers(0, 10**13), st.integers(1, 10**7), st.integers(0, 10**7), st.integers(0, 10**8))
def test_a_window_closes_a_grace_after_its_end(now_ms: int, window_ms: int, grace_ms: int, look_back_ms: int) -> None:
    from_ms, until_ms = Closing(window_ms, grace_ms).closed(now_ms, look_back_ms)
    assert from_ms % window_ms == until_ms % window_ms == 0
    assert until_ms == 0 or until_ms + grace_ms <= now_ms, "the last closed window has ended a grace ago"
    assert until_ms + window_ms + grace_ms > now_ms, "and the next has not"
    assert from_ms == 0 or look_back_ms <= until_ms - from_ms < look_back_ms + window_ms


def test_rows_say_which_windows_are_closed() -> None:
    closing = Closing(WINDOW_MS, 5 * WINDOW_MS)
    windows = {NOW_MS - ago * WINDOW_MS: Counts(accepted=ago) for ago in (7, 6, 5, 0)}
    shown = rows(windows, closing, NOW_MS)
    assert [row.closed for row in shown] == [True, True, False, False]
    assert shown[0] == (NOW_MS - 7 * WINDOW_MS, NOW_MS - 6 * WINDOW_MS, True, Counts(accepted=7))
