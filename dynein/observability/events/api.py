"""What the API does with requests and jobs."""

from __future__ import annotations

from logging import DEBUG, ERROR, INFO, WARNING

from dynein.observability.events.event import Event

ROLE = "api"

JOB_ACCEPTED = Event(
    "job.accepted",
    DEBUG,
    "the job was accepted: SQS has acknowledged it",
    "role token queue policy due_at_ms request_id trace_id",
    "Nothing. From now on the job will be delivered, cancelled or dead-lettered.",
    role=ROLE,
)
JOB_REFUSED = Event(
    "job.refused",
    DEBUG,
    "the job was rejected because it is invalid",
    "role code field error queue token request_id trace_id",
    "The caller has to correct it: the response names the field and the fix.",
    role=ROLE,
)
JOBS_TURNED_AWAY = Event(
    "jobs.turned_away",
    WARNING,
    "valid jobs were rejected for now",
    "role code error jobs request_id repeats",
    "`throttled`: raise the AWS quota, or submit more slowly. `overloaded`: add API processes. `unavailable`: see "
    "`error`. The responses ask callers to retry.",
    role=ROLE,
    once_by=("code",),
)
JOB_CANCELLED = Event(
    "job.cancelled",
    INFO,
    "the job will not be delivered",
    "role token due_at_ms request_id",
    "Nothing. It explains why a job was not delivered: a caller cancelled it.",
    role=ROLE,
)
JOB_MOVED = Event(
    "job.moved",
    INFO,
    "the job was moved: it has a new due time and a new token",
    "role token previous_token due_at_ms request_id",
    "Nothing. Later lines about it have the new token.",
    role=ROLE,
)
JOB_NOT_CHANGED = Event(
    "job.not_changed",
    INFO,
    "the job was not cancelled or moved: it is too late, or it was cancelled or moved before",
    "role what token code due_at_ms request_id",
    "Nothing; the response says so. Often `too-late`: cancel earlier, or let the consumer ignore such jobs.",
    role=ROLE,
)
REQUEST_ANSWERED = Event(
    "request.answered",
    DEBUG,
    "a response was sent",
    "role method path status request_id trace_id",
    "Nothing.",
    role=ROLE,
)
REQUEST_FAILED = Event(
    "request.failed",
    ERROR,
    "a request failed with an unexpected error",
    "role method path error request_id",
    "A bug: report it with the traceback in `exception`.",
    role=ROLE,
)
CONNECTIONS_FULL = Event(
    "connections.full",
    WARNING,
    "no further HTTP connection is accepted for the moment: as many as may be are open, and none is idle",
    "role connections repeats",
    "See who holds them. Raise `http_connections_max` and `ulimit -n`, or run more API processes.",
    role=ROLE,
    once_by=(),
)
REQUESTS_SHED = Event(
    "requests.shed",
    WARNING,
    "requests are refused: more is asked than this process can do, or than their caller's rate allows",
    "role reason caller repeats",
    "`overload`: run more API processes, or slow the caller down. `caller`: as set by `caller_rate_per_s`.",
    role=ROLE,
    once_by=("reason", "caller"),
)
SEND_FAILED = Event(
    "send.failed",
    ERROR,
    "a send failed with an unexpected error; the response says that the job may have been sent",
    "role token error",
    "A bug: report it with the traceback in `exception`.",
    role=ROLE,
)
