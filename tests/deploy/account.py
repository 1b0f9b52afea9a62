"""An account on moto, and a run of everything in it, each role behind a guard with its own policy and nothing more."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from tests.acceptance.fleet import QUICK, REGION, Fleet, Process, pause, until
from tests.acceptance.test_cli import plant
from tests.deploy.guard import Engine, Guard
from tests.deploy.iam import Grant, Policy

ACCOUNT = "123456789012"
PARAMETERS = {"DestinationQueueArns": f"arn:aws:sqs:{REGION}:{ACCOUNT}:orders-*", "VisibilityTimeoutSeconds": "14"}
SERVICE: dict[str, Any] = {
    **QUICK,
    # Fewer calls than there: moto is slow.
    "DYNEIN_INGEST_RECEIVERS": "1",
    "DYNEIN_TICK_S": "1",
    "DYNEIN_READ_AHEAD_S": "3",
    "DYNEIN_CALL_TIMEOUT_S": "8",
    # Jobs for a queue that is gone are dead letters soon; but until then the ingester holds one for more than half of
    # the visibility timeout, however late it came to it, and has to extend that.
    "DYNEIN_RETRY_BUDGET_S": "8",
    "DYNEIN_BACKOFF_MAX_S": "0.5",
    "DYNEIN_HOLD_WINDOW_S": "5.5",
    "DYNEIN_VISIBILITY_TIMEOUT_S": PARAMETERS["VisibilityTimeoutSeconds"],
    "DYNEIN_SHARD_COUNT": "4",
    "DYNEIN_LEDGER_INTERVAL_S": "2",
}
HELD_S, STORED_S = 5, 3600
"""Delays of jobs that an ingester holds and sends itself, and of those that it stores for a dispatcher."""
POLL_EVERY_S = 0.3
EXPECTED = {f"{who} by {how}" for who in ("api", "ingester", "dispatcher") for how in ("name", "URL")}
PROCESSES = ("Api", "Ingester", "Dispatcher")
"""Roles that are processes, by the names that the template has for them."""


class Account(NamedTuple):
    """An engine with nothing on it but what tests make."""

    fleet: Fleet
    engine: Engine

    @property
    def endpoint(self) -> str:
        return self.fleet.endpoint

    async def url(self, queue: str) -> str:
        """The URL of a queue, made if need be."""
        async with self.fleet.sqs() as sqs:
            return (await sqs.create_queue(QueueName=queue))["QueueUrl"]

    async def attributes(self, queue: str) -> dict[str, Any]:
        """What SQS says of a queue, but for what is of the moment."""
        async with self.fleet.sqs() as sqs:
            url = (await sqs.get_queue_url(QueueName=queue))["QueueUrl"]
            found: Any = (await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]))["Attributes"]
        return {name: value for name, value in found.items() if not re.match(r"Approximate|.*Timestamp$", name)}

    async def table(self, name: str) -> dict[str, Any]:
        """What DynamoDB says of a table."""
        async with self.fleet.dynamodb() as dynamodb:
            found: Any = (await dynamodb.describe_table(TableName=name))["Table"]
            ttl = (await dynamodb.describe_time_to_live(TableName=name))["TimeToLiveDescription"]
        return {
            **{key: found[key] for key in ("AttributeDefinitions", "KeySchema", "BillingModeSummary")},
            "TimeToLive": ttl,
        }

    async def made(self, inbound: str, dead_letters: str, table: str) -> list[Any]:
        """All that `dynein bootstrap` verifies."""
        return [await self.attributes(inbound), await self.attributes(dead_letters), await self.table(table)]

    @contextlib.asynccontextmanager
    async def guard(self, policy: Policy) -> AsyncIterator[Guard]:
        async with Guard(self.engine, policy).standing() as standing:
            yield standing


class Story(NamedTuple):
    """What came of it."""

    bootstrapped: str
    """What `dynein bootstrap` said."""
    unchanged: bool
    """Whether all that the stack made was then as before."""
    outside: tuple[int, Any]
    """What the API answered to a job for a queue that the policy leaves out."""
    delivered: set[str]
    repaired: Any
    redriven: Any
    guards: dict[str, Guard]

    def used(self, role: str) -> set[Grant]:
        """What the role did, by the grants of its policy."""
        guard = self.guards[role]
        return {grant for access in guard.seen.allowed for grant in guard.policy.allowing(access)}


async def everything(account: Account, policies: Mapping[str, Policy]) -> Story:
    """Bootstrap, all three roles, every kind of job, and the other commands, on the queues and the table of a stack."""
    async with contextlib.AsyncExitStack() as standing:
        guards = {
            role: await standing.enter_async_context(account.guard(policies[role])) for role in (*PROCESSES, "Operator")
        }
        operator = {**SERVICE, "DYNEIN_ENDPOINT_URL": guards["Operator"].url}
        names = ("dynein-inbound", "dynein-dead-letter", "dynein")
        before = await account.made(*names)
        bootstrapped = await account.fleet.command("bootstrap", **operator)
        unchanged = await account.made(*names) == before
        processes = await asyncio.gather(
            *(
                account.fleet.start(role.lower(), **{**SERVICE, "DYNEIN_ENDPOINT_URL": guards[role].url})
                for role in PROCESSES
            )
        )
        await account.url("orders-stranded")
        await plant(account.fleet, queue="orders-stranded")
        async with asyncio.TaskGroup() as side_by_side:  # a repair waits for ten seconds before it believes what it saw
            repairing = side_by_side.create_task(
                account.fleet.command("audit", "--repair", "--json", **operator), name="repair"
            )
            outside = await submissions(account, processes[0])
            delivered = await deliveries(account, [guards["Ingester"], guards["Dispatcher"]])
        for queue in ("orders-gone", "orders-left"):
            await account.url(queue)
        redriven = json.loads((await account.fleet.run("redrive", "--json", **operator)).out)
        await account.fleet.command("bootstrap", **{**operator, "DYNEIN_SHARD_COUNT": "6"})
        await account.fleet.command("ledger", **operator)
        await until(partial(has_read_ledger, guards["Dispatcher"]), "the observer has read the ledger")
        assert await asyncio.gather(*(process.terminate() for process in processes)) == [0, 0, 0]
        return Story(bootstrapped, unchanged, outside, delivered, json.loads(repairing.result()), redriven, guards)


async def has_read_ledger(guard: Guard) -> bool:
    """Has one of the dispatchers, as the observer of the fleet?"""
    return any(access.action == "dynamodb:Query" and "ledger#" in access.leading_keys for access in guard.seen.allowed)


async def submissions(account: Account, api: Process) -> tuple[int, Any]:
    """Jobs by every way there is, and all that can be done to one; and the answer to one that is not allowed."""
    url = await account.url("orders-a")
    gone = [await account.url(queue) for queue in ("orders-gone", "orders-left")]
    await account.url("payroll")

    async def ask(method: str, path: str, status: int, **body: Any) -> Any:
        async with account.fleet.http.request(method, api.url + path, json=body or None) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    async def submit(text: str, queue: str, **options: Any) -> str:
        return str((await ask("POST", "/v1/jobs", 202, queue=queue, body=text, **options))["token"])

    stored = []
    for how, queue in (("name", "orders-a"), ("URL", url)):
        await submit(f"api by {how}", queue)
        await submit(f"ingester by {how}", queue, delay=HELD_S, policy="SCHEDULED")
        stored.append(await submit(f"dispatcher by {how}", queue, delay=STORED_S))
    stored.append(await submit("stored for nobody", "orders-left", delay=STORED_S))
    cancelled = await submit("cancelled", "orders-a", delay=STORED_S)
    prepared = (await ask("POST", "/v1/tokens", 200, delay=STORED_S))["token"]
    await submit("prepared", "orders-a", token=prepared)
    await submit("held for nobody", gone[0], delay=HELD_S, policy="SCHEDULED")  # last: its queue goes before it is due
    async with account.fleet.sqs() as sqs:
        for queue_url in gone:
            await sqs.delete_queue(QueueUrl=queue_url)
        await sqs.send_message(QueueUrl=await account.url("dynein-inbound"), MessageBody="not a job of ours")

    async def all_stored() -> bool:
        states = {(await ask("GET", f"/v1/jobs/{token}", 200))["state"] for token in (*stored, cancelled)}
        await pause(POLL_EVERY_S)
        return states == {"scheduled"}

    await until(all_stored, "the ingester has stored what is due later")
    await ask("DELETE", f"/v1/jobs/{cancelled}", 200)
    for token in stored:  # to now, which is behind what the dispatcher has read
        await ask("PATCH", f"/v1/jobs/{token}", 200, delay=0)
    async with account.fleet.http.post(f"{api.url}/v1/jobs", json={"queue": "payroll", "body": "raise"}) as answer:
        return answer.status, await answer.json()


async def deliveries(account: Account, guards: Sequence[Guard]) -> set[str]:
    """The jobs that came to ``orders-a``, once those that nobody can take are in the dead-letter queue.

    Fails at once if something was refused on the way there.
    """
    bodies: set[str] = set()
    url, dead_letters = await account.url("orders-a"), await account.url("dynein-dead-letter")
    async with account.fleet.sqs() as sqs:

        async def all_there() -> bool:
            answer = await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
            bodies.update(message["Body"] for message in answer.get("Messages", []))
            counted = await sqs.get_queue_attributes(
                QueueUrl=dead_letters, AttributeNames=["ApproximateNumberOfMessages"]
            )
            await pause(POLL_EVERY_S)
            assert [guard.seen.refused for guard in guards] == [set(), set()]
            return len(bodies) == len(EXPECTED) and int(counted["Attributes"]["ApproximateNumberOfMessages"]) >= 3

        await until(all_there, "every job is delivered or dead-lettered")
    return bodies
