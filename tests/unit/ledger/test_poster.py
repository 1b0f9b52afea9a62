"""The agents of the ledger: posting, and reading what was posted."""

from __future__ import annotations

import asyncio
import random

import pytest

from dynein.core.ledger import Closing, Counts, Flow, Posting, Tally
from dynein.errors import Unavailable
from dynein.ledger.export import STALE_MS, LedgerMetrics
from dynein.ledger.poster import CROWDED_WINDOWS, POSTING_WINDOWS_MAX, LedgerBook
from dynein.ledger.reader import LedgerObserver
from dynein.observability.telemetry import Telemetry
from dynein.testing import FakeLedger, FakeTriggerTable, ManualClock

WINDOW_MS = 60_000
GRACE_MS = 300_000
INTERVAL_S = 30.0


class Process:
    """One process's book and tally."""

    def __init__(self, clock: ManualClock, ledger: FakeLedger, name: str = "p") -> None:
        self.clock = clock
        self.ledger = ledger
        self.tally = Tally(WINDOW_MS)
        self._name, self._postings = name, 0
        self.book = LedgerBook(self.tally, ledger, clock, random.Random(1), interval_s=INTERVAL_S, new_id=self._new_id)

    def _new_id(self) -> str:
        self._postings += 1
        return f"{self._name}-{self._postings}"

    def posts(self) -> int:
        return sum(call.verb == "post" for call in self.ledger.faults.calls)


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


# --- posting ---------------------------------------------------------------------------------------------------------


async def test_nothing_to_post_costs_no_call(process: Process) -> None:
    assert 0.8 * INTERVAL_S <= await process.book.run_once() <= 1.2 * INTERVAL_S
    assert process.posts() == 0


async def test_what_was_counted_is_posted_in_one_call(process: Process) -> None:
    now_ms = process.clock.now_ms()
    process.tally.add_all(Flow.ACCEPTED, [now_ms, now_ms + WINDOW_MS])
    process.tally.add(Flow.DELIVERED, now_ms)
    await process.book.run_once()
    assert process.posts() == 1
    assert await process.ledger.read(now_ms, now_ms + 2 * WINDOW_MS) == {
        now_ms: Counts(accepted=1, delivered=1),
        now_ms + WINDOW_MS: Counts(accepted=1),
    }
    assert process.book.clear


@pytest.mark.parametrize("effect", [True, False])
async def test_a_posting_that_fails_is_repeated_and_counts_once(process: Process, effect: bool) -> None:  # noqa: FBT001
    fail = process.ledger.faults.lose_answer_next if effect else process.ledger.faults.fail_next
    fail("post", Unavailable("no answer"), times=2)
    process.tally.add(Flow.ACCEPTED, process.clock.now_ms())
    for _ in range(2):
        with pytest.raises(Unavailable):
            await process.book.run_once()
        process.tally.add(Flow.ACCEPTED, process.clock.now_ms())
    await process.book.run_once()
    assert await posted(process.ledger) == Counts(accepted=1), "what was counted since waits its turn"
    await process.book.run_once()
    assert await posted(process.ledger) == Counts(accepted=3)


async def test_many_windows_go_in_turns_and_the_pause_is_short_while_they_crowd(process: Process) -> None:
    now_ms = process.clock.now_ms()
    process.tally.add_all(Flow.ACCEPTED, [now_ms + n * WINDOW_MS for n in range(CROWDED_WINDOWS + 30)])
    assert await process.book.run_once() < 0.2 * INTERVAL_S
    assert process.ledger.faults.calls[-1].entries == POSTING_WINDOWS_MAX
    assert await process.book.run_once() > 0.2 * INTERVAL_S, "not crowded any more"


async def test_closing_posts_everything(process: Process) -> None:
    now_ms = process.clock.now_ms()
    process.tally.add_all(Flow.ACCEPTED, [now_ms + n * WINDOW_MS for n in range(60)])
    process.ledger.faults.lose_answer_next("post", Unavailable("no answer"))
    await process.clock.result_of(process.book.close(5.0))
    assert await posted(process.ledger) == Counts(accepted=60)
    assert process.book.clear


async def test_closing_ends_in_time_all_the_same(process: Process, caplog: pytest.LogCaptureFixture) -> None:
    process.tally.add(Flow.ACCEPTED, process.clock.now_ms())
    process.ledger.faults.go_down(Unavailable("no answer"))
    await process.clock.result_of(process.book.close(2.0))
    assert process.clock.monotonic() == 2.0
    assert "missing from the ledger" in caplog.text
    stuck = process.ledger.faults
    stuck.come_up()
    stuck.hold_before_next("post")
    await process.clock.result_of(process.book.close(2.0))
    assert process.clock.monotonic() == 4.0


# --- reading ---------------------------------------------------------------------------------------------------------


