"""Issue by issue, what was promised, seen from outside: HTTP in, SQS out, real processes in between."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import itertools
import json
import os
import random
import signal
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from dynein.core.job_token import parse
from tests.acceptance.fleet import QUICK, Fleet, Process, fleet, now_ms, pause, until
from tests.engines import NotInstalled
from tests.engines import running as engine_running


class Load(NamedTuple):
    """How many jobs, due over how many seconds."""

    jobs: int
    spread_s: float


LOAD = Load(int(os.environ.get("ACCEPTANCE_JOBS", "6000")), float(os.environ.get("ACCEPTANCE_SPREAD_S", "30")))
"""The full-size run is 20,000 jobs over 60 s."""
SMALL_LOAD = Load(1200, 10.0)
"""On engines other than the embedded one: the point is what they answer, not how many they take."""
OTHER_ENGINES = [("elasticmq", "ministack"), ("fauxqs", "dynalite")]
"""For SQS and for DynamoDB, two processes. Nothing here cancels a job, so dynalite serves (see `tests.engines`)."""
PATIENT = {name: QUICK[name] for name in QUICK if name.endswith(("TIMEOUT_S", "TTL_S", "GRACE_S"))}
"""Of an API, which holds no lease and receives nothing: it waits longer for AWS."""
CLIENTS = 64
QUEUES = 10
LOG_JOBS = {"DYNEIN_LOG_FORMAT": "json", "DYNEIN_LOG_LEVEL": "DEBUG"}
"""Each process logs which jobs it had, and when."""


@dataclass
class Ledger:
    """What was accepted, and every arrival, by token."""

    accepted: dict[str, dict[str, object]] = field(default_factory=dict)
    asked_at_ms: dict[str, int] = field(default_factory=dict)
    arrivals: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def missing(self) -> set[str]:
        return self.accepted.keys() - self.arrivals.keys()

    def early(self) -> list[tuple[str, int]]:
        return [
            (token, at - int(str(job["due_at_ms"])))
            for token, job in self.accepted.items()
            for at in self.arrivals.get(token, ())
            if at < int(str(job["due_at_ms"]))
        ]

    def duplicated(self) -> dict[str, list[int]]:
        return {token: times for token, times in self.arrivals.items() if len(times) > 1}


async def consume(running: Fleet, queue_url: str, ledger: Ledger) -> None:
    async with running.sqs() as sqs:
        while True:
            answer = await sqs.receive_message(
                QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=1, MessageAttributeNames=["All"]
            )
            at = now_ms()
            messages = answer.get("Messages", [])
            for message in messages:
                ledger.arrivals[message["MessageAttributes"]["dynein-token"]["StringValue"]].append(at)
            if messages:
                await sqs.delete_message_batch(
                    QueueUrl=queue_url,
                    Entries=[{"Id": str(i), "ReceiptHandle": m["ReceiptHandle"]} for i, m in enumerate(messages)],
                )


async def submit(running: Fleet, api: str, jobs: list[dict[str, object]], ledger: Ledger) -> None:
    feed = iter(jobs)

    async def client() -> None:
        for job in feed:
            while True:
                asked_at_ms = now_ms()
                async with running.http.post(f"{api}/v1/jobs", json=job) as answer:
                    accepted = await answer.json()
                    if answer.status == 202:
                        break
                    # A busy machine is too slow for this many clients: they do as they are told.
                    assert accepted["code"] == "overloaded", accepted
                    retry_after_s = float(answer.headers["retry-after"])
                await pause(retry_after_s)
            ledger.accepted[accepted["token"]] = accepted
            ledger.asked_at_ms[accepted["token"]] = asked_at_ms

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


def make_jobs(rng: random.Random, start_ms: int, load: Load) -> list[dict[str, object]]:
    policies = itertools.cycle(("IMMEDIATE", "SQS_DELAYED", "SCHEDULED", "AUTO"))
    jobs: list[dict[str, object]] = []
    for number, policy in zip(range(load.jobs), policies, strict=False):
        job: dict[str, object] = {"queue": f"work-{number % QUEUES}", "body": f"job {number}", "policy": policy}
        if policy != "IMMEDIATE":
            job["run_at"] = start_ms + int(rng.uniform(0, load.spread_s * 1000))
        jobs.append(job)
    rng.shuffle(jobs)
    return jobs


class Logged(NamedTuple):
    """What the processes that were not killed have logged of the jobs."""

    delivered: Counter[str]
    """How often, by token."""
    ingested_at_ms: dict[str, int]
    """When an ingester first had it, by token."""
    lost_shards: set[int]
    lost_messages: bool
    """A process was starved for so long that others got what it had. It knows of which shards."""

    @classmethod
    def by(cls, processes: list[Process]) -> Logged:
        """Read their logs."""
        logged = cls(
            Counter(), {}, set(), any(process.log.read_text().count('"inbound.lost"') for process in processes)
        )
        for line in (json.loads(text) for process in processes for text in process.log.read_text().splitlines()):
            match line["event"]:
                case "job.delivered":
                    logged.delivered[line["token"]] += 1
                case "job.held" | "job.stored":
                    at_ms = int(dt.datetime.fromisoformat(line["time"]).timestamp() * 1000)
                    logged.ingested_at_ms[line["token"]] = min(at_ms, logged.ingested_at_ms.get(line["token"], at_ms))
                case "lease.lost":
                    logged.lost_shards.add(line["shard"])
        return logged

    def explains(self, token: str, killed_at_ms: int) -> bool:
        """May the kill, or a lack of processor, have caused this job's duplicate?

        A killed dispatcher had sent it, and not yet removed it: of the others, one delivered it at most. Or a killed
        ingester had it, and not yet deleted its message: no other had it before.
        """
        by_dispatcher = self.delivered[token] <= 1
        by_ingester = self.ingested_at_ms.get(token, killed_at_ms) >= killed_at_ms
        return by_dispatcher or by_ingester or self.lost_messages or parse(token).key.shard in self.lost_shards


async def test_every_job_arrives_once_and_none_early_while_a_dispatcher_and_an_ingester_are_killed(
    tmp_path: Path,
) -> None:
    async with fleet(tmp_path) as running:
        await check_every_job(running, LOAD)


@pytest.mark.parametrize(("sqs", "dynamodb"), OTHER_ENGINES)
async def test_the_same_on_other_engines(tmp_path: Path, sqs: str, dynamodb: str) -> None:
    with contextlib.ExitStack() as engines:
        try:
            elsewhere = {
                "sqs": engines.enter_context(engine_running(sqs, tmp_path / sqs)),
                "dynamodb": engines.enter_context(engine_running(dynamodb, tmp_path / dynamodb)),
            }
        except NotInstalled as why:
            pytest.skip(str(why))
        async with fleet(tmp_path, elsewhere=elsewhere) as running:
            if dynamodb == "dynalite":  # which has no transactions
                running.environment["DYNEIN_LEDGER_INTERVAL_S"] = "0"
            await check_every_job(running, SMALL_LOAD)


async def check_every_job(running: Fleet, load: Load) -> None:
    """Submit the load, kill a dispatcher and an ingester halfway, and account for every job."""
    async with running.sqs() as sqs:
        urls = [(await sqs.create_queue(QueueName=f"work-{number}"))["QueueUrl"] for number in range(QUEUES)]
    api, dispatcher, _, ingester, _ = [
        await running.start(role, **LOG_JOBS, **(PATIENT if role == "api" else {}))
        for role in ("api", "dispatcher", "dispatcher", "ingester", "ingester")
    ]
    ledger = Ledger()
    consumers = [asyncio.create_task(consume(running, url, ledger)) for url in urls]
    start_ms = now_ms()
    submitting = asyncio.create_task(submit(running, api.url, make_jobs(random.Random(1), start_ms, load), ledger))

    async def midway() -> bool:
        return len(ledger.arrivals) >= load.jobs / 2

    await until(midway, "half of the load has arrived")
    killed_at_ms = now_ms()
    for killed in (dispatcher, ingester):
        killed.signal(signal.SIGKILL)
        await killed.ended()
    killed_by_ms = now_ms()
    await submitting

    async def all_arrived() -> bool:
        return not ledger.missing()

    await until(all_arrived, "every accepted job arrives")
    survivors = [process for process in running.processes if process not in (dispatcher, ingester)]
    assert [await process.terminate() for process in survivors] == [0, 0, 0]
    assert not await running.stored_tokens(), "what is sent is removed"
    for consumer in consumers:
        consumer.cancel()
    await asyncio.gather(*consumers, return_exceptions=True)

    assert len(ledger.accepted) == load.jobs
    assert not ledger.early()
    report(ledger, killed_at_ms)
    logged = Logged.by(survivors)
    for token, times in ledger.duplicated().items():
        assert ledger.accepted[token]["policy"] == "SCHEDULED", (token, times)
        assert ledger.asked_at_ms[token] <= killed_by_ms, (token, times)
        assert logged.explains(token, killed_at_ms), (token, killed_at_ms, ledger.asked_at_ms[token], times)


def report(ledger: Ledger, killed_at_ms: int) -> None:
    """What the run measured, shown with ``pytest -s``."""
    late: dict[str, list[int]] = defaultdict(list)
    for token, job in ledger.accepted.items():
        late[str(job["policy"])].append(ledger.arrivals[token][0] - int(str(job["due_at_ms"])))
    print(f"\n{len(ledger.accepted)} jobs, {len(ledger.duplicated())} duplicated by the kill")  # noqa: T201
    for policy, values in sorted(late.items()):
        values.sort()
        p50, p99 = values[len(values) // 2], values[int(len(values) * 0.99)]
        print(f"{policy:<12} {len(values):>6} jobs, arrival late by p50 {p50} ms, p99 {p99} ms, max {values[-1]} ms")  # noqa: T201
    first = Counter((times[0] - killed_at_ms) // 1000 for times in ledger.duplicated().values())
    print(f"first arrival of duplicated jobs, seconds after the kill: {dict(sorted(first.items()))}")  # noqa: T201
