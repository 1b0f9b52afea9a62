"""Shards, leases, and what a dispatcher reads."""

from __future__ import annotations

from logging import ERROR, INFO, WARNING

from dynein.observability.events.event import Event

ROLE = "dispatcher"

LEASE_TAKEN = Event(
    "lease.taken",
    INFO,
    "this process owns a shard",
    "role shard fence member",
    "Nothing. Many, without a deploy: processes come and go, or freeze.",
    role=ROLE,
)
LEASE_RELEASED = Event(
    "lease.released",
    INFO,
    "a shard was handed back",
    "role shard fence",
    "Nothing.",
    role=ROLE,
)
LEASE_LOST = Event(
    "lease.lost",
    WARNING,
    "another dispatcher owns a shard that was ours",
    "role shard fence",
    "This process was frozen, starved or cut off for longer than `lease_ttl_s`. Its unfinished sends may come twice.",
    role=ROLE,
)
LEASE_CALL_FAILED = Event(
    "lease.call_failed",
    WARNING,
    "a call for a lease failed; it is repeated in time, or the lease expires",
    "role what error repeats",
    "Nothing if it passes; else DynamoDB throttles or does not answer.",
    role=ROLE,
    once_by=("what",),
)
READ_FAILED = Event(
    "shard.read_failed",
    WARNING,
    "a shard could not be read; the next tick tries again",
    "role shard error repeats",
    "Nothing if it passes; else DynamoDB throttles or does not answer, and jobs are late.",
    role=ROLE,
    once_by=("shard",),
)
REMOVAL_FAILED = Event(
    "removal.failed",
    WARNING,
    "triggers that were sent could not be removed, or unreadable ones not dead-lettered; tried again",
    "role what error repeats",
    "Nothing if it passes. A crash before it does sends their jobs a second time.",
    role=ROLE,
    once_by=("what",),
)
RECORD_UNDECODABLE = Event(
    "record.undecodable",
    ERROR,
    "the table holds a record that is no trigger",
    "role shard due_at_ms job_id",
    "`dynein audit` shows it. Who else writes to the table?",
)
