"""Spans, if asked for: what the API and the last leg tell a tracer. `dynein.observability.otel` has the one there is.

No tracer is ``None``, so that all this costs nothing but a look at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dynein.core.due_job import DueJob


class SubmitSpan(Protocol):
    """A request that submits jobs, under way."""

    @property
    def traceparent(self) -> str:
        """Its own context, for its jobs."""

    def accepted(self, tokens: Sequence[str], queues: Sequence[str]) -> None:
        """SQS has acknowledged these jobs of it."""

    def end(self, status: int) -> None:
        """It was answered with this HTTP status."""


class Tracing(Protocol):
    """Makes spans. Nothing here raises or waits."""

    def submitting(self, path: str, request_id: str, traceparent: str | None) -> SubmitSpan:
        """A POST to ``path`` has come; ``traceparent`` is its caller's context."""

    def delivered(self, role: str, due_jobs: Sequence[DueJob], sent_at_ms: int, acknowledged_at_ms: int) -> None:
        """SQS has acknowledged these at their destination."""

    def dead_lettered(self, role: str, due_job: DueJob, reason: str, at_ms: int) -> None:
        """The dead-letter queue has acknowledged this one."""

    def close(self) -> None:
        """Export what is left. Blocks for a moment, at the end of a process."""
