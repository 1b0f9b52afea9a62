"""The inbound message: many scheduled jobs packed into one SQS message, and its codec.

SQS bills a message by 64 KiB chunk and a batch by ten, so a full message carries hundreds of jobs for the price of
one. The body is text, and only of XML-legal characters, because SQS takes nothing else (the API has checked every job
for that): a line of JSON, then the jobs' records, one after another, as they are::

    {"v":3,"mac":"SIGNATURE","jobs":[["TOKEN","CREATE ID"], ...],"bytes":[LENGTH OF ITS RECORD, ...]}
    RECORDRECORD...

The signature covers the text of both lists, and the records, byte for byte, and is verified before anything in them is
decoded.
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

FORMAT = 3
_USE = f"inbound message, format {FORMAT}"
ENTRY_OVERHEAD_BYTES = 96
"""Upper bound of what an entry adds to its job record: token, create id, length, quotes, commas, brackets."""
PACK_OVERHEAD_BYTES = 80
"""Upper bound of what a packed message adds to its entries."""
_HEAD_CHARS_MAX = 2 * PACK_OVERHEAD_BYTES
"""What comes before the entries ends there, in every format so far."""


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


class _Head(msgspec.Struct, frozen=True):
    format: int = msgspec.field(name="v")
    entries: msgspec.Raw = msgspec.field(name="jobs")
    sizes: msgspec.Raw = msgspec.field(name="bytes", default=msgspec.Raw(b""))
    signature: str = msgspec.field(name="mac", default="")


class _Named(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An entry in the first line: without its record."""

    token: str
    create_id: str


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
_DECODER = msgspec.json.Decoder(_Head)
_ENTRY_DECODER = msgspec.json.Decoder(_Named)
_ENTRIES_DECODER = msgspec.json.Decoder(list[msgspec.Raw])
_SIZES_DECODER = msgspec.json.Decoder(list[int])


def pack(entries: Sequence[Entry], seal: Seal) -> str:
    """One inbound message body."""
    named = _ENCODER.encode([(entry.token, entry.create_id) for entry in entries])
    sizes = _ENCODER.encode([len(entry.record) for entry in entries])
    return _message(named, sizes, b"".join([entry.record for entry in entries]), seal)


def is_pack(body: str) -> bool:
    """Does it begin as every `pack` does, of whatever deployment and format? Enough to leave it alone."""
    return body.startswith('{"v":') and '"jobs":' in body[:_HEAD_CHARS_MAX]


def unpack(body: str, seal: Seal) -> Unpacked:
    """Inverse of `pack`. Raises `ValueError` saying what is wrong with a body that this deployment did not write."""
    line, _, records = body.encode("utf-8", errors="surrogatepass").partition(b"\n")
    try:
        head = _DECODER.decode(line)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"not an inbound message: {error}") from error
    if head.format != FORMAT:
        raise ValueError(f"inbound format {head.format} is unknown to this version, which reads format {FORMAT}")
    entries, sizes = bytes(head.entries), bytes(head.sizes)
    if not seal.is_ours(head.signature, _USE, entries, sizes, records):
        raise ValueError(
            "its signature is not this deployment's: another program wrote it, "
            "or an API process with other DYNEIN_TOKEN_SECRETS"
        )
    try:
        return _unpacked(_ENTRIES_DECODER.decode(entries), _SIZES_DECODER.decode(sizes), records, seal)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not an inbound message: {error}") from error


def _unpacked(entries: Sequence[msgspec.Raw], sizes: Sequence[int], records: bytes, seal: Seal) -> Unpacked:
    """Entry by entry: one that cannot be read does not take the others with it."""
    if len(sizes) != len(entries) or any(size < 1 for size in sizes) or sum(sizes) != len(records):
        raise ValueError("not an inbound message: its records are not as long as it says")
    unpacked = Unpacked([], [])
    at = 0
    for raw, size in zip(entries, sizes, strict=True):
        record = records[at : at + size]
        at += size
        try:
            unpacked.arrivals.append(_arrival(_ENTRY_DECODER.decode(raw), record))
        except (msgspec.MsgspecError, InvalidToken) as error:
            reason = f"an entry of an inbound message cannot be read: {error}"
            alone = _message(b"[%b]" % bytes(raw), b"[%d]" % size, record, seal)
            unpacked.unreadable.append(Unreadable(alone, reason))
    return unpacked


def _message(entries: bytes, sizes: bytes, records: bytes, seal: Seal) -> str:
    signature = seal.sign(_USE, entries, sizes, records)
    head = f'{{"v":{FORMAT},"mac":"{signature}","jobs":{entries.decode("utf-8")},"bytes":{sizes.decode("utf-8")}}}'
    return f"{head}\n{records.decode('utf-8')}"


def _arrival(named: _Named, record: bytes) -> Arrival:
    kind, key = parse(named.token)
    trigger = Trigger(key, named.token, record)
    return Arrival(trigger, named.create_id, prepared=kind is TokenKind.PREPARED and bool(named.create_id))
