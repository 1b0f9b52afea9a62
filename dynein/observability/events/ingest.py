"""From the inbound queue to the trigger store."""

from __future__ import annotations

from logging import DEBUG, ERROR, INFO, WARNING

from dynein.observability.events.event import Event

ROLE = "ingester"

JOB_STORED = Event(
    "job.stored",
    DEBUG,
    "the job is in the trigger store",
    "role token shard due_at_ms",
    "Nothing.",
    role=ROLE,
)
JOB_HELD = Event(
    "job.held",
    DEBUG,
    "the job is due so soon that an ingester keeps it in hand",
    "role token shard due_at_ms",
    "Nothing.",
    role=ROLE,
)
JOB_DUPLICATE = Event(
    "job.duplicate",
    INFO,
    "a create of a prepared token was dropped: another create has it",
    "role token",
    "Nothing: this is what tokens are prepared for.",
    role=ROLE,
)
LATE_WRITE = Event(
    "late_write.reported",
    WARNING,
    "a job was stored behind its shard's read mark; the shard's owner reads again",
    "role token shard bucket jobs repeats",
    "Rare ones: nothing. Many: the table or an ingester is slow, or clocks are apart.",
    role=ROLE,
    once_by=("shard",),
)
LATE_WRITE_MADE_GOOD = Event(
    "late_write.made_good",
    WARNING,
    "a job was stored in a retired bucket and is sent from here",
    "role token shard due_at_ms",
    "It is late. See how it could come so late: a clock, or an inbound queue that stood still.",
    role=ROLE,
)
INBOUND_POISON = Event(
    "inbound.poison",
    ERROR,
    "an inbound message cannot be read and is dead-lettered whole",
    "role message_id error",
    "Does another program, or a newer version, write to the inbound queue? `dynein redrive` once it can be read.",
    role=ROLE,
)
INBOUND_LEFT = Event(
    "inbound.left",
    WARNING,
    "an inbound message could not be finished and is left to come back",
    "role message_id error",
    "Nothing if it passes. SQS moves a message that keeps failing to the dead-letter queue.",
    role=ROLE,
)
INBOUND_UNDELETED = Event(
    "inbound.undeleted",
    WARNING,
    "inbound messages could not be deleted and are received again",
    "role messages",
    "Nothing if it passes: what is done is remembered. May the role delete from the inbound queue?",
    role=ROLE,
)
INBOUND_NOT_KEPT = Event(
    "inbound.not_kept",
    WARNING,
    "inbound messages could not be kept invisible; tried again",
    "role messages error repeats",
    "Nothing if it passes.",
    role=ROLE,
    once_by=(),
)
INBOUND_LOST = Event(
    "inbound.lost",
    WARNING,
    "an inbound message is ours no longer; its jobs may be sent twice",
    "role message_id code error",
    "Ingesters are frozen or starved for longer than `visibility_timeout_s`: give them CPU, or raise it.",
    role=ROLE,
)
INBOUND_GIVEN_BACK = Event(
    "inbound.given_back",
    WARNING,
    "inbound messages could not be finished before the drain ended and are given back",
    "role messages",
    "Nothing: another ingester takes them up. Often: raise `drain_s`.",
    role=ROLE,
)
CALL_RETRIED = Event(
    "call.retried",
    WARNING,
    "a call that an ingester cannot do without failed and is repeated",
    "role what error failures repeats",
    "Nothing if it passes; else see `error`.",
    role=ROLE,
    once_by=("what",),
)
