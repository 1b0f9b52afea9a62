"""What a user submits, and how it is written down on its way.

A `Job` is encoded once, by the API, and travels as those bytes through inbound queue and trigger store until a
dispatcher reads it: it is not decoded in between. This *record* is a line of JSON with short keys, then the values of
its attributes, then its body, as they are::

    {"q":"emails","n":"dunning","a":{"tenant":["String",4]}}
    acmeDear customer, ...

So an operator can read an item in the console, and a record is hardly longer than the message that is delivered: JSON
would write two characters for each quotation mark, backslash and line break of the body, and a job that SQS takes at
once would be too large to be kept until later.

``gc=False`` on what exists once a job, here and elsewhere: it cannot be part of a cycle, and the garbage collector need
not walk through tens of thousands of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, NamedTuple

import msgspec

from dynein.core.queue_address import is_fifo

AttributeType = Literal["String", "Number", "Binary"]


class Policy(StrEnum):
    """How a job gets to its destination queue at its due time."""

    AUTO = "AUTO"
    IMMEDIATE = "IMMEDIATE"
    SQS_DELAYED = "SQS_DELAYED"
    SCHEDULED = "SCHEDULED"


class Attribute(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A user's message attribute, as SQS types it. The value of a Binary attribute is base64 text."""

    type: str
    """``String``, ``Number`` or ``Binary``, with an optional custom suffix (``String.uuid``)."""
    value: str


class Job(msgspec.Struct, frozen=True, gc=False):
    """Everything needed to deliver a job, but for its due time (in its `TriggerKey`) and its token."""

    queue: str
    """Destination queue: name, or URL for a queue of another account."""
    body: str
    """The message body, byte for byte."""
    name: str | None = None
    attributes: dict[str, Attribute] = msgspec.field(default_factory=dict)
    message_group_id: str | None = None
    deduplication_id: str | None = None
    body_is_base64: bool = False
    lead_ms: int = 0
    """How long before the time that the caller asked for it is sent, because its queue delays every message."""
    traceparent: str | None = None
    """The W3C trace context of the request that submitted it, if there is room; see `dynein.core.trace_context`."""


class _Sized(NamedTuple):
    """An attribute in a record's first line; its value comes after that line."""

    type: str
    value_bytes: int


class _Header(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A record's first line: a job without what may be large."""

    queue: str = msgspec.field(name="q")
    name: str | None = msgspec.field(name="n", default=None)
    attributes: dict[str, _Sized] = msgspec.field(name="a", default_factory=dict)
    message_group_id: str | None = msgspec.field(name="g", default=None)
    deduplication_id: str | None = msgspec.field(name="d", default=None)
    body_is_base64: bool = msgspec.field(name="e", default=False)
    lead_ms: int = msgspec.field(name="l", default=0)
    traceparent: str | None = msgspec.field(name="t", default=None)


class _Queue(msgspec.Struct, frozen=True, gc=False):
    queue: str = msgspec.field(name="q")


_ENCODER = msgspec.json.Encoder()
_QUEUE_DECODER = msgspec.json.Decoder(_Queue)
_DECODER = msgspec.json.Decoder(_Header)


def encode_job(job: Job) -> bytes:
    """The travelling form."""
    sized: dict[str, _Sized] = {}
    values = b""
    if job.attributes:
        encoded = [attribute.value.encode("utf-8") for attribute in job.attributes.values()]
        sized = {
            name: _Sized(attribute.type, len(value))
            for (name, attribute), value in zip(job.attributes.items(), encoded, strict=True)
        }
        values = b"".join(encoded)
    header = _Header(
        job.queue,
        job.name,
        sized,
        job.message_group_id,
        job.deduplication_id,
        job.body_is_base64,
        job.lead_ms,
        job.traceparent,
    )
    return b"%b\n%b%b" % (_ENCODER.encode(header), values, job.body.encode("utf-8"))


def is_for_fifo_queue(record: bytes) -> bool:
    """Whether a record's job goes to a FIFO queue, without decoding all of it; ``False`` for one that is no record."""
    try:
        return is_fifo(_QUEUE_DECODER.decode(record.partition(b"\n")[0]).queue)
    except (msgspec.MsgspecError, RecursionError):
        return False


def decode_job(record: bytes) -> Job:
    """Inverse of `encode_job`. Raises `ValueError` for bytes that are not a job."""
    line, end_of_line, rest = record.partition(b"\n")
    if not end_of_line:
        raise ValueError("not a job record: it is a single line")
    try:
        header = _DECODER.decode(line)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"not a job record: {error}") from error
    attributes: dict[str, Attribute] = {}
    if header.attributes:
        rest = _read_attributes(header.attributes, rest, attributes)
    return Job(
        header.queue,
        rest.decode("utf-8"),
        header.name,
        attributes,
        header.message_group_id,
        header.deduplication_id,
        header.body_is_base64,
        header.lead_ms,
        header.traceparent,
    )


def _read_attributes(sized: Mapping[str, _Sized], rest: bytes, attributes: dict[str, Attribute]) -> bytes:
    """Fill in ``attributes`` from what follows the first line; returns what follows them."""
    at = 0
    for name, (kind, value_bytes) in sized.items():
        end = at + value_bytes
        if not at <= end <= len(rest):
            raise ValueError(f"not a job record: it ends before the value of attribute {name!r}")
        attributes[name] = Attribute(kind, rest[at:end].decode("utf-8"))
        at = end
    return rest[at:]
