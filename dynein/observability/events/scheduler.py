"""Shards, leases, and the reads of a dispatcher."""

from __future__ import annotations

from logging import ERROR, INFO, WARNING

from dynein.observability.events.event import Event

ROLE = "dispatcher"

LEASE_TAKEN = Event(
    "lease.taken",
    INFO,
    "this process took the lease of a shard",
    "role shard fence member",
    "Nothing. Many without a deployment: processes restart or freeze.",
    role=ROLE,
)
LEASE_RELEASED = Event(
    "lease.released",
    INFO,
    "this process released the lease of a shard",
    "role shard fence",
    "Nothing.",
    role=ROLE,
)
LEASE_LOST = Event(
    "lease.lost",
    WARNING,
    "this process lost the lease of a shard: another dispatcher owns it",
    "role shard fence",
    "This process was frozen, had no CPU or no network for longer than `lease_ttl_s`. Jobs that it was sending may be "
    "delivered twice.",
    role=ROLE,
)
LEASE_CALL_FAILED = Event(
    "lease.call_failed",
    WARNING,
    "a call for a lease failed; it is retried, and unless it succeeds in time the lease expires",
    "role what error repeats",
    "Nothing if it stops; otherwise DynamoDB throttles or does not respond.",
    role=ROLE,
    once_by=("what",),
)
READ_FAILED = Event(
    "shard.read_failed",
    WARNING,
    "a read of a shard failed; it is retried at the next tick",
    "role shard error repeats",
    "Nothing if it stops; otherwise DynamoDB throttles or does not respond, and jobs are late.",
    role=ROLE,
    once_by=("shard",),
)
REMOVAL_FAILED = Event(
    "removal.failed",
    WARNING,
    "triggers could not be removed after their send, or unreadable ones could not be dead-lettered; it is retried",
    "role what error repeats",
    "Nothing if it stops. If the process crashes before it succeeds, these jobs are delivered twice.",
    role=ROLE,
    once_by=("what",),
)
RECORD_UNDECODABLE = Event(
    "record.undecodable",
    ERROR,
    "the table holds a record that cannot be read as a trigger",
    "role shard due_at_ms job_id",
    "`dynein audit` shows it. Find out which other program writes to the table.",
)
