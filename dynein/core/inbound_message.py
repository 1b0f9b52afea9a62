"""The inbound message: many scheduled jobs packed into one SQS message, and its codec.

SQS bills a message by 64 KiB chunk and a batch by ten, so a full message carries hundreds of jobs for the price of
one. The body is JSON: SQS takes only text, and only XML-legal characters (the API has checked every job for that).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dynein.core.job_token import TokenKind, parse
from dynein.core.keys import TriggerKey
from dynein.core.trigger import Trigger
from dynein.errors import InvalidToken

FORMAT = 1
ENTRY_OVERHEAD_BYTES = 96
"""Upper bound of what an entry adds to its job record: token, create id, quotes, commas, brackets."""
PACK_OVERHEAD_BYTES = 32
"""Upper bound of what a packed message adds to its entries."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One job in a packed message."""

    token: str
    create_id: str
    """Names one accepted create call of a prepared token: the first to be ingested wins.

    Empty where there are no creates to distinguish: the token was made with the job; or the job is put back on its way
    (``dynein audit --repair``), and its claim was made long ago by a create whose id is no longer known.
    """
    record: msgspec.Raw

    @property
    def size(self) -> int:
        """Bytes this entry takes in a packed message, rounded up."""
        return len(bytes(self.record)) + ENTRY_OVERHEAD_BYTES


class _Pack(msgspec.Struct, frozen=True):
    format: int = msgspec.field(name="v")
    entries: list[Entry] = msgspec.field(name="jobs")


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
_DECODER = msgspec.json.Decoder(_Pack)


def pack(entries: Sequence[Entry]) -> str:
    """One inbound message body."""
    return _ENCODER.encode(_Pack(format=FORMAT, entries=list(entries))).decode("utf-8")


def is_pack(body: str) -> bool:
    """Does it begin as every `pack` does, of whatever format? Enough to leave it alone; `unpack` checks it."""
    return body.startswith('{"v":') and '"jobs":' in body[:64]


def unpack(body: str) -> list[Arrival]:
    """Inverse of `pack`. Raises `ValueError` saying what is wrong with a body that is not ours."""
    try:
        decoded = _DECODER.decode(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"not an inbound message: {error}") from error
    if decoded.format != FORMAT:
        raise ValueError(f"inbound format {decoded.format} is unknown to this version, which reads format {FORMAT}")
    try:
        return [_arrival(entry) for entry in decoded.entries]
    except InvalidToken as error:
        raise ValueError(f"an entry carries no job token: {error}") from error


def _arrival(entry: Entry) -> Arrival:
    kind, key = parse(entry.token)
    trigger = Trigger(key, entry.token, bytes(entry.record))
    return Arrival(trigger, entry.create_id, prepared=kind is TokenKind.PREPARED and bool(entry.create_id))
