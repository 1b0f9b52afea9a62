"""Spans, if asked for: what the API and the last leg tell a tracer. `dynein.observability.otel` has the one there is.

No tracer is ``None``, so that all this costs nothing but a look at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dynein.core.due_job import Parcel
from dynein.errors import InvalidSettings
from dynein.settings import Settings


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

    def delivered(self, role: str, parcels: Sequence[Parcel], sent_at_ms: int, acknowledged_at_ms: int) -> None:
        """SQS has acknowledged these at their destination."""

    def dead_lettered(self, role: str, parcel: Parcel, reason: str, at_ms: int) -> None:
        """The dead-letter queue has acknowledged this one."""

    def close(self) -> None:
        """Export what is left. Blocks for a moment, at the end of a process."""


def open_tracing(settings: Settings) -> Tracing | None:
    """The tracer that the settings ask for. Raises `InvalidSettings` when it is not installed."""
    if not settings.otel:
        return None
    try:
        from dynein.observability.otel import open_telemetry  # noqa: PLC0415 - an optional dependency
    except ModuleNotFoundError as error:
        raise InvalidSettings(
            f"DYNEIN_OTEL is set, but OpenTelemetry is not installed (no module {error.name}): "
            "pip install 'dynein[otel]', or unset it"
        ) from error
    return open_telemetry()
