"""`dynein.observability.tracing.Tracing` on OpenTelemetry: the extra ``dynein[otel]``.

====================  ========  ======================================================================================
span                  kind      belongs to
====================  ========  ======================================================================================
``POST /v1/jobs``     server    its caller's trace; its own context goes with its jobs, into the store and onto the
                                delivered message
``send QUEUE``        producer  a trace of its own, *linked* to that context: a trace must not stay open until a job is
                                due, which may be in a year
====================  ========  ======================================================================================

A delivery follows the sampling decision of its submit: if that was not sampled, the delivery has no span either. Names
follow OpenTelemetry's semantic conventions for HTTP and messaging. Exporter, resource and sampler are configured by the
standard ``OTEL_...`` variables (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/);
spans are exported over OTLP/HTTP, by a thread of the SDK with a bounded queue: spans that do not fit are dropped.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from dynein import __version__
from dynein.core.due_job import DueJob
from dynein.core.loopback import is_loopback
from dynein.core.queue_address import name_of

SERVICE_NAME = "dynein"
"""Unless ``OTEL_SERVICE_NAME`` is set."""
CLOSE_S = 2.0
"""Longest wait for a collector at the end of a process."""
_NS_PER_MS = 1_000_000
_SERVER_ERROR = 500
_ROOT = Context()


def open_telemetry() -> OpenTelemetry:
    """A tracer, configured by the standard environment variables."""
    resource = Resource({"service.name": SERVICE_NAME, "service.version": __version__}).merge(Resource.create())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(session=_DirectToThisMachine())
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return OpenTelemetry(provider)


class _DirectToThisMachine(requests.Session):
    """Leaves out the environment's proxy for a collector on this machine, which no proxy could reach."""

    def merge_environment_settings(self, url: Any, *given: Any, **named: Any) -> Any:  # noqa: ANN401 - requests' types
        """See `requests.Session.merge_environment_settings`."""
        merged = super().merge_environment_settings(url, *given, **named)
        if is_loopback(urlsplit(str(url)).hostname):
            merged["proxies"] = OrderedDict()
        return merged


class OpenTelemetry:
    """See `dynein.observability.tracing.Tracing`."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer: Tracer = provider.get_tracer("dynein", __version__)

    def submitting(self, path: str, request_id: str, traceparent: str | None) -> OpenSubmitSpan:
        """See `dynein.observability.tracing.Tracing.submitting`."""
        parent = _ROOT
        if traceparent is not None:
            parent = set_span_in_context(NonRecordingSpan(_context(traceparent)), _ROOT)
        attributes = {"http.request.method": "POST", "http.route": path, "dynein.request_id": request_id}
        span = self._tracer.start_span(f"POST {path}", parent, SpanKind.SERVER, attributes)
        return OpenSubmitSpan(span)

    def delivered(self, role: str, due_jobs: Sequence[DueJob], sent_at_ms: int, acknowledged_at_ms: int) -> None:
        """See `dynein.observability.tracing.Tracing.delivered`."""
        for due_job in due_jobs:
            span = self._send_span(role, due_job, sent_at_ms)
            if span is not None:
                span.end(max(sent_at_ms, acknowledged_at_ms) * _NS_PER_MS)

    def dead_lettered(self, role: str, due_job: DueJob, reason: str, at_ms: int) -> None:
        """See `dynein.observability.tracing.Tracing.dead_lettered`."""
        span = self._send_span(role, due_job, at_ms)
        if span is not None:
            span.set_status(Status(StatusCode.ERROR, reason))
            span.end(at_ms * _NS_PER_MS)

    def close(self) -> None:
        """See `dynein.observability.tracing.Tracing.close`."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_S)

    def _send_span(self, role: str, due_job: DueJob, at_ms: int) -> Span | None:
        links = []
        if due_job.job.traceparent is not None:
            submitted = _context(due_job.job.traceparent)
            if not submitted.trace_flags.sampled:
                return None
            links.append(Link(submitted))
        queue = name_of(due_job.job.queue)
        due_at_ms = due_job.trigger.key.due_at_ms
        attributes: dict[str, str | int] = {
            "messaging.system": "aws_sqs",
            "messaging.operation.type": "send",
            "messaging.destination.name": queue,
            "dynein.token": due_job.trigger.token,
            "dynein.due_at_ms": due_at_ms,
            "dynein.lateness_ms": at_ms - due_at_ms,
            "dynein.role": role,
        }
        start = at_ms * _NS_PER_MS
        return self._tracer.start_span(f"send {queue}", _ROOT, SpanKind.PRODUCER, attributes, links, start)


class OpenSubmitSpan:
    """See `dynein.observability.tracing.SubmitSpan`."""

    def __init__(self, span: Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def accepted(self, tokens: Sequence[str], queues: Sequence[str]) -> None:
        """See `dynein.observability.tracing.SubmitSpan.accepted`."""
        if not self._span.is_recording():
            return
        self._span.set_attribute("messaging.system", "aws_sqs")
        self._span.set_attribute("messaging.batch.message_count", len(tokens))
        if len(tokens) == 1:
            self._span.set_attribute("dynein.token", tokens[0])
        distinct = set(queues)
        if len(distinct) == 1:
            self._span.set_attribute("messaging.destination.name", name_of(distinct.pop()))

    def end(self, status: int) -> None:
        """See `dynein.observability.tracing.SubmitSpan.end`."""
        self._span.set_attribute("http.response.status_code", status)
        if status >= _SERVER_ERROR:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


def _context(traceparent: str) -> SpanContext:
    """The context in a header that `dynein.core.trace_context.parse_traceparent` has accepted."""
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
