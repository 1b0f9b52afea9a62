"""Log lines about jobs that are submitted, cancelled and moved."""

from __future__ import annotations

from collections.abc import Iterable

from dynein.api.caller import Caller
from dynein.api.drafting import Draft
from dynein.api.problems import problem_of
from dynein.api.schemas import MovedJob
from dynein.core.trace_context import trace_id_of
from dynein.errors import Conflict, DyneinError, InvalidField, Rejected
from dynein.observability.events.api import (
    JOB_ACCEPTED,
    JOB_CANCELLED,
    JOB_MOVED,
    JOB_NOT_CHANGED,
    JOB_REFUSED,
    JOBS_TURNED_AWAY,
)


def accepted(drafts: Iterable[Draft], caller: Caller) -> None:
    """SQS has acknowledged these. Check `JOB_ACCEPTED.enabled` before: collecting the drafts costs CPU too."""
    for job in drafts:
        JOB_ACCEPTED.log(
            token=job.token,
            queue=job.job.queue,
            policy=job.policy,
            due_at_ms=job.wanted_at_ms,
            request_id=caller.request_id,
            trace_id=trace_id_of(job.job.traceparent),
        )


def refused(error: DyneinError, caller: Caller, *, queue: str | None = None, token: str | None = None) -> None:
    """A job is wrong. Queue and token are known if it could be decoded."""
    if JOB_REFUSED.enabled:
        JOB_REFUSED.log(
            code=problem_of(error, "").code,
            field=error.field if isinstance(error, InvalidField) else None,
            error=str(error),
            queue=queue,
            token=token,
            request_id=caller.request_id,
            trace_id=caller.trace_id,
        )


def turned_away(errors: Iterable[DyneinError], caller: Caller) -> None:
    """Nothing is wrong with these jobs, but they were not accepted: a line for each kind of failure."""
    by_code: dict[str, list[DyneinError]] = {}
    for error in errors:
        if not isinstance(error, Rejected):
            by_code.setdefault(problem_of(error, "").code, []).append(error)
    for code, alike in by_code.items():
        JOBS_TURNED_AWAY.log(code=code, error=str(alike[0]), jobs=len(alike), request_id=caller.request_id)


def cancelled(token: str, due_at_ms: int, caller: Caller) -> None:
    """A job will not be delivered."""
    JOB_CANCELLED.log(token=token, due_at_ms=due_at_ms, request_id=caller.request_id)


def moved(job: MovedJob, caller: Caller) -> None:
    """A job has another due time."""
    JOB_MOVED.log(
        token=job.token,
        previous_token=job.previous_token,
        due_at_ms=job.due_at_ms,
        request_id=caller.request_id,
    )


def not_changed(what: str, token: str, error: Conflict, due_at_ms: int, caller: Caller) -> None:
    """A cancel or move came too late, or for the second time."""
    JOB_NOT_CHANGED.log(what=what, token=token, code=error.code, due_at_ms=due_at_ms, request_id=caller.request_id)
