"""The port for tracing: spans of submits and deliveries. `dynein.observability.otel` is the only implementation.

Where tracing is off the tracer is ``None``, so that it costs one comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dynein.core.due_job import DueJob


class SubmitSpan(Protocol):
    """A request that submits jobs, under way."""

    @property
    def traceparent(self) -> str:
        """The span's own context, which its jobs carry."""

    def accepted(self, tokens: Sequence[str], queues: Sequence[str]) -> None:
        """SQS has acknowledged these jobs of the request."""

    def end(self, status: int) -> None:
        """The response has this HTTP status."""


class Tracing(Protocol):
    """Makes spans. Nothing here raises or waits."""

    def submitting(self, path: str, request_id: str, traceparent: str | None) -> SubmitSpan:
        """Start the span of a POST to ``path``; ``traceparent`` is its caller's context."""

    def delivered(self, role: str, due_jobs: Sequence[DueJob], sent_at_ms: int, acknowledged_at_ms: int) -> None:
        """SQS has acknowledged these jobs on their destination queue."""

    def dead_lettered(self, role: str, due_job: DueJob, reason: str, at_ms: int) -> None:
        """SQS has acknowledged this job on the dead-letter queue."""

    def close(self) -> None:
        """Export the remaining spans. Blocks for a moment, at the end of a process."""