class Fleet:
    """A ledger, a roster, and one process that may be told to observe."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.ledger = FakeLedger()
        self.roster = FakeTriggerTable(clock)
        self.told = True
        self.telemetry = Telemetry()
        metrics = LedgerMetrics(clock, None)
        self.telemetry.add_of_the_fleet(metrics)
        self.observer = LedgerObserver(
            self.ledger,
            self.roster,
            clock,
            metrics,
            Closing(WINDOW_MS, GRACE_MS),
            is_observer=lambda: self.told,
            interval_s=60.0,
            roles=("dispatcher", "ingester"),
            member_ttl_s=8.0,
        )
        self._posted = 0

    async def count(self, ago: int, counts: Counts) -> None:
        """In the window that began ``ago`` windows ago."""
        self._posted += 1
        start_ms = self.clock.now_ms() // WINDOW_MS * WINDOW_MS - ago * WINDOW_MS
        await self.ledger.post(Posting(str(self._posted), {start_ms: counts}))

    def value(self, name: str, **labels: str) -> float | None:
        return self.telemetry.registry.get_sample_value(f"dynein_ledger_{name}", labels)


@pytest.fixture
def fleet(clock: ManualClock) -> Fleet:
    return Fleet(clock)


async def test_closed_windows_are_judged_and_open_ones_are_not(fleet: Fleet) -> None:
    await fleet.count(1440 + 5 + 2, Counts(accepted=100))  # longer ago than a day
    await fleet.count(20, Counts(accepted=3, delivered=1, dead_lettered=1))
    await fleet.count(10, Counts(accepted=3, delivered=5))
    await fleet.count(5, Counts(accepted=50))  # its grace is not over
    assert await fleet.observer.run_once() == 60.0
    assert (fleet.value("gap_jobs"), fleet.value("surplus_jobs")) == (1, 2)
    assert [fleet.value("jobs", flow=flow) for flow in ("accepted", "delivered", "dead_lettered")] == [6, 6, 1]
    assert fleet.value("timestamp_seconds") == fleet.clock.now_ms() / 1000
    await fleet.clock.advance(60.0)
    await fleet.observer.run_once()
    assert fleet.value("gap_jobs") == 51, "a minute later it is"


async def test_a_job_delivered_late_closes_its_gap(fleet: Fleet) -> None:
    await fleet.count(20, Counts(accepted=1))
    await fleet.observer.run_once()
    assert fleet.value("gap_jobs") == 1
    await fleet.count(20, Counts(delivered=1))
    await fleet.observer.run_once()
    assert fleet.value("gap_jobs") == 0


async def test_only_the_observer_says_anything(fleet: Fleet) -> None:
    fleet.told = False
    await fleet.observer.run_once()
    assert fleet.value("gap_jobs") is None
    assert not fleet.ledger.faults.calls
    fleet.told = True
    await fleet.observer.run_once()
    assert fleet.value("gap_jobs") == 0
    fleet.told = False
    await fleet.observer.run_once()
    assert fleet.value("gap_jobs") is None
    assert b"dynein_ledger_gap_jobs " not in fleet.telemetry.exposition()


async def test_what_could_not_be_read_for_long_is_not_said_any_more(fleet: Fleet) -> None:
    await fleet.observer.run_once()
    fleet.ledger.faults.go_down(Unavailable("no answer"))
    with pytest.raises(Unavailable):
        await fleet.observer.run_once()
    assert fleet.value("gap_jobs") == 0
    await fleet.clock.advance(STALE_MS / 1000 + 1)
    assert fleet.value("gap_jobs") is None


async def test_processes_that_ended_without_leaving_are_counted(fleet: Fleet) -> None:
    await fleet.roster.heartbeat("dispatcher", "dead", 7)
    await fleet.roster.heartbeat("dispatcher", "alive", 1)
    await fleet.observer.run_once()
    assert fleet.value("undrained_processes", role="dispatcher") == 0, "nobody has seen it stand still yet"
    await fleet.clock.advance(60.0)
    await fleet.roster.heartbeat("dispatcher", "alive", 2)
    await fleet.observer.run_once()
    assert fleet.value("undrained_processes", role="dispatcher") == 1
    assert fleet.value("undrained_processes", role="ingester") == 0


async def test_processes_that_post_and_one_that_reads(clock: ManualClock, fleet: Fleet) -> None:
    """Two processes count the two ends of the same jobs, over two windows, with lost answers."""
    api, dispatcher = Process(clock, fleet.ledger, "api"), Process(clock, fleet.ledger, "dispatcher")
    fleet.ledger.faults.lose_answer_next("post", Unavailable("no answer"), times=3)
    now_ms = clock.now_ms()
    for number in range(100):
        api.tally.add(Flow.ACCEPTED, now_ms + number * 1000)
        dispatcher.tally.add(Flow.DELIVERED, now_ms + number * 1000)
        if number % 10 == 0:
            await asyncio.gather(api.book.run_once(), dispatcher.book.run_once(), return_exceptions=True)
    await clock.result_of(asyncio.gather(api.book.close(2.0), dispatcher.book.close(2.0)))
    await clock.advance(100 + GRACE_MS / 1000 + 60)
    await fleet.observer.run_once()
    assert (fleet.value("gap_jobs"), fleet.value("surplus_jobs")) == (0, 0)
    assert fleet.value("jobs", flow="accepted") == fleet.value("jobs", flow="delivered") == 100
