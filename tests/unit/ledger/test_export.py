"""What several workers export of the one of them that reads the ledger."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dynein.core.ledger import Balance, Counts
from dynein.ledger.export import STALE_MS, LedgerMetrics, Reading
from dynein.observability.telemetry import Telemetry
from dynein.testing import ManualClock


class Worker:
    def __init__(self, clock: ManualClock, directory: Path, pid: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pid, self._patch, self._clock = pid, monkeypatch, clock
        self._metrics = LedgerMetrics(clock, directory)
        self._telemetry = Telemetry(workers_directory=directory)
        self._telemetry.add_of_the_fleet(self._metrics)

    def publish(self, gap_jobs: int) -> None:
        self._patch.setattr(os, "getpid", lambda: self._pid)
        balance = Balance(Counts(accepted=5, delivered=5 - gap_jobs), gap_jobs, 0)
        self._metrics.publish(Reading(self._clock.now_ms(), balance, 4, {"dispatcher": 2}))

    def withdraw(self) -> None:
        self._patch.setattr(os, "getpid", lambda: self._pid)
        self._metrics.withdraw()

    def exposed(self) -> list[str]:
        lines = self._telemetry.exposition().decode().splitlines()
        return [line.removeprefix("dynein_ledger_") for line in lines if line.startswith("dynein_ledger_")]

    def gap_jobs(self) -> list[str]:
        return [line for line in self.exposed() if line.startswith("gap_jobs")]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start_ms=5_000_000)


@pytest.fixture
def workers(clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Worker]:
    return [Worker(clock, tmp_path, pid, monkeypatch) for pid in (11, 12, 13)]


def test_whichever_worker_is_asked_says_the_same(workers: list[Worker]) -> None:
    workers[1].publish(gap_jobs=2)
    for worker in workers:
        assert worker.exposed() == [
            'jobs{flow="accepted"} 5.0',
            'jobs{flow="moved_in"} 0.0',
            'jobs{flow="moved_out"} 0.0',
            'jobs{flow="delivered"} 3.0',
            'jobs{flow="cancelled"} 0.0',
            'jobs{flow="dead_lettered"} 0.0',
            "gap_jobs 2.0",
            "uncertain_jobs 4.0",
            "surplus_jobs 0.0",
            "timestamp_seconds 5000.0",
            'undrained_processes{role="dispatcher"} 2.0',
        ]


def test_nobody_says_what_nobody_has_read(workers: list[Worker]) -> None:
    assert [worker.exposed() for worker in workers] == [[], [], []]


async def test_the_lease_goes_to_a_sibling(clock: ManualClock, workers: list[Worker]) -> None:
    workers[0].publish(gap_jobs=1)
    await clock.advance(60)
    workers[2].publish(gap_jobs=0)
    assert workers[1].gap_jobs() == ["gap_jobs 0.0"], "the latest counts"
    workers[0].withdraw()
    assert [worker.gap_jobs() for worker in workers] == [["gap_jobs 0.0"]] * 3
    workers[1].withdraw()
    assert workers[1].gap_jobs() == ["gap_jobs 0.0"], "who has published nothing withdraws nothing"
    workers[2].withdraw()
    assert [worker.exposed() for worker in workers] == [[], [], []]


async def test_what_a_dead_worker_left_is_not_said_for_ever(clock: ManualClock, workers: list[Worker]) -> None:
    workers[0].publish(gap_jobs=1)
    await clock.advance(STALE_MS / 1000 + 1)
    assert workers[1].exposed() == []
