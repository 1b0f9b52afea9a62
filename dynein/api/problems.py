"""Every way a request can fail, as an RFC 9457 problem document. The one place that maps `dynein.errors` to HTTP.

``type`` is a path on this same server (``/problems/too-late``), where its meaning can be read; its last part is also in
``code``, for programs. ``field`` names what is wrong in the request, ``fix`` says what to send instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.responses import Response

from dynein.errors import (
    Conflict,
    DyneinError,
    FatalError,
    InvalidField,
    InvalidToken,
    NotSent,
    Overloaded,
    RateLimited,
    Rejected,
    Retryable,
    Throttled,
    UnknownQueue,
)

PROBLEM_JSON = "application/problem+json"
TYPE_PREFIX = "/problems/"


class MalformedJson(Rejected):
    """The body is not JSON."""


class RequestTooLarge(Rejected):
    """The body, or one job of a batch, is larger than it may be."""


class Misdirected(Rejected):
    """The request was addressed to another host."""


class MalformedEncoding(Rejected):
    """The body is not what its ``Content-Encoding`` says."""


class UnsupportedEncoding(Rejected):
    """The body has a ``Content-Encoding`` that is not read here."""


class UnsupportedMediaType(Rejected):
    """A browser sent a form instead of JSON."""


class UnsupportedHeader(Rejected):
    """A header that promises what this API does not do."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not supported: it would be ignored, and a repeat could deliver the job twice.")
        self.name = name


class SendRefused(Rejected):
    """SQS refused the message for good."""


class Draining(Overloaded):
    """Shutting down."""


class Kind(NamedTuple):
    """A problem type: HTTP status, title, and what it means."""

    status: int
    title: str
    meaning: str


CATALOGUE: Mapping[str, Kind] = {
    "malformed-json": Kind(400, "The request is not JSON", "`detail` says at which byte reading ended."),
    "malformed-encoding": Kind(
        400, "The body is not what its encoding says", "`detail` says what is wrong with its gzip data."
    ),
    "unsupported-header": Kind(
        400,
        "A header is not supported",
        "`field` names it, `fix` says what to use instead. It is refused because the request would not do what it asks "
        "for.",
    ),
    "malformed-http": Kind(400, "Not an HTTP/1.1 request", "`detail` says what is wrong. The connection is closed."),
    "not-found": Kind(404, "No such resource", "The path is not one of this API. See /docs."),
    "invalid-token": Kind(
        404,
        "No job has this token",
        "The token was not signed by this deployment: mistyped, cut off, made up, or from another deployment.",
    ),
    "method-not-allowed": Kind(405, "Method not allowed", "The header `Allow` lists the methods of this path."),
    "request-timeout": Kind(
        408,
        "The request came too slowly",
        "`detail` says what was waited for. The connection is closed.",
    ),
    "already-handed-to-sqs": Kind(
        409,
        "SQS has the job",
        "IMMEDIATE and SQS_DELAYED jobs cannot be cancelled or moved: SQS does not give a message back. Submit a job "
        "with `cancellable: true` to be able to.",
    ),
    "cancelled": Kind(409, "The job was cancelled", "A cancelled job cannot be moved. Submit it again."),
    "due-time-passed": Kind(
        409, "The new due time is long past", "That part of the trigger store is no longer read. Move the job to now."
    ),
    "moved": Kind(409, "The job was moved", "It has another token now: `moved_to`. Use that one."),
    "not-stored-yet": Kind(
        409,
        "The job is not stored yet",
        "It is still on its way into the trigger store, or was never created. Try again after `Retry-After` seconds.",
    ),
    "too-late": Kind(
        409,
        "Too late",
        "The job is due, or will be within seconds: a process may already have read it to send it. It was or will be "
        "delivered at its due time.",
    ),
    "request-too-large": Kind(
        413, "Request too large", "`detail` has the limit. Send fewer jobs in one request, or smaller ones."
    ),
    "unsupported-media-type": Kind(
        415, "Not sent as JSON", "A request from a web page must have the content type application/json."
    ),
    "misdirected": Kind(
        421,
        "Not served under this name",
        "The header `Host` names another server. A web page may have done that to reach a Dynein on your own machine.",
    ),
    "unsupported-encoding": Kind(
        415, "Encoding not supported", "Send the body with `Content-Encoding: gzip`, or as it is."
    ),
    "invalid-field": Kind(
        422, "A field is wrong", "`field` names it, `fix` says what to send instead. A retry fails in the same way."
    ),
    "unknown-queue": Kind(
        422, "No such queue", "The destination queue does not exist, or Dynein's credentials may not see it."
    ),
    "refused-by-sqs": Kind(
        422, "SQS refused the message", "`detail` has its code and message. A retry fails in the same way."
    ),
    "headers-too-large": Kind(431, "Headers too large", "Send fewer or shorter headers. The connection is closed."),
    "rate-limited": Kind(
        429,
        "Faster than the rate that is set",
        "`detail` says whose rate it is, a caller's or a destination's. Nothing was accepted: try again after "
        "`Retry-After` seconds.",
    ),
    "throttled": Kind(
        429,
        "AWS throttles requests",
        "SQS or DynamoDB throttles. Nothing was accepted: try again after `Retry-After` seconds.",
    ),
    "internal": Kind(500, "A bug in Dynein", "Please report it with the `x-request-id` of the response."),
    "overloaded": Kind(
        503,
        "Too much at once",
        "A limit of this process is reached. Nothing was accepted: try again after `Retry-After` seconds.",
    ),
    "draining": Kind(
        503, "Shutting down", "This process accepts no new jobs. Try again: another process will respond."
    ),
    "not-sent": Kind(
        503,
        "AWS cannot be reached",
        "SQS or DynamoDB could not be reached. Nothing was sent, so nothing was accepted: try again after "
        "`Retry-After` seconds.",
    ),
    "misconfigured": Kind(
        503,
        "Operator action required",
        "AWS refuses Dynein's calls: its credentials, permissions or set-up are wrong. Nothing was accepted. Try again "
        "after `Retry-After` seconds, when an operator has corrected that.",
    ),
    "unavailable": Kind(
        503,
        "AWS does not respond",
        "A call to SQS or DynamoDB failed or got no response. `detail` says whether the job may have been accepted.",
    ),
    "not-ready": Kind(503, "Not ready", "`detail` lists what this process cannot reach."),
}


