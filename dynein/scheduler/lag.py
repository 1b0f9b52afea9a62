"""What a dispatcher is late with, and since when: measured once a tick, from what the process knows. No calls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dynein.observability.metrics.dispatcher import SHARD_LABELS_MAX
from dynein.observability.telemetry import OTHER, Telemetry

OVERDUE_AFTER_MS = 1000


class Lag(NamedTuple):
    """How far one shard's work has come."""

    shard: int
    unsent_ms: int
    """Due time of the earliest trigger that may not have been sent: everything due before it has been."""
    overdue_jobs: int
    """Buffered triggers that are late."""


def oldest_ages_s(lags: Iterable[Lag], now_ms: int) -> dict[str, float]:
    """By shard label: how late the oldest unsent trigger may be, seconds; 0 if it is not. Pure."""
    ages: dict[str, float] = {}
    for lag in lags:
        label = str(lag.shard) if lag.shard < SHARD_LABELS_MAX else OTHER
        ages[label] = max(ages.get(label, 0.0), (now_ms - lag.unsent_ms) / 1000)
    return ages


def export(lags: Iterable[Lag], now_ms: int, telemetry: Telemetry) -> None:
    """Set the gauges; the series of shards that are not among ``lags`` are removed."""
    lags = list(lags)
    telemetry.overdue.set(sum(lag.overdue_jobs for lag in lags))
    telemetry.oldest_overdue_age.show(oldest_ages_s(lags, now_ms))
