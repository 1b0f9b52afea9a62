"""The ledger's own trouble, which is never a job's."""

from __future__ import annotations

from logging import ERROR, WARNING

from dynein.observability.events.event import Event

LEDGER_NOT_POSTED = Event(
    "ledger.not_posted",
    WARNING,
    "the last counts of a process could not be posted; tried again while there is time",
    "error",
    "Nothing if it passes.",
)
LEDGER_COUNTS_MISSING = Event(
    "ledger.counts_missing",
    WARNING,
    "the last counts of this process are missing from the ledger",
    "",
    "The ledger shows a gap that is none: `dynein audit` finds nothing.",
)
LEDGER_COUNTS_FORGOTTEN = Event(
    "ledger.counts_forgotten",
    ERROR,
    "the ledger has lost counts of far windows for want of memory",
    "jobs",
    "The table has not taken counts for long: see `pass.failed`. The ledger shows a gap that is none.",
)
LEDGER_STOPPED = Event(
    "ledger.stopped",
    ERROR,
    "the ledger cannot go on without a table or a permission; jobs are not concerned",
    "what error",
    "See `error`. It is tried again once a minute.",
)
