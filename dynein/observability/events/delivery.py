"""Delivery to destination queues, by dispatcher and ingester; dead letters, and their redrive."""

from __future__ import annotations

from logging import DEBUG, ERROR, INFO, WARNING

from dynein.observability.events.event import Event

JOB_DELIVERED = Event(
    "job.delivered",
    DEBUG,
    "the job was delivered: SQS has acknowledged it on its destination queue",
    "role token queue due_at_ms lateness_ms trace_id",
    "Nothing.",
)
JOB_STOPPED = Event(
    "job.stopped",
    DEBUG,
    "the job was not sent because it has a tombstone: it was cancelled or moved",
    "role token shard due_at_ms",
    "Nothing.",
)
JOB_DEAD_LETTERED = Event(
    "job.dead_lettered",
    WARNING,
    "the job could not be delivered and is in the dead-letter queue",
    "role token queue code reason due_at_ms trace_id",
    "Fix the cause given in `reason`, then run `dynein redrive`.",
)
DEAD_LETTER_FAILED = Event(
    "dead_letter.failed",
    WARNING,
    "a send to the dead-letter queue failed; the job is kept and the send is retried",
    "role token code error repeats",
    "Check that the dead-letter queue exists and that the role may send to it.",
    once_by=("role", "code"),
)
DESTINATION_FAILING = Event(
    "destination.failing",
    WARNING,
    "sends to a destination queue fail; its jobs wait and are retried",
    "role queue code error jobs failing_s repeats",
    "Check that the queue exists and that Dynein's role may send to it. Once it has failed for `retry_budget_s`, its "
    "jobs are dead-lettered.",
    once_by=("role", "queue"),
)
DESTINATION_RECOVERED = Event(
    "destination.recovered",
    INFO,
    "sends to a destination queue succeed again",
    "role queue failures failing_s repeats",
    "Nothing.",
    once_by=("role", "queue"),
)
ATTRIBUTES_DENIED = Event(
    "destination.attributes_denied",
    WARNING,
    "the attributes of a queue may not be read: neither its maximum message size nor a delay of its own is known",
    "queue error repeats",
    "Grant Dynein's role `sqs:GetQueueAttributes` on the queue. Until then a job that is too large for it is "
    "refused or dead-lettered only when it is sent, and nobody is warned of a FIFO queue that delays its messages.",
    once_by=("queue",),
)
DELIVERY_FAILED = Event(
    "delivery.failed",
    ERROR,
    "a delivery failed with an unexpected error; it is retried",
    "role queue token error repeats",
    "A bug: report it with the traceback in `exception`.",
    once_by=("role", "queue", "error"),
)
JOB_REDRIVEN = Event(
    "job.redriven",
    DEBUG,
    "a dead letter was sent back to where it came from",
    "token queue",
    "Nothing.",
)
REDRIVE_UNTIDY = Event(
    "redrive.untidy",
    WARNING,
    "dead letters were redriven but could not be deleted from the dead-letter queue",
    "messages error",
    "The next redrive, once their visibility timeout has ended, sends these jobs a second time; consumers can "
    "recognise the duplicates by token.",
)
REDRIVE_HELD = Event(
    "redrive.held",
    WARNING,
    "dead letters that were not redriven could not be made visible again; they are once their visibility timeout ends",
    "messages within_s error",
    "Nothing: wait for `within_s`.",
)
