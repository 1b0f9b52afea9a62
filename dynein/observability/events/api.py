"""What the API does with requests and jobs."""

from __future__ import annotations

from logging import DEBUG, ERROR, INFO, WARNING

from dynein.observability.events.event import Event

ROLE = "api"

JOB_ACCEPTED = Event(
    "job.accepted",
    DEBUG,
    "SQS has acknowledged the job",
    "role token queue policy due_at_ms request_id trace_id",
    "Nothing. From here on the job is delivered, cancelled or dead-lettered.",
    role=ROLE,
)
JOB_REFUSED = Event(
    "job.refused",
    DEBUG,
    "the job is wrong and was not taken",
    "role code field error queue token request_id trace_id",
    "Its caller was told the field and the fix.",
    role=ROLE,
)
JOBS_TURNED_AWAY = Event(
    "jobs.turned_away",
    WARNING,
    "jobs were not taken, through no fault of theirs",
    "role code error jobs request_id repeats",
    "`throttled`: raise the AWS quota, or slow down. `overloaded`: more API processes. `unavailable`: see `error`. "
    "Callers were told to retry.",
    role=ROLE,
    once_by=("code",),
)
JOB_CANCELLED = Event(
    "job.cancelled",
    INFO,
    "the job will not be delivered",
    "role token due_at_ms request_id",
    "Nothing. Why a job did not come: somebody cancelled it.",
    role=ROLE,
)
JOB_MOVED = Event(
    "job.moved",
    INFO,
    "the job has another due time and token",
    "role token previous_token due_at_ms request_id",
    "Nothing. Its later lines have the new token.",
    role=ROLE,
)
JOB_NOT_CHANGED = Event(
    "job.not_changed",
    INFO,
    "too late to cancel or move the job, or it was done before",
    "role what token code due_at_ms request_id",
    "Nothing; its caller was told. Often `too-late`: cancel earlier, or let the consumer ignore such jobs.",
    role=ROLE,
)
REQUEST_ANSWERED = Event(
    "request.answered",
    DEBUG,
    "a request was answered",
    "role method path status request_id trace_id",
    "Nothing.",
    role=ROLE,
)
REQUEST_FAILED = Event(
    "request.failed",
    ERROR,
    "a request met an error that nobody foresaw",
    "role method path error request_id",
    "A bug: report it with the trace in `exception`.",
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
    "a send met an error that nobody foresaw; its caller was told that the job may have been sent",
    "role token error",
    "A bug: report it with the trace in `exception`.",
    role=ROLE,
)
