"""The jobs of the benchmarks: the same 100-byte body everywhere, so that figures can be compared."""

from __future__ import annotations

import random
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from dynein.aws.dynamodb.items import trigger_item
from dynein.core.inbound_message import Entry, pack
from dynein.core.job import Job, encode_job
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import DUE_BYTES, JOB_ID_BYTES, Kind, TriggerKey, bucket_of, partition_key, shard_of
from dynein.core.seal import Seal
from dynein.core.trigger import Trigger

BODY_BYTES = 100
SECRET = "a-benchmark-needs-a-secret-too"
QUEUE = "bench-destination"
_TRIGGER = bytes([Kind.TRIGGER])
_SCHEDULED = bytes([TokenKind.SCHEDULED])
_NO_MAC = bytes(18)
_ITEM = b'{"pk":{"S":"%b"},"sk":{"B":"%b"},"tk":{"S":"%b"},"job":{"S":%b}}'


def body_text(size_bytes: int = BODY_BYTES) -> str:
    """A JSON body, as most are: its quotes are escaped wherever it is embedded in JSON."""
    text = '{"kind":"reminder","user":"2f1c7a50-1b52-4e0e-9c3f-5a0c8f1d2e77","text":"'
    return text + "x" * max(0, size_bytes - len(text) - 2) + '"}'


def record(queue: str = QUEUE, size_bytes: int = BODY_BYTES) -> bytes:
    """An encoded job."""
    return encode_job(Job(queue=queue, body=body_text(size_bytes)))


def packed_messages(
    rng: random.Random, messages: int, jobs_a_message: int, *, shard_count: int, from_ms: int, to_ms: int
) -> list[str]:
    """Inbound messages as the API packs them."""
    signer, seal, raw = TokenSigner([SECRET.encode()]), Seal([SECRET.encode()]), record()

    def entry() -> Entry:
        key = _key(rng, shard_count, from_ms, to_ms)
        return Entry(signer.sign(JobRef(TokenKind.SCHEDULED, key)), "AAAAAAAAAAA", raw)

    return [pack([entry() for _ in range(jobs_a_message)], seal) for _ in range(messages)]


class StoredTrigger(NamedTuple):
    """A trigger as DynamoDB would store it: its key, and the item's JSON text."""

    pk: str
    sk: bytes
    raw: bytes


def stored_triggers(
    rng: random.Random,
    count: int,
    *,
    shard_count: int,
    bucket_width_ms: int,
    from_ms: int,
    to_ms: int,
    queues: int = 1,
) -> Iterator[StoredTrigger]:
    """Triggers due evenly at random in the range, for ``queues`` destinations in turn.

    Written out by hand, since a benchmark needs millions; the first is held against what Dynein itself would write.
    Tokens are unsigned: no component behind the API checks their signatures.
    """
    records = [record(QUEUE if queues == 1 else f"{QUEUE}-{n}") for n in range(queues)]
    texts = [msgspec.json.encode(text.decode()) for text in records]
    for number in range(count):
        key = _key(rng, shard_count, from_ms, to_ms)
        due = key.due_at_ms.to_bytes(DUE_BYTES, "big")
        pk = partition_key(bucket_of(key.due_at_ms, bucket_width_ms), key.shard)
        sk = due + key.job_id + _TRIGGER
        token = urlsafe_b64encode(_SCHEDULED + due + key.shard.to_bytes(2, "big") + key.job_id + _NO_MAC)
        raw = _ITEM % (pk.encode(), b64encode(sk), token, texts[number % queues])
        if number == 0:
            _check(raw, Trigger(key, token.decode(), records[0]), bucket_width_ms)
        yield StoredTrigger(pk, sk, raw)


def _check(raw: bytes, trigger: Trigger, bucket_width_ms: int) -> None:
    item = trigger_item(trigger, bucket_width_ms)
    item["sk"] = {"B": b64encode(item["sk"]["B"]).decode()}
    assert msgspec.json.decode(raw) == item, (raw, item)


def _key(rng: random.Random, shard_count: int, from_ms: int, to_ms: int) -> TriggerKey:
    job_id = rng.randbytes(JOB_ID_BYTES)
    return TriggerKey(rng.randint(from_ms, to_ms), job_id, shard_of(job_id, shard_count))
