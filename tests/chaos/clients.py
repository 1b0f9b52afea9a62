"""Clients that keep submitting, cancelling and moving jobs whatever happens, and consumers that keep consuming."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError

from dynein.core.delivered_message import TOKEN_ATTRIBUTE
from dynein.core.job import decode_job
from tests.acceptance.fleet import HANG_S, Fleet, monotonic, now_ms, pause
from tests.chaos.accounts import FIFO_QUEUE, GONE_QUEUE, Account, Accounts, Sighting, Standing

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient

REPEAT_S = 0.1
ANSWER_S = 30.0
"""How long it waits for an answer: longer than the API takes to give up on AWS."""
NOTHING_ACCEPTED = frozenset({"overloaded", "draining", "throttled", "not-sent"})
"""The problems that promise so. ``unavailable`` does not."""
DAY_S = 86_400
VISIBILITY_TIMEOUT_S = 3
POLL_S = 0.08
ONE_TRY = AioConfig(retries={"total_max_attempts": 1}, connect_timeout=60, read_timeout=60)


class Answer(NamedTuple):
    """An answer of the API. Status 0: none came. -1: the request cannot have been delivered."""

    status: int
    said: dict[str, Any]

    @property
    def code(self) -> str:
        """The problem's."""
        return str(self.said.get("code", ""))

    @property
    def standing(self) -> Standing:
        """What this answer to a POST says of the job."""
        if self.status in {200, 202}:
            return Standing.ACCEPTED
        if self.status == -1 or self.code in NOTHING_ACCEPTED:
            return Standing.REFUSED
        assert self.status == 0 or (self.status == 503 and self.code == "unavailable"), self
        return Standing.DOUBTFUL


