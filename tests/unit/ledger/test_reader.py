"""Reading what the fleet has posted to the ledger."""

from __future__ import annotations

import asyncio
import random

import pytest

from dynein.core.ledger import Counts, Flow, Posting
from dynein.errors import Unavailable
from dynein.ledger.export import STALE_MS, LedgerMetrics
from dynein.ledger.reader import LedgerReader
from dynein.observability.telemetry import Telemetry
from dynein.runtime.context import Context
from dynein.testing import FakeLedger, FakeTriggerTable, ManualClock
from tests.unit.ledger.world import GRACE_MS, SETTINGS, WINDOW_MS, Process


class Fleet:
    """A ledger, a roster, and one process that may be the observer."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.ledger = FakeLedger()
        self.roster = FakeTriggerTable(clock)
        self.is_observer = True
        self.telemetry = Telemetry()
        metrics = LedgerMetrics(clock, None)
        self.telemetry.add_of_the_fleet(metrics)
        context = Context(clock, random.Random(1), self.telemetry)
        self.reader = LedgerReader(
            self.ledger, self.roster, metrics, context, SETTINGS, is_observer=lambda: self.is_observer
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
def clock() -> ManualClock:
    return ManualClock(start_ms=1_000_000 * WINDOW_MS)


@pytest.fixture
def fleet(clock: ManualClock) -> Fleet:
    return Fleet(clock)


async def test_closed_windows_are_balanced_and_open_ones_are_not(fleet: Fleet) -> None:
    await fleet.count(1440 + 5 + 2, Counts(accepted=100))  # longer ago than a day
    await fleet.count(20, Counts(accepted=3, delivered=1, dead_lettered=1))
    await fleet.count(10, Counts(accepted=3, delivered=5))
    await fleet.count(5, Counts(accepted=50))  # its grace is not over
    assert await fleet.reader.run_once() == 60.0
    assert (fleet.value("gap_jobs"), fleet.value("surplus_jobs")) == (1, 2)
    assert [fleet.value("jobs", flow=flow) for flow in ("accepted", "delivered", "dead_lettered")] == [6, 6, 1]
    assert fleet.value("timestamp_seconds") == fleet.clock.now_ms() / 1000
    await fleet.clock.advance(60.0)
    await fleet.reader.run_once()
    assert fleet.value("gap_jobs") == 51, "a minute later it is"


async def test_a_job_delivered_late_closes_its_gap(fleet: Fleet) -> None:
    await fleet.count(20, Counts(accepted=1))
    await fleet.reader.run_once()
    assert fleet.value("gap_jobs") == 1
    await fleet.count(20, Counts(delivered=1))
    await fleet.reader.run_once()
    assert fleet.value("gap_jobs") == 0


async def test_only_the_observer_exports_anything(fleet: Fleet) -> None:
    fleet.is_observer = False
    await fleet.reader.run_once()
    assert fleet.value("gap_jobs") is None
    assert not fleet.ledger.faults.calls
    fleet.is_observer = True
    await fleet.reader.run_once()
    assert fleet.value("gap_jobs") == 0
    fleet.is_observer = False
    await fleet.reader.run_once()
    assert fleet.value("gap_jobs") is None
    assert b"dynein_ledger_gap_jobs " not in fleet.telemetry.exposition()


async def test_what_could_not_be_read_for_long_is_no_longer_exported(fleet: Fleet) -> None:
    await fleet.reader.run_once()
    fleet.ledger.faults.go_down(Unavailable("no response"))
    with pytest.raises(Unavailable):
        await fleet.reader.run_once()
    assert fleet.value("gap_jobs") == 0
    await fleet.clock.advance(STALE_MS / 1000 + 1)
    assert fleet.value("gap_jobs") is None


async def test_processes_that_ended_without_leaving_are_counted(fleet: Fleet) -> None:
    await fleet.roster.heartbeat("dispatcher", "dead", 7)
    await fleet.roster.heartbeat("dispatcher", "alive", 1)
    await fleet.reader.run_once()
    assert fleet.value("undrained_processes", role="dispatcher") == 0, "its heartbeat has not been seen to be stale yet"
    await fleet.clock.advance(60.0)
    await fleet.roster.heartbeat("dispatcher", "alive", 2)
    await fleet.reader.run_once()
    assert fleet.value("undrained_processes", role="dispatcher") == 1
    assert fleet.value("undrained_processes", role="ingester") == 0


async def test_what_is_missing_where_a_process_was_killed_is_uncertain_and_not_a_gap(fleet: Fleet) -> None:
    """It had not posted its last deliveries; all other windows are as certain as ever."""
    await fleet.roster.heartbeat("dispatcher", "dead", 7)
    await fleet.reader.run_once()
    await fleet.count(0, Counts(accepted=100, delivered=90))
    await fleet.clock.advance(600.0)
    await fleet.reader.run_once()
    assert (fleet.value("gap_jobs"), fleet.value("uncertain_jobs")) == (0, 10)
    assert fleet.value("undrained_processes", role="dispatcher") == 1
    await fleet.count(7, Counts(accepted=3))
    await fleet.reader.run_once()
    assert (fleet.value("gap_jobs"), fleet.value("uncertain_jobs")) == (3, 10), "minutes after it"


async def test_a_process_that_left_makes_nothing_uncertain(fleet: Fleet) -> None:
    await fleet.roster.heartbeat("dispatcher", "drained", 7)
    await fleet.reader.run_once()
    await fleet.roster.leave("dispatcher", "drained")
    await fleet.count(0, Counts(accepted=100, delivered=90))
    await fleet.clock.advance(600.0)
    await fleet.reader.run_once()
    assert (fleet.value("gap_jobs"), fleet.value("uncertain_jobs")) == (10, 0)


async def test_processes_that_post_and_one_that_reads(clock: ManualClock, fleet: Fleet) -> None:
    """Two processes count the two ends of the same jobs, over two windows, with lost responses."""
    api, dispatcher = Process(clock, fleet.ledger, "api"), Process(clock, fleet.ledger, "dispatcher")
    fleet.ledger.faults.lose_answer_next("post", Unavailable("no response"), times=3)
    now_ms = clock.now_ms()
    for number in range(100):
        api.tally.add(Flow.ACCEPTED, now_ms + number * 1000)
        dispatcher.tally.add(Flow.DELIVERED, now_ms + number * 1000)
        if number % 10 == 0:
            await asyncio.gather(api.poster.run_once(), dispatcher.poster.run_once(), return_exceptions=True)
    await clock.result_of(asyncio.gather(api.poster.close(2.0), dispatcher.poster.close(2.0)))
    await clock.advance(100 + GRACE_MS / 1000 + 60)
    await fleet.reader.run_once()
    assert (fleet.value("gap_jobs"), fleet.value("surplus_jobs")) == (0, 0)
    assert fleet.value("jobs", flow="accepted") == fleet.value("jobs", flow="delivered") == 100
