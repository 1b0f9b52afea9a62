"""What the ledger says of the whole fleet; exported by `dynein.ledger.export`, and only where the ledger is read."""

from __future__ import annotations

from dynein.observability.metrics.declaring import NO_LABELS, Declared
from dynein.observability.metrics.observer import ROLES

JOBS = Declared(
    "dynein_ledger_jobs",
    "gauge",
    {"flow": "`accepted`, `moved_in`, `moved_out`, `delivered`, `cancelled`, `dead_lettered`"},
    ROLES,
    "Jobs of the windows closed within the last 24 h, by what happened to them. Of the whole fleet",
    "`dynein_ledger_gap_jobs` is not 0: where did the jobs go?",
)
GAP_JOBS = Declared(
    "dynein_ledger_gap_jobs",
    "gauge",
    NO_LABELS,
    ROLES,
    "Of these, jobs that were accepted and went nowhere: lost, late by more than the grace, or sent by a process that "
    "was killed before it could say so",
    "you want to know that no job was lost: anything but 0 wants an explanation",
)
SURPLUS_JOBS = Declared(
    "dynein_ledger_surplus_jobs",
    "gauge",
    NO_LABELS,
    ROLES,
    "Of these, more jobs gone than accepted: delivered twice, or accepted by a process that was killed before it could "
    "say so",
    "consumers see duplicates",
)
TIMESTAMP = Declared(
    "dynein_ledger_timestamp_seconds",
    "gauge",
    NO_LABELS,
    ROLES,
    "When the ledger was last read",
    "a figure of the ledger looks wrong: is it old?",
)
UNDRAINED = Declared(
    "dynein_ledger_undrained_processes",
    "gauge",
    {"role": "`dispatcher`, `ingester`"},
    ROLES,
    "Processes that ended within about the last day without draining: their last counts are missing",
    "there is a gap or a surplus: this would explain it",
)
LEDGER = (JOBS, GAP_JOBS, SURPLUS_JOBS, TIMESTAMP, UNDRAINED)