class Clients:
    """Submit to whatever API ``api_urls`` says is there. The same seed makes the same jobs, in each client's order."""

    def __init__(
        self, fleet: Fleet, accounts: Accounts, api_urls: Callable[[], list[str]], *, queues: list[str], seed: int
    ) -> None:
        self._fleet = fleet
        self._accounts = accounts
        self._api_urls = api_urls
        self._queues = queues
        self._seed = seed
        self._turns = itertools.count()

    @contextlib.asynccontextmanager
    async def running(self, clients: int, pause_s: float) -> AsyncIterator[None]:
        """Until the block is left; what was begun is seen through."""
        enough = asyncio.Event()

        async def client(number: int) -> None:
            rng = random.Random(f"{self._seed} {number}")
            async with asyncio.TaskGroup() as following_up:
                while not enough.is_set():
                    await self._turn(rng, following_up)
                    await pause(pause_s)

        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(client(number))
            try:
                yield
            finally:
                enough.set()

    async def _turn(self, rng: random.Random, following_up: asyncio.TaskGroup) -> None:
        """One of the things that users of Dynein do."""
        queue = rng.choice(self._queues)
        scheduled = {"policy": "SCHEDULED"}
        match rng.choices(range(9), weights=(3, 3, 5, 6, 3, 2, 2, 3, 3))[0]:
            case 0:
                await self.post(queue, policy="IMMEDIATE")
            case 1:
                await self.post(queue, policy="SQS_DELAYED", delay=rng.randint(1, 3))
            case 2:
                await self.post(queue, **scheduled, delay=rng.uniform(0.5, 3.4))  # held by an ingester
            case 3:
                await self.post(queue, **scheduled, delay=rng.uniform(4, 11))  # stored
            case 4:
                await self.post_prepared(queue, delay=rng.uniform(1, 9))
            case 5:
                await self.post(
                    FIFO_QUEUE, **scheduled, delay=rng.uniform(0.5, 7), message_group_id=str(rng.randint(0, 3))
                )
            case 6:
                delays = [rng.uniform(0, 8) for _ in range(rng.randint(2, 8))]
                await self.post_batch(
                    queue, [{**scheduled, "delay": delay} for delay in delays] + [{"policy": "IMMEDIATE"}]
                )
            case 7:
                account = await self.post(queue, **scheduled, delay=rng.choice((4, 8, 10, DAY_S)))
                following_up.create_task(self._think_again(account, rng.uniform(0, 2), cancel=True))
            case _:
                account = await self.post(queue, **scheduled, delay=DAY_S * rng.uniform(1, 3))
                if rng.random() < 0.7:
                    cancel = rng.random() < 0.3
                    following_up.create_task(
                        self._think_again(account, rng.uniform(0, 2), move_by_s=rng.uniform(3, 6), cancel=cancel)
                    )

    # --- submitting -------------------------------------------------------------------------------------------------

    async def post(self, queue: str, **job: Any) -> Account:
        """Submit a job, again only where nothing was accepted."""
        account = self._accounts.open(queue, job["policy"])
        deadline = monotonic() + HANG_S
        while True:
            answer = await self._ask("POST", "/v1/jobs", {"queue": queue, "body": account.body, **job})
            _note(account, answer)
            if account.standing is not Standing.REFUSED or monotonic() > deadline:
                return account
            await pause(REPEAT_S)

    async def post_prepared(self, queue: str, *, delay: float) -> Account:
        """Submit a job under a token made first, until it is accepted: however often, it is one job."""
        token = str((await self._retry("POST", "/v1/tokens", {"delay": delay})).said["token"])
        account = self._accounts.open(queue, "SCHEDULED")
        answer = await self._retry("POST", "/v1/jobs", {"queue": queue, "body": account.body, "token": token})
        assert answer.said["token"] == token
        _note(account, answer)
        return account

    async def post_batch(self, queue: str, jobs: list[dict[str, Any]]) -> None:
        """Submit many at once; each has its own answer."""
        accounts = [self._accounts.open(queue, job["policy"]) for job in jobs]
        bodies = [{"queue": queue, "body": a.body, **job} for a, job in zip(accounts, jobs, strict=True)]
        answer = await self._ask("POST", "/v1/jobs/batch", {"jobs": bodies})
        results = answer.said.get("results")
        for i, account in enumerate(accounts):
            # A request that failed as a whole says the same of each job.
            item = answer if results is None else Answer(results[i]["status"], results[i].get("problem", results[i]))
            _note(account, item)

    async def post_ahead(self, jobs: int, *, from_s: float, until_s: float) -> None:
        """Submit jobs due one after the other, from then until then."""
        step_s = (until_s - from_s) / jobs
        dues = [{"policy": "SCHEDULED", "delay": from_s + i * step_s} for i in range(jobs)]
        await self.post_batch(self._queues[0], dues)

    async def post_and_cancel_one_of_each(self, queue: str) -> None:
        """One job that stays in the store, and one that is cancelled there, whatever else clients find time for."""
        await self.post(queue, policy="SCHEDULED", delay=DAY_S)
        await self._think_again(await self.post(queue, policy="SCHEDULED", delay=DAY_S), 0, cancel=True)

    # --- thinking again ---------------------------------------------------------------------------------------------

    async def _think_again(self, account: Account, after_s: float, *, move_by_s: float = 0, cancel: bool) -> None:
        """Move the job to soon, cancel it, or both."""
        if account.standing is Standing.ACCEPTED:
            await pause(after_s)
            if move_by_s:
                await self._move(account, now_ms() + int(move_by_s * 1000))
            if cancel:
                await self._cancel(account)

    async def _cancel(self, account: Account) -> None:
        answer = await self._retry("DELETE", f"/v1/jobs/{account.token}")
        if answer.code == "moved":  # by a move that had no clear answer
            account.token = str(answer.said["moved_to"])
            answer = await self._retry("DELETE", f"/v1/jobs/{account.token}")
        assert answer.status == 200 or answer.code == "too-late", answer
        account.cancelled = answer.status == 200

    async def _move(self, account: Account, run_at_ms: int) -> None:
        in_doubt = False
        deadline = monotonic() + HANG_S
        while True:
            answer = await self._ask("PATCH", f"/v1/jobs/{account.token}", {"run_at": run_at_ms})
            if answer.status == 200 or answer.code == "moved":
                account.token = str(answer.said["token" if answer.status == 200 else "moved_to"])
                account.moved_at_ms = now_ms()
                return
            assert answer.status in {0, -1, 429, 503} or answer.code in {"not-stored-yet", "too-late"}, answer
            in_doubt |= answer.status == 0 or answer.code == "unavailable"
            if answer.code == "too-late" or monotonic() > deadline:
                account.move_in_doubt = in_doubt
                account.moved_at_ms = now_ms()
                return
            await pause(REPEAT_S)

    # --- asking -----------------------------------------------------------------------------------------------------

    async def _retry(self, method: str, path: str, body: Any = None) -> Answer:
        """Ask what may be asked again, until there is a clear answer."""
        deadline = monotonic() + HANG_S
        while True:
            answer = await self._ask(method, path, body)
            if answer.status > 0 and answer.status not in {429, 503}:
                assert answer.status < 300 or answer.status == 409, answer
                return answer
            assert monotonic() < deadline, answer
            await pause(REPEAT_S)

    async def _ask(self, method: str, path: str, body: Any = None) -> Answer:
        urls = self._api_urls()
        if not urls:
            return Answer(-1, {})
        url = urls[next(self._turns) % len(urls)]
        try:
            async with self._fleet.http.request(
                method, url + path, json=body, timeout=aiohttp.ClientTimeout(total=ANSWER_S)
            ) as answer:
                return Answer(answer.status, await answer.json(content_type=None))
        except aiohttp.ClientConnectorError:
            return Answer(-1, {})
        except (aiohttp.ClientError, TimeoutError):
            return Answer(0, {})


