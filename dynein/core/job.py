"""What a user submits, and how it is written down on its way.

A `Job` is encoded once, by the API, and travels as those bytes through inbound queue and trigger store until a
dispatcher reads it: it is not decoded in between. The encoding is JSON with short keys, so that an operator
can read an item in the console.

``gc=False`` on what exists once a job, here and elsewhere: it cannot be part of a cycle, and the garbage collector need
not walk through tens of thousands of them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

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


class Job(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Everything needed to deliver a job, but for its due time (in its `TriggerKey`) and its token."""

    queue: str = msgspec.field(name="q")
    """Destination queue: name, or URL for a queue of another account."""
    body: str = msgspec.field(name="b")
    """The message body, byte for byte."""
    name: str | None = msgspec.field(name="n", default=None)
    attributes: dict[str, Attribute] = msgspec.field(name="a", default_factory=dict)
    message_group_id: str | None = msgspec.field(name="g", default=None)
    deduplication_id: str | None = msgspec.field(name="d", default=None)
    body_is_base64: bool = msgspec.field(name="e", default=False)
    traceparent: str | None = msgspec.field(name="t", default=None)
    """The W3C trace context of the request that submitted it, if there is room; see `dynein.core.trace_context`."""


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Job)


def encode_job(job: Job) -> bytes:
    """The travelling form."""
    return _ENCODER.encode(job)


def decode_job(raw: bytes | str) -> Job:
    """Inverse of `encode_job`. Raises `ValueError` for bytes that are not a job."""
    try:
        return _DECODER.decode(raw)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"not a job record: {error}") from error
