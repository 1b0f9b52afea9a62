"""The inbound message: many scheduled jobs packed into one SQS message, and its codec.

SQS bills a message by 64 KiB chunk and a batch by ten, so a full message carries hundreds of jobs for the price of
one. The body is JSON: SQS takes only text, and only XML-legal characters (the API has checked every job for that)::

    {"v": 2, "mac": "SIGNATURE", "jobs": [["TOKEN", "CREATE ID", {the job's record}], ...]}

The signature covers the text of the list, byte for byte, and is verified before anything in the list is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from dynein.core.job_token import TokenKind, parse
from dynein.core.keys import TriggerKey
from dynein.core.seal import Seal
from dynein.core.trigger import Trigger
from dynein.errors import InvalidToken

FORMAT = 2
_USE = f"inbound message, format {FORMAT}"
ENTRY_OVERHEAD_BYTES = 96
"""Upper bound of what an entry adds to its job record: token, create id, quotes, commas, brackets."""
PACK_OVERHEAD_BYTES = 64
"""Upper bound of what a packed message adds to its entries."""
_HEAD_CHARS_MAX = 2 * PACK_OVERHEAD_BYTES
"""What comes before the entries ends there, in every format so far."""


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


class _Message(msgspec.Struct, frozen=True):
    format: int = msgspec.field(name="v")
    entries: msgspec.Raw = msgspec.field(name="jobs")
    signature: str = msgspec.field(name="mac", default="")


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """An unpacked entry: a trigger that is not stored yet."""

    trigger: Trigger
    create_id: str
    prepared: bool

    @property
    def key(self) -> TriggerKey:
        """The key its trigger has or would have."""
        return self.trigger.key


class Unreadable(NamedTuple):
    """An entry that this version cannot read."""

    body: str
    """An inbound message, signed, with this entry alone."""
    reason: str


class Unpacked(NamedTuple):
    """What an inbound message holds."""

    arrivals: list[Arrival]
    unreadable: list[Unreadable]


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(_Message)
_ENTRIES_DECODER = msgspec.json.Decoder(list[Entry])
_ENTRY_DECODER = msgspec.json.Decoder(Entry)
_RAW_ENTRIES_DECODER = msgspec.json.Decoder(list[msgspec.Raw])


def pack(entries: Sequence[Entry], seal: Seal) -> str:
    """One inbound message body."""
    return _message(_ENCODER.encode(list(entries)), seal)


def is_pack(body: str) -> bool:
    """Does it begin as every `pack` does, of whatever deployment and format? Enough to leave it alone."""
    return body.startswith('{"v":') and '"jobs":' in body[:_HEAD_CHARS_MAX]


def unpack(body: str, seal: Seal) -> Unpacked:
    """Inverse of `pack`. Raises `ValueError` saying what is wrong with a body that this deployment did not write."""
    try:
        message = _DECODER.decode(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"not an inbound message: {error}") from error
    if message.format != FORMAT:
        raise ValueError(f"inbound format {message.format} is unknown to this version, which reads format {FORMAT}")
    entries = bytes(message.entries)
    if not seal.is_ours(message.signature, _USE, entries):
        raise ValueError(
            "its signature is not this deployment's: another program wrote it, "
            "or an API process with other DYNEIN_TOKEN_SECRETS"
        )
    try:
        return Unpacked([_arrival(entry) for entry in _ENTRIES_DECODER.decode(entries)], [])
    except (msgspec.MsgspecError, InvalidToken):
        return _unpack_each(entries, seal)


def _unpack_each(entries: bytes, seal: Seal) -> Unpacked:
    """Entry by entry, since one of them cannot be read: the others can."""
    try:
        raw_entries = _RAW_ENTRIES_DECODER.decode(entries)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not an inbound message: {error}") from error
    unpacked = Unpacked([], [])
    for raw in raw_entries:
        try:
            unpacked.arrivals.append(_arrival(_ENTRY_DECODER.decode(raw)))
        except (msgspec.MsgspecError, InvalidToken) as error:
            reason = f"an entry of an inbound message cannot be read: {error}"
            unpacked.unreadable.append(Unreadable(_message(b"[%b]" % bytes(raw), seal), reason))
    return unpacked


def _message(entries: bytes, seal: Seal) -> str:
    return f'{{"v":{FORMAT},"mac":"{seal.sign(_USE, entries)}","jobs":{entries.decode("utf-8")}}}'


def _arrival(entry: Entry) -> Arrival:
    kind, key = parse(entry.token)
    trigger = Trigger(key, entry.token, bytes(entry.record))
    return Arrival(trigger, entry.create_id, prepared=kind is TokenKind.PREPARED and bool(entry.create_id))