def _note(account: Account, answer: Answer) -> None:
    account.answered_at_ms = now_ms()
    account.standing = answer.standing
    if account.standing is Standing.ACCEPTED:
        account.token = str(answer.said["token"])
        assert answer.said["policy"] == account.policy


# --- consuming --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def consuming(sqs: SQSClient, urls: list[str], dead_letters_url: str, accounts: Accounts) -> AsyncIterator[None]:
    """Plain consumers of these queues, until the block is left. An error of SQS only makes them try again."""

    def delivered(message: Any, at_ms: int) -> None:
        sighting = Sighting(_attribute(message, TOKEN_ATTRIBUTE), at_ms)
        if "MessageGroupId" in message["Attributes"]:
            # By this, SQS drops what comes again within five minutes. The embedded engine drops it only until the first
            # is deleted, so duplicates are seen here on a FIFO queue too.
            assert message["Attributes"]["MessageDeduplicationId"] == sighting.token, message
        accounts.seen(lambda account: account.deliveries, message["Body"], sighting, message["MessageId"])

    def dead_lettered(message: Any, at_ms: int) -> None:
        assert TOKEN_ATTRIBUTE in message["MessageAttributes"], f"a whole inbound message was given up: {message}"
        job = decode_job(message["Body"].encode())
        # The reason is its last failure, which is the network's where that was cut when the retry budget ended.
        assert job.queue == GONE_QUEUE, message
        sighting = Sighting(_attribute(message, TOKEN_ATTRIBUTE), at_ms)
        accounts.seen(lambda account: account.dead_letters, job.body, sighting, message["MessageId"])

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_consume(sqs, url, delivered)) for url in urls]
        tasks.append(group.create_task(_consume(sqs, dead_letters_url, dead_lettered)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _consume(sqs: SQSClient, url: str, note: Callable[[Any, int], None]) -> None:
    while True:
        messages: Sequence[Any] = []
        with contextlib.suppress(ClientError, BotoCoreError):
            answer = await sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=0, VisibilityTimeout=VISIBILITY_TIMEOUT_S,
                MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"],
            )  # fmt: skip
            at_ms = now_ms()
            messages = answer.get("Messages", [])
            for message in messages:
                note(message, at_ms)
            if messages:
                await sqs.delete_message_batch(
                    QueueUrl=url,
                    Entries=[{"Id": str(i), "ReceiptHandle": m["ReceiptHandle"]} for i, m in enumerate(messages)],
                )
        if not messages:
            await pause(POLL_S)


def _attribute(message: Any, name: str) -> str:
    return str(message["MessageAttributes"][name]["StringValue"])
