"""Trace context, from the request to the message and to the stored job."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dynein.api.caller import Caller
from dynein.core.delivered_message import outgoing_bytes
from dynein.core.job import Job, decode_job, encode_job
from dynein.core.queues import ATTRIBUTES_MAX
from dynein.delivery.dead_letter_queue import OVERHEAD_BYTES
from dynein.errors import InvalidField
from tests.unit.api.setting import Api, job

HEADER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LIMIT = 8_192
FIELD = "00-11111111111111111111111111111111-2222222222222222-00"


def delivered(api: Api) -> str | None:
    (message,) = api.queues.peek("demo")
    attribute = message.attributes.get("traceparent")
    if attribute is not None:
        assert attribute.type == "String"
    return None if attribute is None else attribute.value


def stored(api: Api) -> list[str | None]:
    return [decode_job(arrival.trigger.record).traceparent for arrival in api.arrivals()]


async def submit(api: Api, fields: dict[str, Any], *, header: str | None) -> None:
    async with api.http() as http:
        headers = {} if header is None else {"traceparent": header}
        response = await http.post("/v1/jobs", json={"queue": "demo", "body": "hello", **fields}, headers=headers)
    assert response.status_code == 202, response.text


@pytest.mark.parametrize(
    ("header", "field", "found"),
    [
        (HEADER, None, HEADER),
        (None, FIELD, FIELD),
        (HEADER, FIELD, FIELD),
        (HEADER, "nonsense", HEADER),
        (HEADER.upper(), None, None),
        (None, "", None),
        (None, None, None),
    ],
)
async def test_the_context_goes_with_the_message_and_into_the_store(
    header: str | None, field: str | None, found: str | None
) -> None:
    api = Api()
    fields = {} if field is None else {"traceparent": field}
    await submit(api, fields, header=header)
    assert delivered(api) == found
    await submit(api, {**fields, "delay": "1h"}, header=header)
    assert stored(api) == [found]


async def test_a_batch_has_one_context_and_any_job_its_own() -> None:
    api = Api()
    jobs = [{"queue": "demo", "body": "a", "delay": "1h"}]
    jobs.append({**jobs[0], "traceparent": FIELD})
    async with api.http() as http:
        response = await http.post("/v1/jobs/batch", json={"jobs": jobs}, headers={"traceparent": HEADER})
    assert response.json()["accepted"] == 2
    assert stored(api) == [HEADER, FIELD]


async def test_the_users_own_attribute_of_that_name_stays() -> None:
    api = Api()
    await submit(api, {"attributes": {"traceparent": "mine"}}, header=HEADER)
    assert delivered(api) == "mine"


@pytest.mark.parametrize(("own", "found"), [(7, HEADER), (8, None)])
async def test_it_takes_only_an_attribute_that_the_user_leaves(own: int, found: str | None) -> None:
    api = Api()
    await submit(api, {"attributes": {f"a{i}": i for i in range(own)}}, header=HEADER)
    assert delivered(api) == found
    (message,) = api.queues.peek("demo")
    assert len(message.attributes) == ATTRIBUTES_MAX


@pytest.mark.parametrize(("bytes_short", "found"), [(0, None), (71, None), (72, HEADER)])
async def test_a_job_too_large_with_it_goes_without_it(bytes_short: int, found: str | None) -> None:
    api = Api(message_bytes_max=LIMIT, pack_bytes_max=LIMIT)
    room = LIMIT - outgoing_bytes(Job("demo", ""), api.clock.now_ms())
    await submit(api, {"body": "x" * (room - bytes_short)}, header=HEADER)
    assert delivered(api) == found


@settings(max_examples=50, deadline=None)
@given(body_bytes=st.integers(3_480, 3_580))
async def test_a_scheduled_job_is_accepted_with_it_if_it_is_without(body_bytes: int) -> None:
    api = Api(message_bytes_max=LIMIT, pack_bytes_max=LIMIT)
    fields = {"body": "x" * body_bytes, "delay": "1h"}
    # What still fits as a dead letter; and with the context.
    room = LIMIT - OVERHEAD_BYTES - len(encode_job(Job("demo", "")))
    room_traced = LIMIT - OVERHEAD_BYTES - len(encode_job(Job("demo", "", traceparent=HEADER)))
    outcomes = []
    for traceparent in (None, HEADER):
        try:
            await api.submissions.accept(job(**fields), Caller(traceparent=traceparent))
            outcomes.append("accepted")
        except InvalidField:
            outcomes.append("refused")
    assert outcomes == ["accepted" if body_bytes <= room else "refused"] * 2
    if body_bytes <= room:
        assert stored(api) == [None, HEADER if body_bytes <= room_traced else None]


async def test_a_moved_job_keeps_its_context() -> None:
    api = Api()
    await submit(api, {"delay": "1h"}, header=HEADER)
    (arrival,) = api.arrivals()
    await api.ingest()
    async with api.http() as http:
        response = await http.patch(f"/v1/jobs/{arrival.trigger.token}", json={"delay": "2h"})
    found = await api.table.find(api.ref(response.json()["token"]).key)
    assert found.trigger is not None
    assert decode_job(found.trigger.record).traceparent == HEADER


async def test_no_span_of_the_framework_has_a_token_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    exported = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exported))
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    provider.get_tracer("another library").start_span("a span").end()
    api = Api()
    token = (await api.accept(delay="1h")).token
    async with api.http() as http:
        for method in ("GET", "PATCH", "DELETE"):
            await http.request(method, f"/v1/jobs/{token}")
    spans = exported.get_finished_spans()
    assert [span.name for span in spans] == ["a span"]
