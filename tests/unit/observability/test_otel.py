"""Spans: what is made of a submit and of a delivery, and how they hang together."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler
from opentelemetry.trace import SpanKind, StatusCode

from dynein.core.job import Attribute, decode_job
from dynein.core.trace_context import parse_traceparent
from dynein.errors import InvalidSettings, Throttled
from dynein.observability.otel import OpenTelemetry
from dynein.server.assembly import open_tracing
from dynein.settings import Settings
from tests.unit.api.setting import Api
from tests.unit.delivery import test_delivery

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-01"
NOT_SAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-00"


class Spans:
    """A tracer whose spans stay here."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = OpenTelemetry(provider)

    @property
    def ended(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    @property
    def only(self) -> ReadableSpan:
        (span,) = self.ended
        return span


def traceparent_of(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def post(api: Api, path: str, content: Any, **headers: str) -> int:
    async with api.http() as http:
        return (await http.post(path, json=content, headers=headers)).status_code


# --- submit ----------------------------------------------------------------------------------------------------------


async def test_a_submit_is_a_child_of_its_caller_and_its_own_context_goes_with_the_job() -> None:
    spans = Spans()
    api = Api(tracing=spans.tracing)
    job = {"queue": "demo", "body": "x", "delay": "1h"}
    assert await post(api, "/v1/jobs", job, **{"traceparent": SAMPLED, "x-request-id": "r-1"}) == 202
    span = spans.only
    assert (span.name, span.kind) == ("POST /v1/jobs", SpanKind.SERVER)
    assert span.parent is not None
    assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE_ID, SPAN_ID)
    assert span.parent.is_remote
    (arrival,) = api.arrivals()
    assert decode_job(arrival.trigger.record).traceparent == traceparent_of(span) != SAMPLED
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.route": "/v1/jobs",
        "http.response.status_code": 202,
        "dynein.request_id": "r-1",
        "dynein.token": arrival.trigger.token,
        "messaging.system": "aws_sqs",
        "messaging.destination.name": "demo",
        "messaging.batch.message_count": 1,
    }


async def test_a_submit_without_a_context_begins_a_trace() -> None:
    spans = Spans()
    api = Api(tracing=spans.tracing)
    assert await post(api, "/v1/jobs", {"queue": "demo", "body": "x"}) == 202
    assert spans.only.parent is None
    (message,) = api.queues.peek("demo")
    assert message.attributes["traceparent"].value == traceparent_of(spans.only)


async def test_a_batch_is_one_span() -> None:
    spans = Spans()
    api = Api(tracing=spans.tracing)
    jobs = [{"queue": "demo", "body": "a"}, {"queue": "other", "body": "b"}, {"queue": "nowhere", "body": "c"}]
    assert await post(api, "/v1/jobs/batch", {"jobs": jobs}) == 200
    found = attributes(spans.only)
    assert (found["http.route"], found["messaging.batch.message_count"]) == ("/v1/jobs/batch", 2)
    assert "dynein.token" not in found
    assert "messaging.destination.name" not in found


async def test_what_a_caller_does_not_sample_is_not_and_its_context_goes_on() -> None:
    spans = Spans()
    api = Api(tracing=spans.tracing)
    assert await post(api, "/v1/jobs", {"queue": "demo", "body": "x"}, traceparent=NOT_SAMPLED) == 202
    assert spans.ended == []
    (message,) = api.queues.peek("demo")
    carried = message.attributes["traceparent"].value
    assert parse_traceparent(carried) == carried
    assert carried.startswith(f"00-{TRACE_ID}-")
    assert carried.endswith("-00")


async def test_failures_end_their_span() -> None:
    spans = Spans()
    api = Api(tracing=spans.tracing)
    api.queues.faults.fail_next("send", Throttled("slow down"))
    assert await post(api, "/v1/jobs", {"queue": "demo", "body": "x"}) == 429
    assert await post(api, "/v1/jobs", {"queue": "demo"}) == 422
    api.queues.faults.fail_next("resolve", KeyError("a bug"))
    assert await post(api, "/v1/jobs", {"queue": "other", "body": "x"}) == 500
    api.lifecycle.linger()
    api.lifecycle.drain()
    assert await post(api, "/v1/jobs", {"queue": "demo", "body": "x"}) == 503
    found = [(attributes(span)["http.response.status_code"], span.status.status_code) for span in spans.ended]
    unset, error = StatusCode.UNSET, StatusCode.ERROR
    assert found == [(429, unset), (422, unset), (500, error), (503, error)]


