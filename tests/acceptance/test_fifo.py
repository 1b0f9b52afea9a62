"""Message groups of FIFO queues, and queues with settings of their own, on a real engine with several processes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.acceptance.fleet import QUICK, Fleet, Process, fleet, monotonic, now_ms, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOBS = 30


class Running:
    """Two API processes, two ingesters and two dispatchers."""

    def __init__(self, made: Fleet, apis: list[Process], http: aiohttp.ClientSession) -> None:
        self.made = made
        self.apis = apis
        self.http = http

    async def create(self, name: str, **attributes: str) -> None:
        if name.endswith(".fifo"):
            attributes["FifoQueue"] = "true"
        given: Any = attributes
        async with self.made.sqs() as sqs:
            await sqs.create_queue(QueueName=name, Attributes=given)

    async def post(self, path: str, body: dict[str, Any], *, api: int = 0) -> tuple[int, dict[str, Any]]:
        async with self.http.post(self.apis[api].url + path, json=body) as response:
            return response.status, await response.json()

    async def bodies(self, queue: str, number: int) -> list[str]:
        """Receive so many messages, deleting each; their bodies in the order they came."""
        came: list[str] = []
        async with self.made.sqs() as sqs:
            url = (await sqs.get_queue_url(QueueName=queue))["QueueUrl"]

            async def all_came() -> bool:
                response = await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
                for message in response.get("Messages", []):
                    came.append(message["Body"])
                    await sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                return len(came) >= number

            await until(all_came, f"{number} messages on {queue}")
        return came


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with fleet(tmp_path_factory.mktemp("fifo")) as made, aiohttp.ClientSession() as http:
        made.environment |= QUICK
        apis = [await made.start("api", "ingester", "dispatcher") for _ in range(2)]
        yield Running(made, apis, http)


def job(queue: str, body: str, **fields: Any) -> dict[str, Any]:
    return {"queue": queue, "body": body, "message_group_id": "g", **fields}


@pytest.mark.parametrize("how", ["one-request", "one-by-one"])
async def test_jobs_of_a_group_with_one_due_time_arrive_as_they_were_accepted(running: Running, how: str) -> None:
    queue = f"{how}.fifo"
    await running.create(queue)
    due_ms = now_ms() + 12_000
    bodies = [str(i) for i in range(JOBS)]
    jobs = [job(queue, body, run_at=due_ms) for body in bodies]
    if how == "one-request":
        _, response = await running.post("/v1/jobs/batch", {"jobs": jobs})
        assert response["accepted"] == JOBS
    else:
        for i, each in enumerate(jobs):
            # By both processes in turn: they are on one machine, and have one clock.
            assert (await running.post("/v1/jobs", each, api=i % 2))[0] == 202
    assert now_ms() < due_ms, "all were accepted before they were due"
    assert await running.bodies(queue, JOBS) == bodies


async def test_jobs_of_a_group_arrive_by_due_time_in_whatever_order_they_were_submitted(running: Running) -> None:
    await running.create("mixed.fifo")
    due_ms = now_ms() + 12_000
    dues = [due_ms + 100 * i for i in range(JOBS)]
    shuffled = random.Random(1).sample(dues, JOBS)
    for i, due in enumerate(shuffled):
        assert (await running.post("/v1/jobs", job("mixed.fifo", str(due), run_at=due), api=i % 2))[0] == 202
    assert now_ms() < due_ms, "all were accepted before they were due"
    assert await running.bodies("mixed.fifo", JOBS) == [str(due) for due in dues]


async def test_a_due_time_counts_and_not_the_delay_of_the_queue(running: Running) -> None:
    await running.create("slow", DelaySeconds="600")
    before = monotonic()
    for fields in ({}, {"delay": 1, "policy": "SQS_DELAYED"}, {"delay": 2, "policy": "SCHEDULED"}):
        status, response = await running.post("/v1/jobs", {"queue": "slow", "body": "x", **fields})
        assert status == 202
        assert "warnings" not in response
    await running.bodies("slow", 3)
    assert monotonic() - before < 600


async def test_a_fifo_queue_with_a_delay_brings_a_warning(running: Running) -> None:
    await running.create("slow.fifo", DelaySeconds="1")
    _, response = await running.post("/v1/jobs", job("slow.fifo", "x"))
    assert [warning["code"] for warning in response["warnings"]] == ["queue-delays-messages"]
    assert await running.bodies("slow.fifo", 1) == ["x"]


@pytest.mark.parametrize("fields", [{}, {"delay": 60}, {"delay": 3600}], ids=["immediate", "sqs-delayed", "scheduled"])
async def test_a_job_that_is_too_large_for_its_queue_is_refused(running: Running, fields: dict[str, Any]) -> None:
    await running.create("small", MaximumMessageSize="1024")
    status, problem = await running.post("/v1/jobs", {"queue": "small", "body": "x" * 5_000, **fields})
    assert (status, problem["code"], problem["field"]) == (422, "invalid-field", "body")
    assert "the limit is 1024" in problem["detail"]
