"""The OpenAPI document: schemas from the msgspec types (`openapi_schemas`), operations from this page.

Written out by hand rather than derived from the routes, since those take and give bytes. A test holds the two together,
and schemathesis drives the running application with it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dynein import __version__
from dynein.api.openapi_schemas import BATCH_REQUEST, REF, component_schemas
from dynein.api.problems import CATALOGUE, PROBLEM_JSON, make
from dynein.api.schemas import DUE_EXAMPLE, DUE_MS_EXAMPLE, TOKEN_EXAMPLE, TRACEPARENT_EXAMPLE
from dynein.core.trace_context import TRACEPARENT
from dynein.settings import Settings

_DESCRIPTION = """\
The right message, to the right queue, at the right time.

`POST /v1/jobs` takes a job; at its due time its body is on its destination SQS queue, exactly as submitted, for any
consumer. A 2xx means that SQS has acknowledged the job. Errors are problem documents (RFC 9457) that name the field and
the fix. Every answer has an `x-request-id`: yours, if you send one of up to 128 visible ASCII characters.

**Retrying.** A job that was answered with 429 may be sent again. So may one that was answered with 503; where its
`detail` says that the job may have been accepted all the same, a repeat can deliver it twice. To exclude that, take a
token first (`POST /v1/tokens`) and send the job with it, as often as need be.

**Tracing.** The W3C trace context of the header `traceparent` comes with the delivered message, as its attribute
`traceparent`: link the consumer's span to it. It never makes a job fail: it is ignored when it is not valid, when the
job brings an attribute of that name, and when there is no room for it among SQS's ten attributes or in the size limit.
"""
_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds to wait."}}
_LOCATION = {"Location": {"schema": {"type": "string"}, "description": "The job: GET, DELETE or PATCH it there."}}
_TRACEPARENT = {
    "name": TRACEPARENT,
    "in": "header",
    "description": "W3C trace context; delivered as the message attribute `traceparent`. Ignored if it is not valid.",
    "schema": {"type": "string"},
    "example": TRACEPARENT_EXAMPLE,
}
_ALWAYS = ("malformed-http", "request-timeout", "headers-too-large", "rate-limited", "overloaded", "internal")
_WITH_BODY = ("malformed-json", "request-too-large", "unsupported-media-type", *_ALWAYS)
_AWS = ("throttled", "unavailable")
_ACCEPTED_EXAMPLE = {
    "token": TOKEN_EXAMPLE,
    "policy": "SCHEDULED",
    "due_at": DUE_EXAMPLE,
    "due_at_ms": DUE_MS_EXAMPLE,
}
_JOB_EXAMPLES = {
    "soon": {"summary": "In 15 minutes", "value": {"queue": "demo", "body": "hello", "delay": "15m"}},
    "json": {
        "summary": "A JSON body on a date, cancellable",
        "value": {
            "queue": "demo",
            "json": {"order": 17},
            "run_at": "2030-01-31T09:00:00+01:00",
            "cancellable": True,
            "name": "remind-17",
            "attributes": {"trace": "abc-123", "attempt": 1},
        },
    },
    "fifo": {
        "summary": "To a FIFO queue",
        "value": {"queue": "orders.fifo", "body": "hello", "message_group_id": "customer-4", "delay": 5},
    },
}


def openapi_document(settings: Settings) -> dict[str, Any]:
    """The document for an application with these settings."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Dynein",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [
            {"name": "jobs", "description": "Submit, look up, cancel and move jobs."},
            {"name": "operation", "description": "Probes and metrics, on every process."},
        ],
        "paths": {**_job_paths(settings), **_operation_paths()},
        "components": {"schemas": component_schemas(batch_jobs_max=settings.batch_jobs_max)},
    }


