"""Requests to the API and its results, as Python types. Pure."""

from __future__ import annotations

import datetime as dt
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from dynein.core.job import Policy

When = dt.datetime | float | str
"""A moment: a datetime with an offset, milliseconds since 1970, or text such as RFC 3339's. With a ``timezone`` beside
it, a local time: a datetime without an offset, or text without one."""
Delay = dt.timedelta | float | str
"""How long from now: a timedelta, seconds, or text such as ``"15m"`` or ``"PT2H"``."""
Attribute = str | int | float | Decimal | bytes
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND = dt.timedelta(milliseconds=1)


# One field for each that a user may send.
@dataclass(frozen=True, slots=True)
class Job:
    """A job to submit: ``Job("emails", json={"to": 42}, delay="15m")``. The fields are those of ``POST /v1/jobs``.

    The message body is either ``body`` (text; or bytes, which are delivered as base64) or ``json`` (whatever msgspec
    can encode). With neither ``run_at`` nor ``delay`` it is due now. The API validates it; only what
    cannot be encoded is refused here, with a `ValueError` that names the field.
    """

    queue: str
    _: KW_ONLY
    body: str | bytes | None = None
    json: Any = UNSET
    run_at: When | None = None
    timezone: str | None = None
    """The IANA time zone of a ``run_at`` without an offset, such as ``"Europe/Berlin"``."""
    delay: Delay | None = None
    policy: Policy | None = None
    cancellable: bool = False
    name: str | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    message_group_id: str | None = None
    deduplication_id: str | None = None
    allow_for_queue_delay: bool = False
    """On a FIFO queue that delays every message: send it that much earlier."""
    token: str | None = None
    """A prepared one: however often the job is submitted with it, it is delivered once."""
    traceparent: str | None = None


def moment(epoch_ms: int) -> dt.datetime:
    """UTC."""
    return _EPOCH + epoch_ms * _MILLISECOND


class _Due(Struct, frozen=True):
    token: str
    due_at_ms: int

    @property
    def due_at(self) -> dt.datetime:
        """UTC, exact to the millisecond."""
        return moment(self.due_at_ms)


class JobWarning(Struct, frozen=True):
    """Something about an accepted job that you most likely do not want."""

    code: str
    detail: str
    fix: str


class Accepted(_Due, frozen=True):
    """An accepted job: SQS has acknowledged it. ``policy`` is the one chosen, never `Policy.AUTO`."""

    policy: Policy
    warnings: tuple[JobWarning, ...] = ()


class Prepared(_Due, frozen=True):
    """A token for a job that does not exist yet."""


class Moved(_Due, frozen=True):
    """A job with a new due time and, unless that is the old one, a new token."""

    previous_token: str


class Status(_Due, frozen=True):
    """The state of a job. ``state`` is one of the API's (see ``GET /v1/jobs/{token}`` in its ``/docs``)."""

    state: str
    policy: Policy
    cancellable: bool
    """Whether a cancel would have succeeded."""
    queue: str | None = None
    name: str | None = None
    moved_to: str | None = None


def encode_job(job: Job) -> bytes:
    """As JSON. Raises `ValueError` naming the field."""
    given: dict[str, Any] = {
        "queue": job.queue,
        **_body(job.body),
        **encode_when(job.run_at, job.delay, job.timezone),
        "policy": job.policy,
        "cancellable": job.cancellable or None,
        "name": job.name,
        "attributes": {name: _attribute(value) for name, value in job.attributes.items()} or None,
        "message_group_id": job.message_group_id,
        "deduplication_id": job.deduplication_id,
        "allow_for_queue_delay": job.allow_for_queue_delay or None,
        "token": job.token,
        "traceparent": job.traceparent,
    }
    fields = {name: value for name, value in given.items() if value is not None}
    if job.json is not UNSET:
        fields["json"] = job.json
    try:
        return msgspec.json.encode(fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a job for {job.queue!r} cannot be written as JSON: {error}") from error


def encode_when(run_at: When | None, delay: Delay | None, timezone: str | None) -> dict[str, Any]:
    """The fields for a due time that are given. Raises `ValueError` naming the field."""
    given = {"run_at": _moment(run_at, timezone), "timezone": timezone, "delay": _span(delay)}
    return {name: value for name, value in given.items() if value is not None}


def _body(body: str | bytes | None) -> dict[str, str | None]:
    return {"body_base64": b64encode(body).decode()} if isinstance(body, bytes) else {"body": body}


def _moment(run_at: When | None, timezone: str | None) -> float | str | None:
    """A datetime as milliseconds, rounded up: no job is early. With a ``timezone``, as text."""
    if not isinstance(run_at, dt.datetime):
        return run_at
    if timezone is not None:
        return run_at.isoformat()
    if run_at.utcoffset() is None:
        raise ValueError(
            f"run_at {run_at.isoformat()} has no offset: give it a tzinfo, such as datetime.UTC, or send timezone"
        )
    return -((_EPOCH - run_at) // _MILLISECOND)


def _span(delay: Delay | None) -> float | str | None:
    return delay.total_seconds() if isinstance(delay, dt.timedelta) else delay


def _attribute(value: Attribute) -> Any:  # noqa: ANN401 - a JSON value
    if isinstance(value, bytes):
        return {"type": "Binary", "value": b64encode(value).decode()}
    return {"type": "Number", "value": str(value)} if isinstance(value, Decimal) else value