async def test_other_requests_make_no_span() -> None:
    spans = Spans()
    api = Api(tracing=spans.tracing)
    assert await post(api, "/v1/tokens", {}) == 200
    async with api.http() as http:
        await http.get("/healthz")
    assert spans.ended == []


# --- delivery --------------------------------------------------------------------------------------------------------


async def test_a_delivery_is_a_trace_of_its_own_linked_to_the_submit() -> None:
    spans = Spans()
    world = test_delivery.World(tracing=spans.tracing)
    due_job = world.due_job("a", traceparent=SAMPLED)
    await world.clock.advance(0.25)
    gate = world.faults.hold_answer_next("send")
    future = world.delivery.submit(due_job)
    await gate.reached.wait()
    await world.clock.advance(0.5)
    gate.open()
    await world.outcome(future)
    span = spans.only
    assert (span.name, span.kind, span.parent) == ("send a", SpanKind.PRODUCER, None)
    (link,) = span.links
    assert (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") == (TRACE_ID, SPAN_ID)
    context = span.get_span_context()
    assert context is not None
    assert f"{context.trace_id:032x}" != TRACE_ID
    assert attributes(span) == {
        "messaging.system": "aws_sqs",
        "messaging.operation.type": "send",
        "messaging.destination.name": "a",
        "dynein.token": due_job.trigger.token,
        "dynein.due_at_ms": due_job.trigger.key.due_at_ms,
        "dynein.lateness_ms": 250,
        "dynein.role": "dispatcher",
    }
    assert span.start_time == (due_job.trigger.key.due_at_ms + 250) * 1_000_000
    assert span.end_time is not None
    assert span.end_time - span.start_time == 500_000_000
    (message,) = world.queues.peek("a")
    assert message.attributes["traceparent"].value == SAMPLED, "the consumer links to the submit, too"


async def test_a_delivery_follows_the_decision_made_for_its_submit() -> None:
    spans = Spans()
    world = test_delivery.World(tracing=spans.tracing)
    await world.outcome(world.delivery.submit(world.due_job("a", traceparent=NOT_SAMPLED)))
    assert spans.ended == []
    await world.outcome(world.delivery.submit(world.due_job("a")))
    assert spans.only.links == ()
    off = Spans(ALWAYS_OFF)
    world = test_delivery.World(tracing=off.tracing)
    await world.outcome(world.delivery.submit(world.due_job("a", traceparent=SAMPLED)))
    assert off.ended == []


async def test_each_acknowledged_entry_is_a_span_and_a_dead_letter_is_one_with_its_reason() -> None:
    spans = Spans()
    world = test_delivery.World(tracing=spans.tracing)
    bad = world.due_job("a", attributes={"n": Attribute("Number", "abc")}, traceparent=SAMPLED)
    good = world.due_job("a", traceparent=SAMPLED)
    for future in [world.delivery.submit(due_job) for due_job in (bad, good)]:
        await world.outcome(future)
    by_token = {attributes(span)["dynein.token"]: span.status for span in spans.ended}
    assert by_token.keys() == {bad.trigger.token, good.trigger.token}
    assert by_token[good.trigger.token].status_code is StatusCode.UNSET
    assert by_token[bad.trigger.token].status_code is StatusCode.ERROR
    assert by_token[bad.trigger.token].description


# --- settings --------------------------------------------------------------------------------------------------------


def test_nothing_is_made_unless_asked_for() -> None:
    assert open_tracing(Settings()) is None


def test_what_is_not_installed_is_reported_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "dynein.observability.otel", raising=False)
    with pytest.raises(InvalidSettings, match=r"DYNEIN_OTEL is set.*pip install 'dynein\[otel\]'"):
        open_tracing(Settings(otel=True))
