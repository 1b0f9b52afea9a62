"""The ledger's figures for Prometheus: of the whole fleet, exported by the one process that reads it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dynein.core.ledger import FLOWS, Balance
from dynein.observability.metrics.ledger import LEDGER
from dynein.runtime.clock import Clock

STALE_MS = 600_000
"""How old a reading is still exported: better no figure than an older one."""


class Reading(msgspec.Struct, frozen=True):
    """The ledger at one moment."""

    at_ms: int
    balance: Balance
    """Its gap leaves out the windows in which a process ended without draining."""
    uncertain_jobs: int
    """The gap in those."""
    undrained: dict[str, int]
    """By role: processes that the roster remembers and that ended without leaving it."""


class LedgerMetrics(Collector):
    """Exports the last `Reading` that was published, until it is withdrawn or stale.

    ``workers_directory``: of several worker processes one reads the ledger, and any is scraped. So it leaves what it
    read in a file there.
    """

    def __init__(self, clock: Clock, workers_directory: Path | None) -> None:
        self._clock = clock
        self._directory = workers_directory
        self._reading: Reading | None = None

    def publish(self, reading: Reading) -> None:
        """Export this from now on."""
        self._reading = reading
        if self._directory is not None:
            beside = self._file(self._directory).with_suffix(".new")
            beside.write_bytes(msgspec.json.encode(reading))
            beside.replace(self._file(self._directory))

    def withdraw(self) -> None:
        """Another process reads the ledger now: export nothing any more."""
        if self._reading is not None and self._directory is not None:
            self._file(self._directory).unlink(missing_ok=True)
        self._reading = None

    def describe(self) -> Iterable[Metric]:
        """See `Collector`: the metrics without a value."""
        return self._families(None)

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        readings = [self._reading] if self._reading is not None else []
        if self._directory is not None:
            readings += _left_in(self._directory)
        latest = max(readings, key=lambda reading: reading.at_ms, default=None)
        if latest is None or latest.at_ms < self._clock.now_ms() - STALE_MS:
            return []
        return self._families(latest)

    def _file(self, directory: Path) -> Path:
        return directory / f"ledger-{os.getpid()}.json"

    def _families(self, reading: Reading | None) -> list[Metric]:
        jobs, gap, uncertain, surplus, at, undrained = (
            GaugeMetricFamily(metric.name, metric.meaning, labels=list(metric.labels)) for metric in LEDGER
        )
        if reading is not None:
            for flow, count in zip(FLOWS, reading.balance.flows, strict=True):
                jobs.add_metric([flow], count)
            gap.add_metric([], reading.balance.gap_jobs)
            uncertain.add_metric([], reading.uncertain_jobs)
            surplus.add_metric([], reading.balance.surplus_jobs)
            at.add_metric([], reading.at_ms / 1000)
            for role, processes in reading.undrained.items():
                undrained.add_metric([role], processes)
        return [jobs, gap, uncertain, surplus, at, undrained]


def _left_in(directory: Path) -> list[Reading]:
    readings = []
    for file in directory.glob("ledger-*.json"):
        with contextlib.suppress(FileNotFoundError):  # withdrawn at this moment
            readings.append(msgspec.json.decode(file.read_bytes(), type=Reading))
    return readings
