"""One request's ids, seen from outside: in its answer, on the delivered message, in the log of every process."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import boto3
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.acceptance.fleet import QUICK, REGION, Fleet, Process, fleet, free_port, until

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"
JSON_LINES = {"DYNEIN_LOG_FORMAT": "json", "DYNEIN_LOG_LEVEL": "DEBUG"}


async def submit(running: Fleet, api: Process, request_id: str, **job: Any) -> str:
    headers = {"traceparent": TRACEPARENT, "x-request-id": request_id}
    job = {"queue": "traced", "body": "a secret body", **job}
    async with running.http.post(f"{api.url}/v1/jobs", json=job, headers=headers) as answer:
        assert answer.status == 202, await answer.text()
        assert answer.headers["x-request-id"] == request_id
        return str((await answer.json())["token"])


def received(running: Fleet, count: int) -> dict[str, dict[str, Any]]:
    """Message attributes by token, from a plain boto3 consumer, once there are so many."""
    sqs = boto3.client(
        "sqs",
        region_name=REGION,
        endpoint_url=running.endpoint,
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )
    url = sqs.get_queue_url(QueueName="traced")["QueueUrl"]
    found: dict[str, dict[str, Any]] = {}
    while len(found) < count:
        answer = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1, MessageAttributeNames=["All"])
        for message in answer.get("Messages", []):
            attributes = message["MessageAttributes"]
            found[attributes["dynein-token"]["StringValue"]] = attributes
    return found


def by_token(process: Process) -> dict[str, list[dict[str, Any]]]:
    """Every line is JSON; what becomes of a job, by its token."""
    lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for text in process.log.read_text().splitlines():
        line = json.loads(text)
        if "token" in line and line["event"].startswith("job."):
            lines[line["token"]].append(line)
    return lines


async def first_event(process: Process, token: str) -> str:
    """The event of the first line about a job, once there is one."""

    async def event() -> str:
        complete, _, _ = process.log.read_text().rpartition("\n")
        lines = [json.loads(text) for text in complete.splitlines()]
        return next((line["event"] for line in lines if line.get("token") == token), "")

    return await until(event, f"the job {token} is ingested")


async def test_from_request_to_message(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        async with running.sqs() as sqs:
            await sqs.create_queue(QueueName="traced")
        api = await running.start("api", **QUICK, **JSON_LINES)
        rest = await running.start("ingester", "dispatcher", **QUICK, **JSON_LINES)
        tokens = {
            "now": await submit(running, api, "now", policy="IMMEDIATE"),
            "near": await submit(running, api, "near", policy="SCHEDULED", delay=1),
        }
        # What is due soon when it is ingested is not stored. How late that is, depends on how busy this machine is.
        held_too = set()
        for delay in (6, 30, 120):
            tokens["far"] = await submit(running, api, "far", policy="SCHEDULED", delay=delay)
            if await first_event(rest, tokens["far"]) == "job.stored":
                break
            held_too.add(tokens["far"])
        messages = await asyncio.to_thread(received, running, 3 + len(held_too))
        assert messages.keys() == {*tokens.values(), *held_too}
        for attributes in messages.values():
            assert attributes["traceparent"] == {"StringValue": TRACEPARENT, "DataType": "String"}

        async with running.http.post(f"{api.url}/v1/jobs", data=b"{", headers={"x-request-id": "bad\u00e9"}) as answer:
            assert (answer.status, len(answer.headers["x-request-id"])) == (400, 16), "one was made"
        async with running.http.get(f"{api.url}/nowhere", headers={"x-request-id": "lost"}) as answer:
            assert (answer.status, answer.headers["x-request-id"]) == (404, "lost")

        await api.terminate()
        await rest.terminate()
        accepted, later = by_token(api), by_token(rest)
        for request_id, token in tokens.items():
            (line,) = accepted[token]
            assert (line["event"], line["request_id"], line["trace_id"]) == ("job.accepted", request_id, TRACE_ID)
        assert tokens["now"] not in later
        assert [line["event"] for line in later[tokens["near"]]] == ["job.held", "job.delivered"]
        assert [line["event"] for line in later[tokens["far"]]] == ["job.stored", "job.delivered"]
        assert {(line["trace_id"], line["role"]) for lines in later.values() for line in lines[1:]} == {
            (TRACE_ID, "ingester"),
            (TRACE_ID, "dispatcher"),
        }
        for process in (api, rest):
            text = process.log.read_text()
            assert "a secret body" not in text
            assert running.environment["DYNEIN_TOKEN_SECRETS"] not in text


@asynccontextmanager
async def collector(spans: dict[str, list[Span]]) -> AsyncIterator[str]:
    """An OpenTelemetry collector that keeps spans by name; where it listens."""

    async def export(request: web.Request) -> web.Response:
        for resource in ExportTraceServiceRequest.FromString(await request.read()).resource_spans:
            assert ("service.name", "jobs") in [(a.key, a.value.string_value) for a in resource.resource.attributes]
            for scope in resource.scope_spans:
                for span in scope.spans:
                    spans[span.name].append(span)
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", export)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port := free_port()).start()
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def test_spans_reach_a_collector_and_hang_together(tmp_path: Path) -> None:
    spans: dict[str, list[Span]] = defaultdict(list)
    async with fleet(tmp_path) as running, collector(spans) as endpoint:
        async with running.sqs() as sqs:
            await sqs.create_queue(QueueName="traced")
        settings = {"DYNEIN_OTEL": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_SERVICE_NAME": "jobs"}
        process = await running.start("api", "ingester", "dispatcher", **QUICK, **settings)
        token = await submit(running, process, "r", policy="SCHEDULED", delay=1)
        attributes = (await asyncio.to_thread(received, running, 1))[token]
        assert await process.terminate() == 0
        (submitted,), (sent,) = spans["POST /v1/jobs"], spans["send traced"]
        assert (submitted.trace_id.hex(), submitted.parent_span_id.hex()) == (TRACE_ID, TRACEPARENT.split("-")[2])
        assert [(link.trace_id, link.span_id) for link in sent.links] == [(submitted.trace_id, submitted.span_id)]
        assert sent.trace_id != submitted.trace_id
        carried = f"00-{submitted.trace_id.hex()}-{submitted.span_id.hex()}-01"
        assert attributes["traceparent"]["StringValue"] == carried
