"""From a request to a job that is ready to be sent: checked, with a policy and a token, encoded. No I/O."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from msgspec import UNSET

from dynein.api import checks
from dynein.api.decoding import decode_attributes
from dynein.api.due_time import MS_PER_DAY
from dynein.api.job_warnings import warnings_of
from dynein.api.policy import KIND_OF, When, choose_policy, due_at_ms, due_by_token_ms, send_at_ms
from dynein.api.schemas import JobRequest, JobWarning
from dynein.core.delivered_message import has_room_for_traceparent, outgoing_bytes
from dynein.core.job import Job, Policy, encode_job
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import TriggerKey
from dynein.core.queues import Destination
from dynein.core.trace_context import parse_traceparent
from dynein.errors import InvalidField, InvalidToken
from dynein.settings import Settings

PREPARED_VALID_MS = MS_PER_DAY
"""How long after its due time a prepared token still creates its job. The claim that makes a second create harmless
stays in the table for 15 days from the due time, and an inbound message lives for 14 at most: one day is left."""


class Draft(NamedTuple):
    """A job ready to be sent."""

    token: str
    policy: Policy
    due_at_ms: int
    job: Job
    message_bytes: int
    """The size of the message that will be delivered."""
    record: bytes
    """The job as `dynein.core.job.encode_job` wrote it; empty unless it is SCHEDULED."""
    warnings: tuple[JobWarning, ...]

    @property
    def wanted_at_ms(self) -> int:
        """When the caller wants it on its queue. It is sent earlier if that queue delays every message."""
        return self.due_at_ms + self.job.lead_ms


def draft(
    request: JobRequest,
    destination: Destination,
    now_ms: int,
    key: TriggerKey,
    signer: TokenSigner,
    settings: Settings,
    own_bytes_max: int,
    traceparent: str | None = None,
) -> Draft:
    """Check ``request`` and choose its policy. ``key``: id and shard of a new job; a prepared token has its own.

    ``own_bytes_max``: the largest message of the inbound and of the dead-letter queue.

    ``traceparent``: the trace context of the HTTP request; one in ``request`` itself takes precedence.

    Raises `InvalidField`.
    """
    limits = checks.SizeLimits(destination.message_bytes_max or settings.message_bytes_max, own_bytes_max)
    job, field = _job(request, destination, traceparent, limits.queue_bytes)
    prepared = _prepared(request.token, signer, now_ms) if request.token is not None else None
    when = When(request.run_at, request.delay, request.timezone)
    if prepared is None:
        due_ms = due_at_ms(when, now_ms, delay_max_days=settings.delay_max_days)
    else:
        due_ms = due_by_token_ms(when, prepared.key.due_at_ms)
    wanted_ms = due_ms
    if request.allow_for_queue_delay:
        due_ms = send_at_ms(due_ms, now_ms, destination.imposed_delay_s, prepared=prepared is not None)
        job = msgspec.structs.replace(job, lead_ms=wanted_ms - due_ms)
    policy = choose_policy(
        request.policy or Policy.AUTO,
        due_ms,
        now_ms,
        fifo=destination.fifo,
        cancellable=bool(request.cancellable),
        prepared=prepared is not None,
    )
    new = TriggerKey(due_ms, key.job_id, key.shard)
    token = request.token or signer.sign(JobRef(KIND_OF[policy], new))
    unsized = Draft(
        token,
        policy,
        due_ms,
        job,
        0,
        b"",
        warnings_of(job, destination, in_order=prepared is None or prepared.key.shard == key.shard),
    )
    try:
        return _sized(unsized, field, limits)
    except InvalidField:
        if job.traceparent is None:
            raise
        return _sized(unsized._replace(job=msgspec.structs.replace(job, traceparent=None)), field, limits)


def _sized(new: Draft, field: str, limits: checks.SizeLimits) -> Draft:
    """The draft with its sizes and its record. Raises `InvalidField` for ``field`` when it is too large."""
    size = outgoing_bytes(new.job, new.wanted_at_ms)
    scheduled = new.policy is Policy.SCHEDULED
    record = encode_job(new.job) if scheduled else b""
    checks.sizes(field, limits, message_bytes=size, record_bytes=len(record), scheduled=scheduled)
    return new._replace(message_bytes=size, record=record)


def _job(
    request: JobRequest, destination: Destination, traceparent: str | None, message_bytes_max: int
) -> tuple[Job, str]:
    body, field = _body(request, message_bytes_max)
    base64_body = field == "body_base64"
    if request.name is not None:
        checks.job_name(request.name)
    attributes = decode_attributes(request.attributes)
    if attributes:
        checks.attributes(attributes, named=request.name is not None, base64_body=base64_body)
    _ids(request, fifo=destination.fifo)
    if request.traceparent is not None:
        traceparent = parse_traceparent(request.traceparent) or traceparent
    if traceparent is not None and not has_room_for_traceparent(
        attributes, named=request.name is not None, base64=base64_body
    ):
        traceparent = None
    job = Job(
        queue=request.queue,
        body=body,
        name=request.name,
        attributes=attributes,
        message_group_id=request.message_group_id,
        deduplication_id=request.deduplication_id,
        body_is_base64=base64_body,
        traceparent=traceparent,
    )
    return job, field


def _body(request: JobRequest, bytes_max: int) -> tuple[str, str]:
    """The body's text, and the field it came in."""
    body, json, body_base64 = request.body, request.json, request.body_base64
    if (body is not None) + (json is not UNSET) + (body_base64 is not None) != 1:
        raise _not_one_body(request)
    if body is not None:
        checks.length("body", body, bytes_max)
        checks.text("body", body)
        return body, "body"
    if body_base64 is not None:
        checks.length("body_base64", body_base64, bytes_max)
        checks.base64_text("body_base64", body_base64)
        return body_base64, "body_base64"
    assert json is not UNSET
    text = _json_text(bytes(json))
    checks.length("json", text, bytes_max)
    checks.text("json", text)
    return text, "json"


def _not_one_body(request: JobRequest) -> InvalidField:
    given = [field for field in ("body", "json", "body_base64") if getattr(request, field) not in (None, UNSET)]
    return InvalidField(
        given[1] if given else "body",
        f"cannot be sent together with {given[0]}." if given else "is missing.",
        "Send exactly one of body, json and body_base64.",
    )


def _json_text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidField("json", f"is not UTF-8 at byte {error.start}.", "Send UTF-8, as JSON requires.") from error


def _ids(request: JobRequest, *, fifo: bool) -> None:
    if request.message_group_id is not None:
        checks.message_id("message_group_id", request.message_group_id)
    elif fifo:
        raise InvalidField("message_group_id", "is missing.", "A FIFO queue needs one: jobs of a group stay in order.")
    if request.deduplication_id is not None:
        if not fifo:
            raise InvalidField(
                "deduplication_id", "only works on a FIFO queue.", "Leave it out, or send to a queue named *.fifo."
            )
        checks.message_id("deduplication_id", request.deduplication_id)


def _prepared(token: str, signer: TokenSigner, now_ms: int) -> JobRef:
    fix = "Send a token from POST /v1/tokens, or leave it out."
    try:
        ref = signer.verify(token)
    except InvalidToken as error:
        raise InvalidField("token", f"is not valid: {error}.", fix) from error
    if ref.kind is not TokenKind.PREPARED:
        raise InvalidField("token", "belongs to a job that exists.", fix)
    if now_ms > ref.key.due_at_ms + PREPARED_VALID_MS:
        raise InvalidField("token", "was prepared for a time that is more than a day ago.", fix)
    return ref
