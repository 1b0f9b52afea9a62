"""Requests and responses as msgspec types: `decoding` reads them, and the OpenAPI document is made from them.

Unknown fields are refused by name: a job with ``dealy`` must not be sent now. ``null`` stands for a field left out,
except in ``json``, where it is a value like any other.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from dynein.api.problems import Problem
from dynein.core.job import Policy

TOKEN_EXAMPLE = "AgGTk8kAuQADq1lHbXc0Yt4eXw3rKfQm2JvT9pZs8bLhNdVcEoUa"
TRACEPARENT_EXAMPLE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
DUE_EXAMPLE = "2030-01-31T09:00:00.000Z"
DUE_MS_EXAMPLE = 1896080400000

RunAt = Annotated[
    int | float | str | None,
    Meta(
        description="When it is due: a date and time with a UTC offset (RFC 3339; what Java, JavaScript, PHP, Python "
        "and Go print is read too), a local one with `timezone`, or milliseconds since 1970. In the past: now. "
        "Excludes `delay`.",
        examples=["2030-01-31T09:00:00Z", "2030-01-31T10:00:00+01:00[Europe/Berlin]", DUE_MS_EXAMPLE],
    ),
]
Timezone = Annotated[
    str | None,
    Meta(
        description="The IANA time zone of a `run_at` without a UTC offset. Where clocks are changed: a time that is "
        "skipped is read with the offset before the change (02:30 becomes 03:30), and of a time that comes twice the "
        "first is meant. With an offset in `run_at`, the two must agree.",
        examples=["Europe/Berlin"],
    ),
]
Delay = Annotated[
    int | float | str | None,
    Meta(
        description='How long from now: seconds, or text such as `"15m"`, `"1h30m"`, `"3d 4h"` or ISO 8601 `"PT15M"`. '
        "Years and months are refused: they have no fixed length. Excludes `run_at`.",
        examples=["15m", 90, "PT2H", "3d 4h"],
    ),
]


class AttributeRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """A message attribute with its type spelt out."""

    type: Annotated[str, Meta(description="`String`, `Number` or `Binary`, optionally with a label: `String.uuid`.")]
    value: Annotated[str, Meta(description="The value; base64 for Binary.")]


# One field for each that a user may send.
class JobRequest(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, gc=False):
    """A job to submit. Exactly one of `body`, `json` and `body_base64` is needed."""

    queue: Annotated[str, Meta(description="Destination queue: name, or URL.", examples=["demo"])]
    body: Annotated[str | None, Meta(description="The message body, as text.", examples=["hello"])] = None
    json: Annotated[Raw | UnsetType, Meta(description="The message body, as any JSON value: delivered as written.")] = (
        UNSET
    )
    body_base64: Annotated[
        str | None,
        Meta(
            description="The message body, as bytes. Delivered as this base64 text, with the attribute "
            "`dynein-encoding: base64`."
        ),
    ] = None
    run_at: RunAt = None
    timezone: Timezone = None
    delay: Delay = None
    policy: Annotated[
        Policy | None,
        Meta(
            description="What holds the job until it is due. `AUTO` (the default) is IMMEDIATE without a delay, "
            "SQS_DELAYED up to 15 minutes on a standard queue, and else SCHEDULED."
        ),
    ] = None
    cancellable: Annotated[
        bool | None,
        Meta(description="Make the job SCHEDULED, whatever the delay, so that it can be cancelled and moved."),
    ] = None
    name: Annotated[
        str | None,
        Meta(description="A name to recognise the job by, at most 256 characters; the attribute `dynein-name`."),
    ] = None
    attributes: Annotated[
        Raw | UnsetType,
        Meta(
            description="Message attributes of your own. A text is a String, a number a Number; "
            "or an object with `type` and `value`. SQS allows ten, of which Dynein needs two to four.",
            examples=[{"trace": "abc-123", "attempt": 1, "photo": {"type": "Binary", "value": "/9j/4A=="}}],
        ),
    ] = UNSET
    message_group_id: Annotated[
        str | None,
        Meta(
            description="Message group. Needed on a FIFO queue, where the scheduled jobs of a group are sent by due "
            "time, and at the same due time in the order in which they were accepted. On a standard queue SQS uses it "
            "to share the queue fairly among tenants (fair queues)."
        ),
    ] = None
    deduplication_id: Annotated[
        str | None,
        Meta(
            description="Deduplication id, on a FIFO queue only. Left out: the job's token. Of jobs with the same one "
            "that reach the queue within five minutes, SQS delivers only the first; the others are accepted all the "
            "same."
        ),
    ] = None
    allow_for_queue_delay: Annotated[
        bool | None,
        Meta(
            description="A FIFO queue with a `DelaySeconds` of its own keeps every message invisible for that long. "
            "True: send the job that much earlier, so that it becomes visible when it is due. On a standard queue no "
            "job needs it: messages are sent to become visible at their due time, whatever the queue's own delay."
        ),
    ] = None
    token: Annotated[
        str | None,
        Meta(description="A token from `POST /v1/tokens`. However often it is submitted, the job is delivered once."),
    ] = None
    traceparent: Annotated[
        str | None,
        Meta(
            description="W3C trace context of this job, instead of the header's: the attribute `traceparent` of the "
            "delivered message. One that is not valid is ignored.",
            examples=[TRACEPARENT_EXAMPLE],
        ),
    ] = None


class MoveRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """A new time for a scheduled job. Exactly one of the two is needed."""

    run_at: RunAt = None
    delay: Delay = None
    timezone: Timezone = None


class PrepareRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """When the job that will be submitted with this token is due. With neither field: now."""

    run_at: RunAt = None
    delay: Delay = None
    timezone: Timezone = None
    queue: Annotated[
        str | None,
        Meta(description="The queue of that job, with `message_group_id`, if it is a FIFO queue: keeps it in order."),
    ] = None
    message_group_id: Annotated[
        str | None,
        Meta(description="The message group of that job. Without it, the job has no place among those of its group."),
    ] = None


Token = Annotated[str, Meta(description="Names the job. Opaque and URL-safe.", examples=[TOKEN_EXAMPLE])]
DueAt = Annotated[str, Meta(description="Due time, UTC.", examples=[DUE_EXAMPLE])]
DueAtMs = Annotated[int, Meta(description="Due time, milliseconds since 1970.", examples=[DUE_MS_EXAMPLE])]


class JobWarning(Struct, frozen=True, gc=False):
    """Something about an accepted job that its caller most likely does not want."""

    code: Annotated[
        str, Meta(description="Names the kind of warning; never changes.", examples=["queue-delays-messages"])
    ]
    detail: Annotated[str, Meta(description="What will happen.")]
    fix: Annotated[str, Meta(description="What to do about it.")]


Warnings = Annotated[
    tuple[JobWarning, ...] | UnsetType, Meta(description="What may be wrong with this job; left out if nothing is.")
]


class Accepted(Struct, frozen=True, gc=False, omit_defaults=True):
    """An accepted job: SQS has acknowledged it."""

    token: Token
    policy: Annotated[Policy, Meta(description="The policy chosen, or asked for; never `AUTO`.")]
    due_at: DueAt
    due_at_ms: DueAtMs
    warnings: Warnings = UNSET


class Prepared(Struct, frozen=True):
    """A token for a job that does not exist yet."""

    token: Token
    due_at: DueAt
    due_at_ms: DueAtMs


class JobStatus(Struct, frozen=True, omit_defaults=True):
    """The state of a job."""

    token: Token
    state: Annotated[
        str,
        Meta(
            description="`accepted`: on its way into the trigger store (a prepared token: or not created yet). "
            "`scheduled`: stored until it is due. `dispatching`: read by a process that is about to send it. "
            "`released`: sent, or about to be. `held_by_sqs`: SQS delays it. `handed_to_sqs`: on its queue, or "
            "consumed. `cancelled`: will not be delivered. `moved`: lives on under the token in `moved_to`.",
            extra_json_schema={
                "enum": [
                    "accepted",
                    "scheduled",
                    "dispatching",
                    "released",
                    "held_by_sqs",
                    "handed_to_sqs",
                    "cancelled",
                    "moved",
                ]
            },
        ),
    ]
    policy: Policy
    due_at: DueAt
    due_at_ms: DueAtMs
    cancellable: Annotated[bool, Meta(description="Whether a DELETE would have cancelled it.")]
    queue: Annotated[str | UnsetType, Meta(description="Destination queue, while the trigger store has the job.")] = (
        UNSET
    )
    name: Annotated[str | UnsetType, Meta(description="Its name, while the trigger store has the job.")] = UNSET
    moved_to: Annotated[str | UnsetType, Meta(description="The token that replaced this one.")] = UNSET


class CancelledJob(Struct, frozen=True):
    """The job will not be delivered."""

    token: Token
    state: Annotated[str, Meta(extra_json_schema={"const": "cancelled"})] = "cancelled"


class MovedJob(Struct, frozen=True):
    """The job has a new due time and, unless that is the old one, a new token."""

    token: Token
    due_at: DueAt
    due_at_ms: DueAtMs
    previous_token: Annotated[str, Meta(description="The token it had before.", examples=[TOKEN_EXAMPLE])]


class BatchItem(Struct, frozen=True, omit_defaults=True, gc=False):
    """The outcome of one job of a batch: `token`, `policy` and the due time if it was accepted, else `problem`."""

    status: Annotated[
        int,
        Meta(
            description="202, or the status that this job would have got in a request of its own. "
            "With 429 or 503, send it again later."
        ),
    ]
    token: Token | UnsetType = UNSET
    policy: Policy | UnsetType = UNSET
    due_at: DueAt | UnsetType = UNSET
    due_at_ms: DueAtMs | UnsetType = UNSET
    warnings: Warnings = UNSET
    problem: Problem | UnsetType = UNSET


class BatchAnswer(Struct, frozen=True):
    """The outcome of each job of a batch, in the order they were sent."""

    accepted: Annotated[int, Meta(description="How many were accepted.")]
    refused: Annotated[int, Meta(description="How many were not.")]
    results: list[BatchItem]
