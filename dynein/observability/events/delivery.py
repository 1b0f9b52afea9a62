"""The last leg, by dispatcher and ingester; dead letters and their way back."""

from __future__ import annotations

from logging import DEBUG, ERROR, INFO, WARNING

from dynein.observability.events.event import Event

JOB_DELIVERED = Event(
    "job.delivered",
    DEBUG,
    "SQS has acknowledged the job at its destination",
    "role token queue due_at_ms lateness_ms trace_id",
    "Nothing.",
)
JOB_STOPPED = Event(
    "job.stopped",
    DEBUG,
    "the job met its tombstone: it was cancelled or moved",
    "role token shard due_at_ms",
    "Nothing.",
)
JOB_DEAD_LETTERED = Event(
    "job.dead_lettered",
    WARNING,
    "the job could not be delivered and is in the dead-letter queue",
    "role token queue code reason due_at_ms trace_id",
    "Put right what `reason` says, then `dynein redrive`.",
)
DEAD_LETTER_FAILED = Event(
    "dead_letter.failed",
    WARNING,
    "the dead-letter queue does not take a job; it is kept, and tried again",
    "role token code error repeats",
    "See that the dead-letter queue exists and that the role may send to it.",
    once_by=("role", "code"),
)
DESTINATION_FAILING = Event(
    "destination.failing",
    WARNING,
    "a destination does not take jobs; they wait",
    "role queue code error jobs failing_s repeats",
    "Is the queue there, and may Dynein's role send to it? Past `retry_budget_s` its jobs are dead-lettered.",
    once_by=("role", "queue"),
)
DESTINATION_RECOVERED = Event(
    "destination.recovered",
    INFO,
    "a destination takes jobs again",
    "role queue failures failing_s repeats",
    "Nothing.",
    once_by=("role", "queue"),
)
DELIVERY_FAILED = Event(
    "delivery.failed",
    ERROR,
    "a delivery met an error that nobody foresaw; the job is tried again",
    "role queue token error repeats",
    "A bug: report it with the trace in `exception`.",
    once_by=("role", "queue", "error"),
)
JOB_REDRIVEN = Event(
    "job.redriven",
    DEBUG,
    "a dead letter is back on its way",
    "token queue",
    "Nothing.",
)
REDRIVE_UNTIDY = Event(
    "redrive.untidy",
    WARNING,
    "letters were redriven but not deleted, and would be sent again",
    "messages error",
    "Redrive no more before their visibility timeout has ended; consumers may see duplicates, by token.",
)
REDRIVE_HELD = Event(
    "redrive.held",
    WARNING,
    "the letters that stay could not be given back; they are visible again when their timeout ends",
    "messages within_s error",
    "Nothing: wait.",
)
