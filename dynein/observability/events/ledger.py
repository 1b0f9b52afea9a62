"""Failures of the ledger itself. They never affect a job."""

from __future__ import annotations

from logging import ERROR, WARNING

from dynein.observability.events.event import Event

LEDGER_NOT_POSTED = Event(
    "ledger.not_posted",
    WARNING,
    "the last counts of a process could not be posted to the ledger; it is retried until the drain ends",
    "error",
    "Nothing if it stops.",
)
LEDGER_COUNTS_MISSING = Event(
    "ledger.counts_missing",
    WARNING,
    "the last counts of this process are missing from the ledger",
    "",
    "No job is lost, but the ledger shows a gap. Run `dynein audit` to confirm: it finds nothing.",
)
LEDGER_COUNTS_FORGOTTEN = Event(
    "ledger.counts_forgotten",
    ERROR,
    "counts of jobs due far ahead were discarded because the bound on counts in memory was reached",
    "jobs",
    "Writes of counts to the table have failed for a long time: see `pass.failed`. No job is lost, but the ledger will "
    "show a gap.",
)
LEDGER_STOPPED = Event(
    "ledger.stopped",
    ERROR,
    "the ledger cannot be kept because the table or a permission is missing; jobs are not affected",
    "what error",
    "See `error`. It is retried once a minute.",
)
