"""What is delivered is what was asked for: body, name, attributes, message group, deduplication id, trace context.

Written from the description of the API (``docs/reference``), not from the code that makes messages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import UNSET, Raw

from dynein.api.schemas import JobRequest
from dynein.core.job import decode_job
from dynein.core.queues import OutgoingMessage

if TYPE_CHECKING:
    from tests.simulation.auditor import Delivery

_ATTRIBUTES_MAX = 10
"""SQS."""
_OWN = ("dynein-token", "dynein-due-at")


class Expected(NamedTuple):
    """What a consumer must find, but for what names the job (its token and its due time)."""

    body: str
    attributes: dict[str, tuple[str, str]]
    """Name to type and value."""
    group: str | None


def body_of(request: JobRequest) -> str:
    """The body that is to be delivered; no two jobs of a run have the same."""
    if request.body is not None:
        return request.body
    if request.body_base64 is not None:
        return request.body_base64
    assert request.json is not UNSET
    return bytes(request.json).decode()


def queue_of(request: JobRequest) -> str:
    """The name of its destination queue, which may be given as a URL."""
    return request.queue.rpartition("/")[2]


def expected_of(request: JobRequest) -> Expected:
    """The message that ``request`` asks for."""
    attributes = attributes_of(request)
    own: dict[str, tuple[str, str]] = {}
    if request.name is not None:
        own["dynein-name"] = "String", request.name
    if request.body_base64 is not None:
        own["dynein-encoding"] = "String", "base64"
    if request.traceparent is not None and len(attributes) + len(own) + len(_OWN) < _ATTRIBUTES_MAX:
        own["traceparent"] = "String", request.traceparent
    return Expected(body_of(request), attributes | own, request.message_group_id)


def attributes_of(request: JobRequest) -> dict[str, tuple[str, str]]:
    """The attributes that it gives, by name: type and value."""
    if request.attributes is UNSET:
        return {}
    given = msgspec.json.decode(request.attributes, type=dict[str, Raw] | None) or {}
    return {name: _typed(bytes(raw)) for name, raw in given.items()}


def _typed(raw: bytes) -> tuple[str, str]:
    value = json.loads(raw)
    if isinstance(value, dict):
        return value["type"], value["value"]
    if isinstance(value, str):
        return "String", value
    return "Number", raw.decode()


def differences(request: JobRequest, delivery: Delivery) -> Iterator[str]:
    """Every difference between what was asked for and what was delivered."""
    message, expected = delivery.message, expected_of(request)
    if delivery.dead_letter:
        yield from _as_a_dead_letter(request, expected, message)
        return
    if delivery.queue != queue_of(request):
        yield f"queue {delivery.queue!r}, not {queue_of(request)!r}"
    if message.body != expected.body:
        yield f"body {message.body[:40]!r}"
    found = {name: (attribute.type, attribute.value) for name, attribute in message.attributes.items()}
    yield from _unlike(expected.attributes, {name: value for name, value in found.items() if name not in _OWN})
    if message.message_group_id != expected.group:
        yield f"message group {message.message_group_id!r}, not {expected.group!r}"
    if delivery.queue.endswith(".fifo"):
        deduplication_id = request.deduplication_id or delivery.token
        if message.deduplication_id != deduplication_id:
            yield f"deduplication id {message.deduplication_id!r}, not {deduplication_id!r}"


def _as_a_dead_letter(request: JobRequest, expected: Expected, message: OutgoingMessage) -> Iterator[str]:
    """It is the job's record, from which it can be sent again."""
    job = decode_job(message.body.encode())
    if job.body != expected.body or job.queue != request.queue:
        yield "dead-lettered as another job"
    user = {name: value for name, value in expected.attributes.items() if name in attributes_of(request)}
    yield from _unlike(user, {name: (attribute.type, attribute.value) for name, attribute in job.attributes.items()})
    ids = job.name, job.message_group_id, job.deduplication_id
    if ids != (request.name, request.message_group_id, request.deduplication_id):
        yield f"dead-lettered with name, group and deduplication id {ids}"


def _unlike(expected: Mapping[str, tuple[str, str]], found: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            yield f"attribute {name}: {found.get(name)}, not {expected.get(name)}"