def _job_paths(settings: Settings) -> dict[str, Any]:
    token = {
        "name": "token",
        "in": "path",
        "required": True,
        "description": "The job's token. One that this deployment did not sign is answered with 404.",
        "schema": {"type": "string"},
        "example": TOKEN_EXAMPLE,
    }
    submit_problems = ("invalid-field", "unknown-queue", "refused-by-sqs", "draining", *_AWS, *_WITH_BODY)
    return {
        "/v1/jobs": {
            "post": _operation(
                "submitJob",
                "Submit a job",
                "Answered once SQS has acknowledged the job. Unknown fields are refused: a misspelt `delay` must not "
                "send at once.",
                body=_json_body("JobRequest", _JOB_EXAMPLES),
                answers={"202": _json_answer("Accepted", "Accepted", _ACCEPTED_EXAMPLE, _LOCATION)},
                problems=submit_problems,
                parameters=[_TRACEPARENT],
            )
        },
        "/v1/jobs/batch": {
            "post": _operation(
                "submitJobs",
                f"Submit up to {settings.batch_jobs_max} jobs",
                "The answer is 200 if the request as a whole could be read; `results` has what came of each job, in "
                "order. One bad job never fails another.",
                body=_json_body(
                    BATCH_REQUEST,
                    {"two": {"value": {"jobs": [_JOB_EXAMPLES["soon"]["value"], _JOB_EXAMPLES["json"]["value"]]}}},
                ),
                answers={"200": _json_answer("BatchAnswer", "What came of each job")},
                problems=("invalid-field", "draining", *_WITH_BODY),
                parameters=[_TRACEPARENT],
            )
        },
        "/v1/tokens": {
            "post": _operation(
                "prepareToken",
                "Prepare a token for a job",
                "Store the token, then submit the job with it, as often as you need to be sure: it is delivered once. "
                "The token fixes the due time, and can be used until a day after it. Such a job is SCHEDULED. "
                "Nothing is stored by this call.",
                body=_json_body("PrepareRequest", {"later": {"value": {"delay": "3d 4h"}}}, required=False),
                answers={"200": _json_answer("Prepared", "The token")},
                problems=("invalid-field", "draining", *_WITH_BODY),
            )
        },
        "/v1/jobs/{token}": {
            "parameters": [token],
            "get": _operation(
                "getJob",
                "Say where a job is",
                "A job that has been delivered leaves no trace: `released` or `handed_to_sqs` is all that can be said.",
                answers={"200": _json_answer("JobStatus", "Where it is")},
                problems=("invalid-token", *_AWS, *_ALWAYS),
            ),
            "delete": _operation(
                "cancelJob",
                "Cancel a job",
                "200 only if the job will not be delivered, also when it is repeated. Some seconds before its due time "
                "a job may be in somebody's hand: then the answer is 409 `too-late`, and it will be delivered.",
                answers={"200": _json_answer("CancelledJob", "It will not be delivered")},
                problems=("invalid-token", "too-late", "already-handed-to-sqs", "moved", *_AWS, *_ALWAYS),
            ),
            "patch": _operation(
                "moveJob",
                "Move a job to another time",
                "Atomic: the job is delivered once, at one of the two times. It gets a new token, and the old one "
                "answers with where it went. A job that has been at that very millisecond before comes a few "
                "milliseconds later; `due_at_ms` says when.",
                body=_json_body("MoveRequest", {"later": {"value": {"delay": "1h"}}}),
                answers={"200": _json_answer("MovedJob", "Moved", headers=_LOCATION)},
                problems=(
                    "invalid-token",
                    "invalid-field",
                    "too-late",
                    "already-handed-to-sqs",
                    "cancelled",
                    "moved",
                    "not-stored-yet",
                    "due-time-passed",
                    *_AWS,
                    *_WITH_BODY,
                ),
            ),
        },
        "/problems/{code}": {
            "get": _operation(
                "explainProblem",
                "Say what a problem type means",
                "Where the `type` of a problem document leads.",
                answers={"200": _text_answer("What it means")},
                problems=("not-found",),
            )
            | {
                "parameters": [
                    {
                        "name": "code",
                        "in": "path",
                        "required": True,
                        "schema": {"type": "string"},
                        "example": "too-late",
                    }
                ]
            }
        },
    }


def _operation_paths() -> dict[str, Any]:
    def probe(operation_id: str, summary: str, status: str, problems: tuple[str, ...]) -> dict[str, Any]:
        answer = {
            "description": summary,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["status"],
                        "properties": {"status": {"const": status}},
                        "additionalProperties": False,
                    }
                }
            },
        }
        return {
            "get": _operation(
                operation_id, summary, summary + ".", answers={"200": answer}, problems=problems, tag="operation"
            )
        }

    return {
        "/healthz": probe("healthz", "The process is alive", "alive", ()),
        "/readyz": probe("readyz", "The process reaches SQS and the table", "ready", ("not-ready",)),
        "/metrics": {
            "get": _operation(
                "metrics",
                "Prometheus metrics",
                "In the text exposition format.",
                answers={"200": _text_answer("Metrics")},
                problems=(),
                tag="operation",
            )
        },
    }


def _operation(
    operation_id: str,
    summary: str,
    description: str,
    *,
    answers: dict[str, Any],
    problems: tuple[str, ...],
    body: dict[str, Any] | None = None,
    parameters: list[dict[str, Any]] | None = None,
    tag: str = "jobs",
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": operation_id,
        "tags": [tag],
        "summary": summary,
        "description": description,
        "responses": {**answers, **_problem_answers(problems)},
    }
    if body is not None:
        operation["requestBody"] = body
    if parameters is not None:
        operation["parameters"] = parameters
    return operation


def _problem_answers(codes: tuple[str, ...]) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for code in sorted(codes, key=lambda code: CATALOGUE[code].status):
        kind = CATALOGUE[code]
        answer = answers.setdefault(
            str(kind.status),
            {
                "description": "",
                "content": {PROBLEM_JSON: {"schema": {"$ref": REF.format(name="Problem")}, "examples": {}}},
            },
        )
        answer["description"] += f"* `{code}`: {kind.title}. {kind.meaning}\n"
        example = msgspec.to_builtins(make(code, kind.meaning, "/v1/jobs"))
        answer["content"][PROBLEM_JSON]["examples"][code] = {"summary": kind.title, "value": example}
        if kind.status in {429, 503} or code == "not-stored-yet":
            answer["headers"] = _RETRY_AFTER
    return answers


def _json_body(schema: str, examples: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    return {
        "required": required,
        "content": {"application/json": {"schema": {"$ref": REF.format(name=schema)}, "examples": examples}},
    }


def _json_answer(
    schema: str, description: str, example: dict[str, Any] | None = None, headers: dict[str, Any] | None = None
) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"$ref": REF.format(name=schema)}}
    if example is not None:
        content["example"] = example
    answer: dict[str, Any] = {"description": description, "content": {"application/json": content}}
    if headers is not None:
        answer["headers"] = headers
    return answer


def _text_answer(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"text/plain": {"schema": {"type": "string"}}}}
