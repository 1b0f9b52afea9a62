"""The OpenAPI document: schemas from the msgspec types (`openapi_schemas`), operations written out here.

Written by hand rather than derived from the routes, since those handle bytes. A test checks that the two agree, and
schemathesis tests the running application against it.
"""

from __future__ import annotations

from typing import Any

from dynein import __version__
from dynein.api.openapi_operations import json_body, json_response, operation, text_response
from dynein.api.openapi_schemas import BATCH_REQUEST, component_schemas
from dynein.api.schemas import DUE_EXAMPLE, DUE_MS_EXAMPLE, TOKEN_EXAMPLE, TRACEPARENT_EXAMPLE
from dynein.core.trace_context import TRACEPARENT
from dynein.settings import Settings

_DESCRIPTION = """\
The right message, to the right queue, at the right time.

`POST /v1/jobs` accepts a job; at its due time its body is on its destination SQS queue, exactly as submitted, for any
consumer. A 2xx means that SQS has acknowledged the job. Errors are problem documents (RFC 9457) that name the field and
the fix. Every response has an `x-request-id`: yours, if you send one of up to 128 visible ASCII characters.

**Retrying.** After a 429, a job may be sent again. After a 503 too; but if the `detail` says that the job may have been
accepted all the same, sending it again can deliver it twice. To prevent that, take a token first (`POST /v1/tokens`)
and submit the job with it, as often as needed.

**Tracing.** The W3C trace context of the header `traceparent` is delivered with the message, as its attribute
`traceparent`: link the consumer's span to it. It never makes a job fail: it is ignored if it is not valid, if the job
has an attribute of that name, and if there is no room for it among SQS's ten attributes or within the size limit.
"""
_LOCATION = {"Location": {"schema": {"type": "string"}, "description": "The job's path, for GET, DELETE and PATCH."}}
_TRACEPARENT = {
    "name": TRACEPARENT,
    "in": "header",
    "description": "W3C trace context; delivered as the message attribute `traceparent`. Ignored if it is not valid.",
    "schema": {"type": "string"},
    "example": TRACEPARENT_EXAMPLE,
}
_ALWAYS = (
    "malformed-http",
    "misdirected",
    "request-timeout",
    "headers-too-large",
    "rate-limited",
    "overloaded",
    "internal",
)
_WITH_BODY = (
    "malformed-json",
    "malformed-encoding",
    "request-too-large",
    "unsupported-media-type",
    "unsupported-encoding",
    *_ALWAYS,
)
_AWS = ("throttled", "not-sent", "misconfigured", "unavailable")
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


def openapi_document(settings: Settings, *, serves_ops: bool = True) -> dict[str, Any]:
    """The document for an application with these settings. ``serves_ops``: with probes and metrics."""
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
            *([{"name": "operation", "description": "Probes and metrics, on every process."}] if serves_ops else []),
        ],
        "paths": {**_job_paths(settings), **(_operation_paths() if serves_ops else {})},
        "components": {"schemas": component_schemas(batch_jobs_max=settings.batch_jobs_max)},
    }


