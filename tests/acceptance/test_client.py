"""Both Python clients against a real service: what they say was accepted arrives, once, whatever the network does."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from dynein.client import Accepted, AsyncClient, Client, Delivery, Job, NotDone, Policy, Refused, Unanswered
from tests.acceptance.fleet import HANG_S, QUICK, Fleet, Process, fleet, until
from tests.acceptance.proxy import LinkFaults, Proxy

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LOSES_ANSWERS = LinkFaults(lose_answer=1.0)
Do = Callable[..., Awaitable[Any]]
PATIENT = {"timeout_s": HANG_S, "patience_s": HANG_S}


class Service:
    """A fleet of one, and a proxy before it."""

    def __init__(self, running: Fleet, process: Process, proxy: Proxy) -> None:
        self.running = running
        self.process = process
        self.proxy = proxy

    async def received(self, queue: str, count: int) -> list[dict[str, Any]]:
        """At least so many messages, by a plain consumer; and what else is there."""
        found: list[dict[str, Any]] = []
        async with self.running.sqs() as sqs:
            url = (await sqs.get_queue_url(QueueName=queue))["QueueUrl"]

            async def enough() -> bool:
                while messages := (
                    await sqs.receive_message(
                        QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], WaitTimeSeconds=0
                    )
                ).get("Messages"):
                    found.extend(dict(message) for message in messages)
                return len(found) >= count

            await until(enough, f"{count} messages on {queue}")
        return found

    async def create(self, queue: str) -> None:
        async with self.running.sqs() as sqs:
            await sqs.create_queue(QueueName=queue)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    async with fleet(tmp_path_factory.mktemp("client")) as running:
        process = await running.start("api", "ingester", "dispatcher", **QUICK)
        async with Proxy(process.port, seed=1) as proxy:
            yield Service(running, process, proxy)


@asynccontextmanager
async def blocking(url: str, **options: Any) -> AsyncIterator[Do]:
    with Client(url, **{**PATIENT, **options}) as client:

        async def do(method: str, *arguments: Any, **more: Any) -> Any:
            return await asyncio.to_thread(partial(getattr(client, method), *arguments, **more))

        yield do


@asynccontextmanager
async def awaited(url: str, **options: Any) -> AsyncIterator[Do]:
    async with AsyncClient(url, **{**PATIENT, **options}) as client:

        async def do(method: str, *arguments: Any, **more: Any) -> Any:
            return await getattr(client, method)(*arguments, **more)

        yield do


both = pytest.mark.parametrize("client", [blocking, awaited])


@both
async def test_jobs_arrive_as_they_were_submitted(service: Service, client: Any) -> None:
    queue = f"plain-{client.__name__}"
    await service.create(queue)
    async with client(service.process.url) as do:
        text = await do(
            "submit",
            Job(queue, body="text", name="first", attributes={"n": 1, "raw": b"\xff"}, traceparent=TRACEPARENT),
        )
        assert text.policy is Policy.IMMEDIATE
        raw = await do("submit", Job(queue, body=b"\x00\xff", delay=dt.timedelta(seconds=1), policy=Policy.SCHEDULED))
        decoded = await do("submit", Job(queue, json={"to": [1, None]}, run_at=raw.due_at))
    deliveries = {delivery.token: delivery for delivery in map(Delivery.of, await service.received(queue, 3))}
    assert deliveries[text.token] == Delivery(
        text.token, text.due_at_ms, "text", "first", {"n": "1", "raw": b"\xff"}, TRACEPARENT
    )
    assert deliveries[raw.token] == Delivery(raw.token, raw.due_at_ms, b"\x00\xff", None, {}, None)
    assert deliveries[raw.token].due_at == raw.due_at
    assert deliveries[decoded.token].json() == {"to": [1, None]}


@both
async def test_a_job_is_found_moved_and_cancelled(service: Service, client: Any) -> None:
    await service.create("never")
    async with client(service.process.url) as do:
        job = await do("submit", Job("never", body="x", delay="1h"))
        assert (await do("get", job.token)).policy is Policy.SCHEDULED
        moved = await do("move", job.token, delay="2h")
        assert moved.previous_token == job.token
        assert moved.due_at - job.due_at > dt.timedelta(minutes=59)
        assert (await do("get", job.token)).moved_to == moved.token
        await do("cancel", moved.token)
        assert (await do("get", moved.token)).state == "cancelled"
        with pytest.raises(Refused) as raised:
            await do("move", moved.token, delay="1h")
        assert raised.value.code == "cancelled"
        with pytest.raises(Refused) as raised:
            await do("get", "forged")
        assert raised.value.code == "invalid-token"


@both
async def test_many_jobs_take_few_requests_and_each_has_its_outcome(service: Service, client: Any) -> None:
    queue = f"many-{client.__name__}"
    await service.create(queue)
    before = await service.running.metric(service.process, "dynein_http_requests_total")
    jobs = [Job(queue if n % 1000 else "no-such-queue", body=str(n)) for n in range(2_500)]
    async with client(service.process.url) as do:
        outcomes = await do("submit_many", jobs)
    assert await service.running.metric(service.process, "dynein_http_requests_total") - before < 10
    assert [n for n, outcome in enumerate(outcomes) if not isinstance(outcome, Accepted)] == [0, 1000, 2000]
    assert {outcomes[n].code for n in (0, 1000, 2000)} == {"unknown-queue"}
    bodies = Counter(message["Body"] for message in await service.received(queue, 2_497))
    assert bodies == Counter(str(n) for n in range(2_500) if n % 1000)


@both
async def test_when_answers_are_lost_a_job_is_submitted_once_or_in_doubt(service: Service, client: Any) -> None:
    queue = f"once-{client.__name__}"
    await service.create(queue)
    async with client(service.proxy.url) as do:
        prepared = await do("prepare", delay=1)
        service.proxy.faults = LOSES_ANSWERS
        with pytest.raises(Unanswered, match="did not respond"):
            await do("submit", Job(queue, body="in doubt"))
        lost = service.proxy.counts.answers_lost
        submitting = asyncio.ensure_future(do("submit", Job(queue, body="once", token=prepared.token)))

        async def has_been_repeated() -> bool:
            return service.proxy.counts.answers_lost >= lost + 3

        await until(has_been_repeated, "the submit is repeated")
        service.proxy.faults = LinkFaults()
        assert (await submitting).token == prepared.token
    bodies = Counter(message["Body"] for message in await service.received(queue, 2))
    assert bodies == {"in doubt": 1, "once": 1}


@both
async def test_an_answer_is_waited_for_as_long_as_asked_and_then_in_doubt(service: Service, client: Any) -> None:
    async with client(service.proxy.url, timeout_s=1, patience_s=1) as do:
        service.proxy.faults = LinkFaults(black_hole=True)
        try:
            with pytest.raises(Unanswered):
                await do("submit", Job("never", body="x"))
            with pytest.raises(Unanswered):
                await do("get", "token")
        finally:
            service.proxy.faults = LinkFaults()


@both
async def test_a_service_that_is_away_is_waited_for_and_not_for_ever(service: Service, client: Any) -> None:
    queue = f"waited-{client.__name__}"
    await service.create(queue)
    service.proxy.refuse()
    async with client(service.proxy.url, patience_s=0.5) as do:
        with pytest.raises(NotDone, match="cannot be reached"):
            await do("submit", Job(queue, body="x"))
    async with client(service.proxy.url) as do:
        submitting = asyncio.ensure_future(do("submit", Job(queue, body="x")))
        await asyncio.wait([submitting], timeout=0.3)
        assert not submitting.done()
        await service.proxy.listen()
        await submitting
