"""What is recorded of one destination's deliveries: metrics, the ledger's counts, the log, and traces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dynein.core.due_job import DueJob
from dynein.core.ledger import Flow
from dynein.core.queues import SendFailure
from dynein.core.trace_context import trace_id_of
from dynein.delivery.lane_pace import LanePace
from dynein.errors import DyneinError, Remedy, remedy_of
from dynein.observability.events.delivery import (
    DEAD_LETTER_FAILED,
    DELIVERY_FAILED,
    DESTINATION_FAILING,
    DESTINATION_RECOVERED,
    JOB_DEAD_LETTERED,
    JOB_DELIVERED,
)
from dynein.observability.tracing import Tracing
from dynein.runtime.context import Context


class DeliveryRecord:
    """One destination's, in one role of a process."""

    def __init__(self, role: str, queue: str, context: Context, tracing: Tracing | None) -> None:
        self._role = role
        self._queue = queue
        self._context = context
        self._tracing = tracing
        telemetry = context.telemetry
        self._label = telemetry.queue_label(queue)
        # Looked up once: finding a metric by its labels costs as much as the count itself.
        self._lateness = telemetry.lateness.labels(role, self._label)
        self._delivered = telemetry.delivered.labels(role, self._label)

    def tried(
        self, due_jobs: Sequence[DueJob], failures: Sequence[SendFailure | None], sent_at_ms: int, visible_at_ms: int
    ) -> None:
        """A batch was sent, and each of its entries acknowledged (``None``) or not.

        ``visible_at_ms``: when those become visible. A queue may delay what was sent to it.
        """
        lateness = self._lateness
        sent: list[int] = []
        for due_job, failure in zip(due_jobs, failures, strict=True):
            if failure is None:
                sent.append(due_job.trigger.key.due_at_ms)
                lateness.observe(max(0, visible_at_ms - due_job.wanted_at_ms) / 1000)
            else:
                self._count_failure(failure.code, failure.remedy)
        if self._tracing is not None or JOB_DELIVERED.enabled:
            acknowledged = [due_job for due_job, failure in zip(due_jobs, failures, strict=True) if failure is None]
            self._delivered_each(acknowledged, sent_at_ms, visible_at_ms)
        if sent:
            self._delivered.inc(len(sent))
            self._context.tally.add_all(Flow.DELIVERED, sent)

    def call_failed(self, error: Exception, jobs: int) -> None:
        """A look-up or a send of ``jobs`` jobs failed as a whole."""
        if not isinstance(error, DyneinError):
            DELIVERY_FAILED.log(error, role=self._role, queue=self._queue)
        self._count_failure(type(error).__name__, remedy_of(error), jobs)

    def failing(self, retry: Mapping[int, SendFailure], pace: LanePace, now: float) -> None:
        """The destination does not take jobs, for now; ``retry`` are those of one batch."""
        failure = next(iter(retry.values()))
        DESTINATION_FAILING.log(
            role=self._role,
            queue=self._queue,
            code=failure.code,
            error=failure.message,
            jobs=len(retry),
            failing_s=round(pace.failing_s(now), 3),
        )

    def recovered(self, pace: LanePace, now: float) -> None:
        """It takes jobs again; ``pace`` is as it was until then."""
        failing_s = round(pace.failing_s(now), 3)
        DESTINATION_RECOVERED.log(role=self._role, queue=self._queue, failures=pace.failures, failing_s=failing_s)

    def dead_lettered(self, due_job: DueJob, failure: SendFailure, reason: str) -> None:
        """The dead-letter queue has acknowledged this one."""
        context, trigger = self._context, due_job.trigger
        context.telemetry.dead_lettered.labels(self._role, self._label).inc()
        context.tally.add(Flow.DEAD_LETTERED, trigger.key.due_at_ms)
        JOB_DEAD_LETTERED.log(
            role=self._role,
            token=trigger.token,
            queue=due_job.job.queue,
            code=failure.code,
            reason=reason,
            due_at_ms=trigger.key.due_at_ms,
            trace_id=trace_id_of(due_job.job.traceparent),
        )
        if self._tracing is not None:
            self._tracing.dead_lettered(self._role, due_job, reason, context.clock.now_ms())

    def dead_letter_failed(self, due_job: DueJob, error: Exception) -> None:
        """The dead-letter queue has not acknowledged this one."""
        code = type(error).__name__
        self._count_failure(f"DeadLetter{code}", remedy_of(error))
        DEAD_LETTER_FAILED.log(error, role=self._role, token=due_job.trigger.token, code=code)

    def _count_failure(self, code: str, remedy: Remedy, jobs: int = 1) -> None:
        self._context.telemetry.send_failures.labels(code, self._label, remedy.value).inc(jobs)

    def _delivered_each(self, acknowledged: list[DueJob], sent_at_ms: int, visible_at_ms: int) -> None:
        for due_job in acknowledged:
            JOB_DELIVERED.log(
                role=self._role,
                token=due_job.trigger.token,
                queue=due_job.job.queue,
                due_at_ms=due_job.wanted_at_ms,
                lateness_ms=visible_at_ms - due_job.wanted_at_ms,
                trace_id=trace_id_of(due_job.job.traceparent),
            )
        if self._tracing is not None:
            self._tracing.delivered(self._role, acknowledged, sent_at_ms, self._context.clock.now_ms())
