"""From the inbound queue to the trigger store."""

from __future__ import annotations

from logging import DEBUG, ERROR, INFO, WARNING

from dynein.observability.events.event import Event

ROLE = "ingester"

JOB_STORED = Event(
    "job.stored",
    DEBUG,
    "the job was written to the trigger store",
    "role token shard due_at_ms",
    "Nothing.",
    role=ROLE,
)
JOB_HELD = Event(
    "job.held",
    DEBUG,
    "the job is due so soon that the ingester holds it in memory until then",
    "role token shard due_at_ms",
    "Nothing.",
    role=ROLE,
)
JOB_DUPLICATE = Event(
    "job.duplicate",
    INFO,
    "a submit was dropped because another submit has used its prepared token",
    "role token",
    "Nothing: this is the purpose of prepared tokens.",
    role=ROLE,
)
LATE_WRITE = Event(
    "late_write.reported",
    WARNING,
    "a job was stored behind its shard's read mark; the shard's owner reads its open buckets again",
    "role token shard bucket jobs repeats",
    "A few: nothing. Many: the table or an ingester is slow, or clocks differ.",
    role=ROLE,
    once_by=("shard",),
)
LATE_WRITE_MADE_GOOD = Event(
    "late_write.made_good",
    WARNING,
    "a job was stored in a retired bucket; the ingester sends it instead of a dispatcher",
    "role token shard due_at_ms",
    "The job is late. Find out why it was stored so late: a wrong clock, or an inbound queue that was not consumed.",
    role=ROLE,
)
INBOUND_POISON = Event(
    "inbound.poison",
    ERROR,
    "an inbound message is not signed by this deployment or cannot be decoded, and is dead-lettered; or one entry of a "
    "message cannot be decoded, and is dead-lettered alone",
    "role message_id error",
    "If the signature is wrong, compare `DYNEIN_TOKEN_SECRETS` of API and ingesters; if they agree, another program "
    "writes to the inbound queue: find out who may send to it. Otherwise check whether another version of Dynein is "
    "running. Then run `dynein redrive`: it sends back what is signed and can be decoded.",
    role=ROLE,
)
INBOUND_LEFT = Event(
    "inbound.left",
    WARNING,
    "an inbound message could not be processed; it is not deleted, and SQS will deliver it again",
    "role message_id error",
    "Nothing if it stops. SQS moves a message that keeps failing to the dead-letter queue.",
    role=ROLE,
)
INBOUND_UNDELETED = Event(
    "inbound.undeleted",
    WARNING,
    "inbound messages could not be deleted and will be received again",
    "role messages",
    "Nothing if it stops: this process remembers which are done. Otherwise check that the role may delete from the "
    "inbound queue.",
    role=ROLE,
)
INBOUND_NOT_KEPT = Event(
    "inbound.not_kept",
    WARNING,
    "the visibility timeout of inbound messages could not be extended; it is retried",
    "role messages error repeats",
    "Nothing if it stops.",
    role=ROLE,
    once_by=(),
)
INBOUND_LOST = Event(
    "inbound.lost",
    WARNING,
    "the visibility timeout of an inbound message ended while it was processed; its jobs may be sent twice",
    "role message_id code error",
    "Ingesters were frozen or had no CPU for longer than `visibility_timeout_s`: give them CPU, or raise that setting.",
    role=ROLE,
)
INBOUND_GIVEN_BACK = Event(
    "inbound.given_back",
    WARNING,
    "inbound messages could not be processed before the drain ended and were made visible again",
    "role messages",
    "Nothing: another ingester receives them. If it is frequent, raise `drain_s`.",
    role=ROLE,
)
CALL_RETRIED = Event(
    "call.retried",
    WARNING,
    "a call failed that an ingester cannot go on without; it is retried",
    "role what error failures repeats",
    "Nothing if it stops; otherwise see `error`.",
    role=ROLE,
    once_by=("what",),
)
