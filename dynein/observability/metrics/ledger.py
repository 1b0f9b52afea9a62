"""Metrics of the ledger, for the whole fleet. `dynein.ledger.export` exports them, where the ledger is read."""

from __future__ import annotations

from dynein.observability.metrics.declaring import NO_LABELS, Declared
from dynein.observability.metrics.observer import ROLES

JOBS = Declared(
    "dynein_ledger_jobs",
    "gauge",
    {"flow": "`accepted`, `moved_in`, `moved_out`, `delivered`, `cancelled`, `dead_lettered`"},
    ROLES,
    "Jobs of the windows that closed in the last 24 h, by what happened to them, for the whole fleet",
    "`dynein_ledger_gap_jobs` is not 0: it shows where the jobs went",
)
GAP_JOBS = Declared(
    "dynein_ledger_gap_jobs",
    "gauge",
    NO_LABELS,
    ROLES,
    "Of these, jobs that were accepted and are not accounted for: lost, or late by more than the grace. Without those "
    "of `dynein_ledger_uncertain_jobs`",
    "you want to know that no job was lost: any value but 0 has to be explained",
)
UNCERTAIN_JOBS = Declared(
    "dynein_ledger_uncertain_jobs",
    "gauge",
    NO_LABELS,
    ROLES,
    "The same for windows in which a process ended without draining: it may have sent these jobs without posting that "
    "it did",
    "a process was killed: `dynein audit` shows whether any of them is still stored",
)
SURPLUS_JOBS = Declared(
    "dynein_ledger_surplus_jobs",
    "gauge",
    NO_LABELS,
    ROLES,
    "Of these, jobs accounted for in excess of those accepted: delivered twice, or accepted by a process that was "
    "killed before it posted its counts",
    "consumers see duplicates",
)
TIMESTAMP = Declared(
    "dynein_ledger_timestamp_seconds",
    "gauge",
    NO_LABELS,
    ROLES,
    "When the ledger was last read, Unix time",
    "a figure of the ledger looks wrong: it may be stale",
)
UNDRAINED = Declared(
    "dynein_ledger_undrained_processes",
    "gauge",
    {"role": "`dispatcher`, `ingester`"},
    ROLES,
    "Processes that ended without draining within about the last day; their last counts are missing",
    "there is a gap or a surplus: such a process would explain it",
)
LEDGER = (JOBS, GAP_JOBS, UNCERTAIN_JOBS, SURPLUS_JOBS, TIMESTAMP, UNDRAINED)
