"""The delivered message: what a consumer finds on its queue. Pure.

The body is exactly what was submitted. Message attributes are the user's own plus ours, under a prefix; a consumer
needs none of them, and never a library of ours. ``traceparent``, the submitter's trace context, has the name that
consumers' tracing libraries look for, so no prefix; it takes only what room the user's attributes leave.
"""

from __future__ import annotations

from collections.abc import Mapping

from dynein.core.job import Attribute, Job
from dynein.core.job_token import TOKEN_CHARS
from dynein.core.queues import ATTRIBUTES_MAX, OutgoingMessage, message_bytes, utf8_bytes
from dynein.core.trace_context import TRACEPARENT

PREFIX = "dynein-"
TOKEN_ATTRIBUTE = "dynein-token"
DUE_AT_ATTRIBUTE = "dynein-due-at"
"""When the job was due, milliseconds since the epoch, as a Number."""
NAME_ATTRIBUTE = "dynein-name"
ENCODING_ATTRIBUTE = "dynein-encoding"
"""Present, with the value ``base64``, when the job was submitted with ``body_base64``: the body is that base64 text."""

_TOKEN_BYTES = len(TOKEN_ATTRIBUTE) + len("String") + TOKEN_CHARS
_DUE_AT_BYTES = len(DUE_AT_ATTRIBUTE) + len("Number")
_NAME_BYTES = len(NAME_ATTRIBUTE) + len("String")
_ENCODING_BYTES = len(ENCODING_ATTRIBUTE) + len("String") + len("base64")
_TRACEPARENT_BYTES = len(TRACEPARENT) + len("String")


def own_attributes_count(*, named: bool, base64: bool) -> int:
    """How many of SQS's ten attributes we take for such a job."""
    return 2 + named + base64


def user_attributes_max(*, named: bool, base64: bool) -> int:
    """How many attributes such a job may bring."""
    return ATTRIBUTES_MAX - own_attributes_count(named=named, base64=base64)


def has_room_for_traceparent(attributes: Mapping[str, Attribute], *, named: bool, base64: bool) -> bool:
    """May a trace context go with such a job? Not in place of an attribute of the user's."""
    return TRACEPARENT not in attributes and len(attributes) < user_attributes_max(named=named, base64=base64)


def outgoing_bytes(job: Job, due_at_ms: int) -> int:
    """The size of `outgoing_message`, as `dynein.core.queues.message_bytes` counts it, without making the message."""
    size = message_bytes(job.body, job.attributes) + _TOKEN_BYTES + _DUE_AT_BYTES + len(str(due_at_ms))
    if job.name is not None:
        size += _NAME_BYTES + utf8_bytes(job.name)
    if job.traceparent is not None:
        size += _TRACEPARENT_BYTES + len(job.traceparent)
    return size + _ENCODING_BYTES if job.body_is_base64 else size


def outgoing_message(job: Job, token: str, due_at_ms: int, *, fifo: bool, delay_s: int = 0) -> OutgoingMessage:
    """The message for ``job``. On a FIFO queue the token is the deduplication id, unless the user gave one."""
    attributes = dict(job.attributes)
    attributes[TOKEN_ATTRIBUTE] = Attribute("String", token)
    attributes[DUE_AT_ATTRIBUTE] = Attribute("Number", str(due_at_ms))
    if job.name is not None:
        attributes[NAME_ATTRIBUTE] = Attribute("String", job.name)
    if job.body_is_base64:
        attributes[ENCODING_ATTRIBUTE] = Attribute("String", "base64")
    if job.traceparent is not None:
        attributes[TRACEPARENT] = Attribute("String", job.traceparent)
    return OutgoingMessage(
        body=job.body,
        attributes=attributes,
        delay_s=delay_s,
        message_group_id=job.message_group_id,
        deduplication_id=(job.deduplication_id or token) if fifo else None,
    )
