"""What the log says of deliveries."""

from __future__ import annotations

from collections.abc import Iterable

from dynein.core.due_job import DueJob
from dynein.core.trace_context import trace_id_of
from dynein.observability.events.delivery import JOB_DEAD_LETTERED, JOB_DELIVERED


def log_delivered(role: str, due_jobs: Iterable[DueJob], sent_at_ms: int) -> None:
    """SQS has acknowledged these. Ask first whether `JOB_DELIVERED` is logged at all."""
    for due_job in due_jobs:
        due_at_ms = due_job.trigger.key.due_at_ms
        JOB_DELIVERED.log(
            role=role,
            token=due_job.trigger.token,
            queue=due_job.job.queue,
            due_at_ms=due_at_ms,
            lateness_ms=sent_at_ms - due_at_ms,
            trace_id=trace_id_of(due_job.job.traceparent),
        )


def log_dead_lettered(role: str, due_job: DueJob, code: str, reason: str) -> None:
    """The dead-letter queue has acknowledged this one."""
    JOB_DEAD_LETTERED.log(
        role=role,
        token=due_job.trigger.token,
        queue=due_job.job.queue,
        code=code,
        reason=reason,
        due_at_ms=due_job.trigger.key.due_at_ms,
        trace_id=trace_id_of(due_job.job.traceparent),
    )
