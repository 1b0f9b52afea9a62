"""Posting what a process has counted."""

from __future__ import annotations

import pytest

from dynein.core.ledger import Counts, Flow
from dynein.errors import AccessDenied, Unavailable
from dynein.ledger.poster import CROWDED_WINDOWS, POSTING_WINDOWS_MAX
from dynein.testing import FakeLedger, ManualClock
from tests.unit.ledger.world import INTERVAL_S, WINDOW_MS, Process


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start_ms=1_000_000 * WINDOW_MS)


@pytest.fixture
def process(clock: ManualClock) -> Process:
    return Process(clock, FakeLedger())


async def posted(ledger: FakeLedger) -> Counts:
    total = Counts()
    for counts in (await ledger.read(0, 2**60)).values():
        total = total.plus(counts)
    return total


async def test_nothing_to_post_costs_no_call(process: Process) -> None:
    assert 0.8 * INTERVAL_S <= await process.poster.run_once() <= 1.2 * INTERVAL_S
    assert process.posts() == 0


async def test_what_was_counted_is_posted_in_one_call(process: Process) -> None:
    now_ms = process.clock.now_ms()
    process.tally.add_all(Flow.ACCEPTED, [now_ms, now_ms + WINDOW_MS])
    process.tally.add(Flow.DELIVERED, now_ms)
    await process.poster.run_once()
    assert process.posts() == 1
    assert await process.ledger.read(now_ms, now_ms + 2 * WINDOW_MS) == {
        now_ms: Counts(accepted=1, delivered=1),
        now_ms + WINDOW_MS: Counts(accepted=1),
    }
    assert process.poster.is_clear


@pytest.mark.parametrize("effect", [True, False])
async def test_a_posting_that_fails_is_repeated_and_counts_once(process: Process, effect: bool) -> None:  # noqa: FBT001
    fail = process.ledger.faults.lose_answer_next if effect else process.ledger.faults.fail_next
    fail("post", Unavailable("no response"), times=2)
    process.tally.add(Flow.ACCEPTED, process.clock.now_ms())
    for _ in range(2):
        with pytest.raises(Unavailable):
            await process.poster.run_once()
        process.tally.add(Flow.ACCEPTED, process.clock.now_ms())
    await process.poster.run_once()
    assert await posted(process.ledger) == Counts(accepted=1), "what was counted since waits its turn"
    await process.poster.run_once()
    assert await posted(process.ledger) == Counts(accepted=3)


async def test_many_windows_go_in_turns_and_the_pause_is_short_while_they_crowd(process: Process) -> None:
    now_ms = process.clock.now_ms()
    process.tally.add_all(Flow.ACCEPTED, [now_ms + n * WINDOW_MS for n in range(CROWDED_WINDOWS + 30)])
    assert await process.poster.run_once() < 0.2 * INTERVAL_S
    assert process.ledger.faults.calls[-1].entries == POSTING_WINDOWS_MAX
    assert await process.poster.run_once() > 0.2 * INTERVAL_S, "not crowded any more"


async def test_closing_posts_everything(process: Process) -> None:
    now_ms = process.clock.now_ms()
    process.tally.add_all(Flow.ACCEPTED, [now_ms + n * WINDOW_MS for n in range(60)])
    process.ledger.faults.lose_answer_next("post", Unavailable("no response"))
    await process.clock.result_of(process.poster.close(5.0))
    assert await posted(process.ledger) == Counts(accepted=60)
    assert process.poster.is_clear


async def test_closing_ends_in_time_all_the_same(process: Process, caplog: pytest.LogCaptureFixture) -> None:
    process.tally.add(Flow.ACCEPTED, process.clock.now_ms())
    process.ledger.faults.go_down(Unavailable("no response"))
    await process.clock.result_of(process.poster.close(2.0))
    assert process.clock.monotonic() == 2.0
    assert "missing from the ledger" in caplog.text
    stuck = process.ledger.faults
    stuck.come_up()
    stuck.hold_before_next("post")
    await process.clock.result_of(process.poster.close(2.0))
    assert process.clock.monotonic() == 4.0


async def test_closing_does_not_wait_for_a_permission(process: Process, caplog: pytest.LogCaptureFixture) -> None:
    process.tally.add(Flow.ACCEPTED, process.clock.now_ms())
    process.ledger.faults.go_down(AccessDenied("no"))
    await process.clock.result_of(process.poster.close(2.0))
    assert process.clock.monotonic() < 2.0
    assert process.posts() == 1
    assert "missing from the ledger" in caplog.text
