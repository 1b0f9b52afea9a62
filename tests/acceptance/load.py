"""Jobs posted to a fleet by clients that retry as a careful client would, and what became of each."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import aiohttp

from tests.acceptance.fleet import HANG_S, Fleet, monotonic, now_ms, pause, until

RETRY_PAUSE_S = 0.05


class Accepted(NamedTuple):
    """An answer of 202."""

    token: str
    policy: str
    due_at_ms: int


class Load:
    """Posts jobs whose bodies are their numbers to ``apis`` (which a test may change), and consumes their queue.

    An API that does not answer 202 is asked no more for this job: the next in the list is. Only what promises that
    nothing was accepted is retried: 503, and a connection that failed. Anything else fails the test.
    """

    def __init__(self, fleet: Fleet, queue: str) -> None:
        self.fleet = fleet
        self.queue = queue
        self.apis: list[str] = []
        self.accepted: dict[str, Accepted] = {}
        self.arrivals: dict[str, list[int]] = defaultdict(list)
        self.retries = 0
        self._numbers = itertools.count()

    async def post(self, **job: Any) -> Accepted:
        """Post one job until it is accepted."""
        body = str(next(self._numbers))
        give_up_at = monotonic() + HANG_S
        tries = 0
        while True:
            accepted = await self._try(self.apis[tries % len(self.apis)], body, **job)
            if accepted is not None:
                return accepted
            assert monotonic() < give_up_at, f"job {body} was not accepted by any of {self.apis}"
            tries += 1
            self.retries += 1
            await pause(RETRY_PAUSE_S)

    async def post_once(self, api: str, **job: Any) -> Accepted | None:
        """Post one job, once; ``None`` if it was not accepted."""
        return await self._try(api, str(next(self._numbers)), **job)

    async def _try(self, api: str, body: str, **job: Any) -> Accepted | None:
        with contextlib.suppress(aiohttp.ClientConnectionError):
            async with self.fleet.http.post(
                f"{api}/v1/jobs", json={"queue": self.queue, "body": body, **job}
            ) as response:
                if response.status == 202:
                    said = await response.json()
                    self.accepted[body] = Accepted(said["token"], said["policy"], said["due_at_ms"])
                    return self.accepted[body]
                assert response.status == 503, await response.text()
        return None

    @contextlib.asynccontextmanager
    async def running(
        self, make_job: Callable[[int], dict[str, Any]], *, clients: int = 8, pause_s: float = 0.05
    ) -> AsyncIterator[None]:
        """Clients post one job after the other until the block is left; one that was begun is still seen through."""
        enough = asyncio.Event()

        async def client(number: int) -> None:
            for turn in itertools.count():
                if enough.is_set():
                    return
                await self.post(**make_job(turn * clients + number))
                await pause(pause_s)

        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(client(number))
            try:
                yield
            finally:
                enough.set()

    @contextlib.asynccontextmanager
    async def consumed(self, consumers: int = 2) -> AsyncIterator[None]:
        """Plain consumers of the queue, which is made."""
        async with self.fleet.sqs() as sqs:
            url = (await sqs.create_queue(QueueName=self.queue))["QueueUrl"]
        tasks = [asyncio.create_task(self._consume(url)) for _ in range(consumers)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result

    async def _consume(self, url: str) -> None:
        async with self.fleet.sqs() as sqs:
            while True:
                answer = await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=0)
                at_ms = now_ms()
                messages = answer.get("Messages", [])
                for message in messages:
                    self.arrivals[message["Body"]].append(at_ms)
                if messages:
                    await sqs.delete_message_batch(
                        QueueUrl=url,
                        Entries=[{"Id": str(i), "ReceiptHandle": m["ReceiptHandle"]} for i, m in enumerate(messages)],
                    )
                else:
                    await pause(0.02)

    # --- results ----------------------------------------------------------------------------------------------------

    async def settled(self) -> None:
        """Return once everything accepted has arrived; nothing was early, and nothing came that was not accepted."""

        async def nothing_missing() -> bool:
            return not self.missing()

        await until(nothing_missing, f"{self.queue}: every accepted job arrives")
        early = {body: at[0] for body, at in self.arrivals.items() if at[0] < self.accepted[body].due_at_ms}
        assert not early
        assert self.arrivals.keys() == self.accepted.keys()

    async def until_queue_is_empty(self) -> None:
        """Return once all that was sent has been consumed."""
        async with self.fleet.sqs() as sqs:
            url = (await sqs.get_queue_url(QueueName=self.queue))["QueueUrl"]

            async def empty() -> bool:
                found = (await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]))["Attributes"]
                return all(count == "0" for name, count in found.items() if "NumberOfMessages" in name)

            await until(empty, f"{self.queue} is empty")

    def missing(self) -> set[str]:
        """Accepted, and not arrived."""
        return self.accepted.keys() - self.arrivals.keys()

    def duplicated(self) -> dict[str, Accepted]:
        """Arrived more than once."""
        return {body: self.accepted[body] for body, at in self.arrivals.items() if len(at) > 1}

    def late_ms(self, body: str) -> int:
        """First arrival minus due time."""
        return self.arrivals[body][0] - self.accepted[body].due_at_ms

    def latest(self) -> int:
        """The worst lateness of all."""
        return max(self.late_ms(body) for body in self.accepted)
