"""Callers as users write them, in one process: the CPU of submitting a job. Started by `benchmarks.submit`.

Reads one plan a line (JSON) from standard input and writes a line of figures for each. Threads share one client, as
boto3's documentation allows; CPU is that of this whole process.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp
import boto3
import httpx
import msgspec
from botocore.config import Config

from benchmarks.harness import REGION
from benchmarks.jobs import QUEUE, body_text
from benchmarks.loadgen import percentile
from benchmarks.requests import dynein_job
from dynein.client import Accepted, AsyncClient, Client, Job

SQS_ENTRIES_MAX = 10
Call = Callable[[], None]
AsyncCall = Callable[[], Awaitable[None]]


class Plan(msgspec.Struct):
    """``address``: of the stub for boto3, of the API for the others. ``calls`` are shared among ``threads``."""

    caller: str
    address: str
    calls: int
    threads: int = 1
    jobs_a_call: int = 1
    scheduled: bool = False


def send_message(plan: Plan) -> Callable[[], Call]:
    """boto3, one message a call."""
    client, url = _sqs(plan)

    def call() -> None:
        client.send_message(QueueUrl=url, MessageBody=body_text())

    return lambda: call


def send_message_batch(plan: Plan) -> Callable[[], Call]:
    """boto3, ten messages a call: as many calls as ``jobs_a_call`` needs."""
    client, url = _sqs(plan)

    def call() -> None:
        for start in range(0, plan.jobs_a_call, SQS_ENTRIES_MAX):
            numbers = range(start, min(start + SQS_ENTRIES_MAX, plan.jobs_a_call))
            entries = [{"Id": str(n), "MessageBody": body_text()} for n in numbers]
            response = client.send_message_batch(QueueUrl=url, Entries=entries)
            assert not response.get("Failed"), response

    return lambda: call


def http_client(plan: Plan) -> Callable[[], Call]:
    """The standard library, one connection a thread."""

    def thread() -> Call:
        connection = http.client.HTTPConnection(plan.address)

        def call() -> None:
            path, body = _request(plan)
            connection.request("POST", path, json.dumps(body))
            response = connection.getresponse()
            _check(plan, json.loads(response.read()), response.status)

        return call

    return thread


def with_httpx(plan: Plan) -> Callable[[], Call]:
    """httpx, one client a thread."""

    def thread() -> Call:
        client = httpx.Client(base_url=f"http://{plan.address}")

        def call() -> None:
            path, body = _request(plan)
            response = client.post(path, json=body)
            _check(plan, response.json(), response.status_code)

        return call

    return thread


def with_client(plan: Plan) -> Callable[[], Call]:
    """`dynein.client.Client`, one for all threads."""
    client = Client(f"http://{plan.address}")

    def call() -> None:
        _check_outcomes(plan, client.submit_many(_jobs(plan)) if plan.jobs_a_call > 1 else [client.submit(_job(plan))])

    return lambda: call


CALLERS: dict[str, Callable[[Plan], Callable[[], Call]]] = {
    "boto3 send_message": send_message,
    "boto3 send_message_batch": send_message_batch,
    "http.client": http_client,
    "httpx": with_httpx,
    "dynein.client.Client": with_client,
}


def run_threads(plan: Plan) -> dict[str, Any]:
    """All calls, from as many threads."""
    make = CALLERS[plan.caller](plan)
    latencies: list[float] = []
    ready = threading.Barrier(plan.threads + 1)
    failures: list[BaseException] = []
    each = max(1, plan.calls // plan.threads)

    def work() -> None:
        call = make()
        call()  # the first connects
        ready.wait()
        try:
            for _ in range(each):
                started = time.perf_counter()
                call()
                latencies.append(time.perf_counter() - started)
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(plan.threads)]
    for thread in threads:
        thread.start()
    ready.wait()
    wall, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return _figures(plan, latencies, time.perf_counter() - wall, time.process_time() - cpu)


@asynccontextmanager
async def with_aiohttp(plan: Plan) -> AsyncIterator[AsyncCall]:
    """aiohttp, one session."""
    url = f"http://{plan.address}"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=plan.threads)) as session:

        async def call() -> None:
            path, body = _request(plan)
            async with session.post(url + path, json=body) as response:
                _check(plan, await response.json(), response.status)

        yield call


@asynccontextmanager
async def with_async_client(plan: Plan) -> AsyncIterator[AsyncCall]:
    """`dynein.client.AsyncClient`."""
    async with AsyncClient(f"http://{plan.address}") as client:

        async def call() -> None:
            many = plan.jobs_a_call > 1
            _check_outcomes(plan, await client.submit_many(_jobs(plan)) if many else [await client.submit(_job(plan))])

        yield call


ASYNC_CALLERS: dict[str, Callable[[Plan], AbstractAsyncContextManager[AsyncCall]]] = {
    "aiohttp": with_aiohttp,
    "dynein.client.AsyncClient": with_async_client,
}


async def run_tasks(plan: Plan) -> dict[str, Any]:
    """All calls, from as many tasks as ``threads``."""
    latencies: list[float] = []
    async with ASYNC_CALLERS[plan.caller](plan) as call:

        async def work() -> None:
            for _ in range(max(1, plan.calls // plan.threads)):
                started = time.perf_counter()
                await call()
                latencies.append(time.perf_counter() - started)

        await asyncio.gather(*(call() for _ in range(plan.threads)))
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(work() for _ in range(plan.threads)))
        return _figures(plan, latencies, time.perf_counter() - wall, time.process_time() - cpu)


def _sqs(plan: Plan) -> tuple[Any, str]:
    config = Config(max_pool_connections=max(10, plan.threads))
    client = boto3.client("sqs", region_name=REGION, endpoint_url=f"http://{plan.address}", config=config)
    return client, f"http://{plan.address}/000000000000/{QUEUE}"


def _request(plan: Plan) -> tuple[str, dict[str, Any]]:
    job = dynein_job(scheduled=plan.scheduled)
    if plan.jobs_a_call == 1:
        return "/v1/jobs", job
    return "/v1/jobs/batch", {"jobs": [dynein_job(scheduled=plan.scheduled) for _ in range(plan.jobs_a_call)]}


def _job(plan: Plan) -> Job:
    return Job(**dynein_job(scheduled=plan.scheduled))


def _jobs(plan: Plan) -> list[Job]:
    return [_job(plan) for _ in range(plan.jobs_a_call)]


def _check_outcomes(plan: Plan, outcomes: Sequence[object]) -> None:
    accepted = sum(isinstance(outcome, Accepted) for outcome in outcomes)
    assert accepted == plan.jobs_a_call, outcomes


def _check(plan: Plan, said: dict[str, Any], status: int) -> None:
    accepted = said["accepted"] if plan.jobs_a_call > 1 else int("token" in said)
    assert accepted == plan.jobs_a_call, (status, said)


def _figures(plan: Plan, latencies: list[float], wall_s: float, cpu_s: float) -> dict[str, Any]:
    ordered = sorted(1000 * latency for latency in latencies)
    return {
        "calls": len(ordered),
        "jobs": len(ordered) * plan.jobs_a_call,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "p50_ms": statistics.median(ordered),
        "p99_ms": percentile(ordered, 0.99),
        "p999_ms": percentile(ordered, 0.999),
    }


def main() -> None:
    os.sched_setaffinity(0, {int(sys.argv[1])})
    for line in sys.stdin.buffer:
        plan = msgspec.json.decode(line, type=Plan)
        figures = asyncio.run(run_tasks(plan)) if plan.caller in ASYNC_CALLERS else run_threads(plan)
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