class Problem(Struct, frozen=True, omit_defaults=True):
    """A problem document (RFC 9457)."""

    type: Annotated[str, Meta(description="The kind of problem: a path on this server, where its meaning can be read.")]
    title: str
    status: int
    detail: Annotated[str, Meta(description="What happened this time.")]
    code: Annotated[
        str,
        Meta(description="Last part of `type`. Stable, for programs.", extra_json_schema={"enum": list(CATALOGUE)}),
    ]
    instance: Annotated[str | UnsetType, Meta(description="The request, and in a batch the job in it.")] = UNSET
    field: Annotated[str | UnsetType, Meta(description="The field that is wrong, as the caller wrote it.")] = UNSET
    fix: Annotated[str | UnsetType, Meta(description="What to send instead.")] = UNSET
    moved_to: Annotated[str | UnsetType, Meta(description="The token that the job has now.")] = UNSET


def problem_of(error: Exception, instance: str) -> Problem:
    """The document for ``error``. That of an unexpected exception has no details: they go to the log."""
    if isinstance(error, InvalidField):
        named = "The request" if error.field == "$" else error.field
        return make("invalid-field", f"{named} {error.problem}", instance, field=error.field, fix=error.fix)
    if isinstance(error, UnknownQueue):
        return make("unknown-queue", error.detail, instance, field="queue", fix=error.fix)
    if isinstance(error, Conflict):
        code = error.code.replace("_", "-")
        code = code if code in CATALOGUE else "too-late"
        return make(code, error.detail, instance, moved_to=UNSET if error.moved_to is None else error.moved_to)
    if isinstance(error, UnsupportedHeader):
        return make("unsupported-header", str(error), instance, field=error.name, fix=_TOKEN_FIX)
    if not isinstance(error, DyneinError):
        return make("internal", "The server failed unexpectedly; its log has the details.", instance)
    code = next((code for cls, code in _CODES if isinstance(error, cls)), "unavailable")
    return make(code, str(error), instance, fix=_FIXES.get(code, UNSET))


_TOKEN_FIX = (
    "Leave it out. To submit a job safely more than once, take a token with POST /v1/tokens, store it, and send it as "
    "`token`: however often that is repeated, it creates one job. Moving a job to a run_at may be repeated as it is."
)
_CODES: tuple[tuple[type[DyneinError], str], ...] = (
    (InvalidToken, "invalid-token"),
    (MalformedJson, "malformed-json"),
    (UnsupportedMediaType, "unsupported-media-type"),
    (Misdirected, "misdirected"),
    (MalformedEncoding, "malformed-encoding"),
    (UnsupportedEncoding, "unsupported-encoding"),
    (RequestTooLarge, "request-too-large"),
    (Rejected, "refused-by-sqs"),
    (Draining, "draining"),
    (Overloaded, "overloaded"),
    (RateLimited, "rate-limited"),
    (Throttled, "throttled"),
    (NotSent, "not-sent"),
    (FatalError, "misconfigured"),
)
"""The first that fits; ``unavailable`` for any other."""
_FIXES = {
    "unsupported-media-type": "Set content-type: application/json.",
    "misdirected": "Use localhost, or list the name in the setting allowed_hosts (DYNEIN_ALLOWED_HOSTS).",
}


def make(
    code: str,
    detail: str,
    instance: str | UnsetType,
    *,
    field: str | UnsetType = UNSET,
    fix: str | UnsetType = UNSET,
    moved_to: str | UnsetType = UNSET,
) -> Problem:
    """A document of the catalogue's type ``code``."""
    kind = CATALOGUE[code]
    return Problem(TYPE_PREFIX + code, kind.title, kind.status, detail, code, instance, field, fix, moved_to)


def headers_of(error: Exception) -> dict[str, str]:
    """``Retry-After`` in whole seconds where a retry can help; ``Connection: close`` where it should reconnect."""
    headers: dict[str, str] = {}
    if isinstance(error, Retryable):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    elif isinstance(error, Conflict) and error.code == "not-stored-yet":
        headers["retry-after"] = "1"
    elif isinstance(error, DyneinError) and not isinstance(error, Rejected):
        headers["retry-after"] = "10"  # operator action is required
    if isinstance(error, UnsupportedEncoding):
        headers["accept-encoding"] = "gzip"  # RFC 9110, 15.5.16
    if isinstance(error, (Draining, RequestTooLarge)):
        headers["connection"] = "close"
    return headers


def respond(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The document as an HTTP response."""
    return Response(msgspec.json.encode(problem), problem.status, headers=dict(headers or {}), media_type=PROBLEM_JSON)
