"""The inbound message: many scheduled jobs packed into one SQS message, and its codec.

SQS bills a message by 64 KiB chunk and a batch by ten, so a full message carries hundreds of jobs for the price of
one. The body is text, and only of XML-legal characters, because SQS takes nothing else (the API has checked
every job for that): a line of JSON that lists the entries, then their records, one after another, as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from dynein.core.job_token import TokenKind, parse
from dynein.core.keys import TriggerKey
from dynein.core.trigger import Trigger
from dynein.errors import InvalidToken

FORMAT = 2
ENTRY_OVERHEAD_BYTES = 96
"""Upper bound of what an entry adds to its job record: token, create id, length, quotes, commas, brackets."""
PACK_OVERHEAD_BYTES = 32
"""Upper bound of what a packed message adds to its entries."""


class Entry(NamedTuple):
    """One job in a packed message."""

    token: str
    create_id: str
    """Names one accepted create call of a prepared token: the first to be ingested wins.

    Empty where there are no creates to distinguish: the token was made with the job; or the job is put back on its way
    (``dynein audit --repair``), and its claim was made long ago by a create whose id is no longer known.
    """
    record: bytes
    """The job as `dynein.core.job.encode_job` wrote it."""

    @property
    def size(self) -> int:
        """Bytes this entry takes in a packed message, rounded up."""
        return len(self.record) + ENTRY_OVERHEAD_BYTES


class _Listed(NamedTuple):
    """An entry in the first line."""

    token: str
    create_id: str
    record_bytes: int


class _Head(msgspec.Struct, frozen=True):
    format: int = msgspec.field(name="v")
    jobs: msgspec.Raw


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """An unpacked entry: a trigger that is not stored yet."""

    trigger: Trigger
    create_id: str
    prepared: bool

    @property
    def key(self) -> TriggerKey:
        """The key its trigger has or would have."""
        return self.trigger.key


_ENCODER = msgspec.json.Encoder()
_HEAD_DECODER = msgspec.json.Decoder(_Head)
_JOBS_DECODER = msgspec.json.Decoder(list[_Listed])


def pack(entries: Sequence[Entry]) -> str:
    """One inbound message body."""
    listed = [_Listed(token, create_id, len(record)) for token, create_id, record in entries]
    head = _ENCODER.encode({"v": FORMAT, "jobs": listed})
    return b"".join([head, b"\n", *[entry.record for entry in entries]]).decode("utf-8")


def unpack(body: str) -> list[Arrival]:
    """Inverse of `pack`. Raises `ValueError` saying what is wrong with a body that is not ours."""
    head, _, records = body.encode("utf-8", errors="surrogatepass").partition(b"\n")
    try:
        decoded = _HEAD_DECODER.decode(head)
        if decoded.format != FORMAT:
            raise ValueError(f"inbound format {decoded.format} is unknown to this version, which reads format {FORMAT}")
        listed = _JOBS_DECODER.decode(decoded.jobs)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"not an inbound message: {error}") from error
    if any(job.record_bytes < 1 for job in listed) or sum(job.record_bytes for job in listed) != len(records):
        raise ValueError("not an inbound message: its records are not as long as it says")
    arrivals: list[Arrival] = []
    at = 0
    for token, create_id, record_bytes in listed:
        try:
            kind, key = parse(token)
        except InvalidToken as error:
            raise ValueError(f"an entry carries no job token: {error}") from error
        trigger = Trigger(key, token, records[at : at + record_bytes])
        at += record_bytes
        arrivals.append(Arrival(trigger, create_id, prepared=kind is TokenKind.PREPARED and bool(create_id)))
    return arrivals
