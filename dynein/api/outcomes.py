"""Counts and logs how the submission of jobs ended: metrics, the ledger's tally, log lines and the request's span."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from dynein.api import job_log
from dynein.api.caller import Caller
from dynein.api.drafting import Draft
from dynein.api.problems import problem_of
from dynein.api.schemas import Accepted, JobRequest
from dynein.core.job import Policy
from dynein.core.ledger import Flow
from dynein.errors import DyneinError, Rejected
from dynein.observability.events.api import JOB_ACCEPTED
from dynein.runtime.context import Context


class Outcome(NamedTuple):
    """How the submission of one job ended."""

    request: JobRequest
    draft: Draft | None
    """``None`` if it was refused before it could be sent."""
    result: Accepted | DyneinError


class OutcomeRecorder:
    """Records outcomes, each once."""

    def __init__(self, context: Context) -> None:
        self._telemetry = context.telemetry
        self._tally = context.tally

    def record(self, outcomes: Sequence[Outcome], caller: Caller) -> None:
        """Record the outcomes of one request."""
        accepted = [o.draft for o in outcomes if o.draft is not None and isinstance(o.result, Accepted)]
        self._count_accepted(accepted)
        errors = [(o.result, o.request) for o in outcomes if isinstance(o.result, DyneinError)]
        for error, request in errors:
            self.record_refused(error, caller, request)
        if errors:
            job_log.turned_away((error for error, _ in errors), caller)
        if caller.span is not None or JOB_ACCEPTED.enabled:
            job_log.accepted(accepted, caller)
            if caller.span is not None:
                caller.span.accepted([draft.token for draft in accepted], [draft.job.queue for draft in accepted])

    def record_refused(self, error: DyneinError, caller: Caller, request: JobRequest | None = None) -> None:
        """Record a job that was refused; without ``request``, one that could not even be decoded."""
        self._telemetry.refused.labels(problem_of(error, "").code).inc()
        if isinstance(error, Rejected):
            queue, token = (None, None) if request is None else (request.queue, request.token)
            job_log.refused(error, caller, queue=queue, token=token)

    def _count_accepted(self, jobs: Sequence[Draft]) -> None:
        for policy, accepted in Counter(job.policy for job in jobs).items():
            self._telemetry.accepted.labels(policy.value).inc(accepted)
        for job in jobs:
            for warning in job.warnings:
                self._telemetry.warned.labels(warning.code, self._telemetry.queue_label(job.job.queue)).inc()
        self._tally.add_all(Flow.ACCEPTED, [job.due_at_ms for job in jobs])
        # What its destination queue has acknowledged, delayed by SQS or not, has left Dynein.
        self._tally.add_all(Flow.DELIVERED, [job.due_at_ms for job in jobs if job.policy is not Policy.SCHEDULED])