def _job_paths(settings: Settings) -> dict[str, Any]:
    token = {
        "name": "token",
        "in": "path",
        "required": True,
        "description": "The job's token. The response is 404 for one that this deployment did not sign.",
        "schema": {"type": "string"},
        "example": TOKEN_EXAMPLE,
    }
    refusals = ("unsupported-header", "invalid-field", "unknown-queue", "refused-by-sqs")
    submit_problems = (*refusals, "draining", *_AWS, *_WITH_BODY)
    return {
        "/v1/jobs": {
            "post": operation(
                "submitJob",
                "Submit a job",
                "The response comes once SQS has acknowledged the job. Unknown fields are refused: with a misspelt "
                "`delay` a job would be sent now.",
                body=json_body("JobRequest", _JOB_EXAMPLES),
                responses={"202": json_response("Accepted", "Accepted", _ACCEPTED_EXAMPLE, _LOCATION)},
                problems=submit_problems,
                parameters=[_TRACEPARENT],
            )
        },
        "/v1/jobs/batch": {
            "post": operation(
                "submitJobs",
                f"Submit up to {settings.batch_jobs_max} jobs",
                "The response is 200 if the request as a whole could be read; `results` has the outcome of each job, "
                "in order. A job that is refused does not affect the others.",
                body=json_body(
                    BATCH_REQUEST,
                    {"two": {"value": {"jobs": [_JOB_EXAMPLES["soon"]["value"], _JOB_EXAMPLES["json"]["value"]]}}},
                ),
                responses={"200": json_response("BatchAnswer", "The outcome of each job")},
                problems=("unsupported-header", "invalid-field", "draining", *_WITH_BODY),
                parameters=[_TRACEPARENT],
            )
        },
        "/v1/tokens": {
            "post": operation(
                "prepareToken",
                "Prepare a token for a job",
                "Store the token, then submit the job with it, as often as needed until it is accepted: the job is "
                "delivered once. The token fixes the due time, and can be used until a day after it. Such a job is "
                "SCHEDULED. Nothing is stored by this call.",
                body=json_body("PrepareRequest", {"later": {"value": {"delay": "3d 4h"}}}, required=False),
                responses={"200": json_response("Prepared", "The token")},
                problems=("invalid-field", "draining", *_WITH_BODY),
            )
        },
        "/v1/jobs/{token}": {
            "parameters": [token],
            "get": operation(
                "getJob",
                "Get the state of a job",
                "Nothing is stored of a job that has been delivered: its state is then `released` or `handed_to_sqs`.",
                responses={"200": json_response("JobStatus", "Its state")},
                problems=("invalid-token", *_AWS, *_ALWAYS),
            ),
            "delete": operation(
                "cancelJob",
                "Cancel a job",
                "200 only if the job will not be delivered, also when repeated. From some seconds before its due time, "
                "a process may already have read the job to send it: then the response is 409 `too-late`, and the job "
                "will be delivered.",
                responses={"200": json_response("CancelledJob", "It will not be delivered")},
                problems=("invalid-token", "too-late", "already-handed-to-sqs", "moved", *_AWS, *_ALWAYS),
            ),
            "patch": operation(
                "moveJob",
                "Move a job to another time",
                "Atomic: the job is delivered once, at one of the two times. It gets a new token; a look-up of the old "
                "one returns it. A job that has had that due time before gets one a few milliseconds later: see "
                "`due_at_ms`.",
                body=json_body("MoveRequest", {"later": {"value": {"delay": "1h"}}}),
                responses={"200": json_response("MovedJob", "Moved", headers=_LOCATION)},
                problems=(
                    "unsupported-header",
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
            "get": operation(
                "explainProblem",
                "Explain a problem type",
                "The path in the `type` of a problem document.",
                responses={"200": text_response("What it means")},
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
    def probe(
        operation_id: str, summary: str, status: str, problems: tuple[str, ...], **more: dict[str, Any]
    ) -> dict[str, Any]:
        response = {
            "description": summary,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["status"],
                        "properties": {"status": {"const": status}, **more},
                        "additionalProperties": False,
                    }
                }
            },
        }
        return {
            "get": operation(
                operation_id, summary, summary + ".", responses={"200": response}, problems=problems, tag="operation"
            )
        }

    return {
        "/healthz": probe("healthz", "The process is alive", "alive", ()),
        "/readyz": probe(
            "readyz",
            "The process has reached what its roles need",
            "ready",
            ("not-ready",),
            unreachable={
                "type": "array",
                "items": {"type": "string"},
                "description": "What it cannot reach at the moment, though it is ready: requests may get a 503.",
            },
        ),
        "/metrics": {
            "get": operation(
                "metrics",
                "Prometheus metrics",
                "In the text exposition format.",
                responses={"200": text_response("Metrics")},
                problems=(),
                tag="operation",
            )
        },
    }
