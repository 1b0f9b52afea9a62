"""Jobs for the contract suite: far-off due times, job ids that count up, tokens that parse."""

from __future__ import annotations

import itertools

from dynein.core.job import Job, encode_job
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import TriggerKey, bucket_of
from dynein.core.trigger import Trigger

WIDTH_MS = 60_000
SHARDS = 4
T0 = 4_102_444_800_000
"""The start of a time bucket in 2100: no engine's TTL comes near it."""
BUCKET = bucket_of(T0, WIDTH_MS)

_SIGNER = TokenSigner([b"the contract suite's secret"])
_ids = itertools.count(1)


def trigger_at(
    due_at_ms: int, *, shard: int = 0, job_id: bytes | None = None, body: str = "hello", prepared: bool = False
) -> Trigger:
    """A trigger due at ``due_at_ms``, of a job of its own unless ``job_id`` is given."""
    key = TriggerKey(due_at_ms, job_id or next(_ids).to_bytes(12, "big"), shard)
    kind = TokenKind.PREPARED if prepared else TokenKind.SCHEDULED
    return Trigger(key, _SIGNER.sign(JobRef(kind, key)), encode_job(Job(queue="demo", body=body)))


def moved(trigger: Trigger, due_at_ms: int) -> Trigger:
    """``trigger`` as the API would ask for it at another due time."""
    key = trigger.key._replace(due_at_ms=due_at_ms)
    return Trigger(key, _SIGNER.sign(JobRef(TokenKind.SCHEDULED, key)), b"ignored")
