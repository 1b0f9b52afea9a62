"""Messages that another program sends to our queues, by SQS's own API, against a real service on a real engine."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dynein.core.inbound_message import Entry, pack
from dynein.core.job import Job, encode_job
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import JOB_ID_BYTES, TriggerKey
from dynein.core.seal import Seal
from tests.acceptance.fleet import QUICK, Fleet, fleet, now_ms, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

GUESSED = b"a secret that is only guessed"
VICTIM = "victim"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """One process with all roles."""
    async with fleet(tmp_path_factory.mktemp("forged")) as made:
        made.environment |= QUICK
        process = await made.start("api", "ingester", "dispatcher")
        made.environment["DYNEIN_URL"] = process.url
        async with made.sqs() as sqs:
            await sqs.create_queue(QueueName=VICTIM)
        yield made


async def send(running: Fleet, queue: str, body: str, **attributes: str) -> None:
    """A plain SendMessage, as anybody with ``sqs:SendMessage`` can make it."""
    async with running.sqs() as sqs:
        url = (await sqs.get_queue_url(QueueName=queue))["QueueUrl"]
        typed: Any = {
            name.replace("_", "-"): {"DataType": "String", "StringValue": value} for name, value in attributes.items()
        }
        await sqs.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=typed)


async def messages(running: Fleet, queue: str, number: int) -> list[dict[str, Any]]:
    """Wait until a queue holds so many, and look at them: they stay."""
    seen: dict[str, Any] = {}
    async with running.sqs() as sqs:
        url = (await sqs.get_queue_url(QueueName=queue))["QueueUrl"]

        async def all_seen() -> bool:
            response = await sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0, MessageAttributeNames=["All"]
            )
            seen.update({message["MessageId"]: message for message in response.get("Messages", [])})
            return len(seen) >= number

        await until(all_seen, f"{number} messages on {queue}")
    return list(seen.values())


def reason(message: dict[str, Any]) -> str:
    return str(message["MessageAttributes"]["dynein-reason"]["StringValue"])


def forged_token() -> str:
    """Of a job that was due a moment ago, so that it would be delivered at once."""
    key = TriggerKey(now_ms() - 1000, secrets.token_bytes(JOB_ID_BYTES), 0)
    return TokenSigner([GUESSED]).sign(JobRef(TokenKind.SCHEDULED, key))


async def test_what_another_program_writes_to_our_queues_is_never_delivered(running: Fleet) -> None:
    options = ["--delay", "15", "--policy", "scheduled", "--json"]
    genuine = json.loads(await running.command("submit", VICTIM, "genuine", *options))
    record = encode_job(Job(VICTIM, "forged"))
    forged = {}
    for token in (forged_token(), genuine["token"]):
        guessed = pack([Entry(token, "", record)], Seal([GUESSED]))
        bare = re.sub(r'"mac":"[^"]*",', "", guessed)
        forged[guessed] = forged[bare] = "its signature is not this deployment's"
        forged[bare.replace('"v":3', '"v":2')] = "inbound format 2 is unknown"
    await asyncio.gather(*(send(running, "dynein-inbound", body) for body in forged))
    dead = await messages(running, "dynein-dead-letter", len(forged))
    assert {message["Body"] for message in dead} == forged.keys()
    for message in dead:
        assert forged[message["Body"]] in reason(message)

    # What lies on the dead-letter queue is not believed either, whoever wrote it there.
    a_job = {"dynein_dead_letter": "job", "dynein_due_at": str(now_ms() - 1000)}
    unsigned = {"dynein_token": forged_token(), **a_job}
    signed = {"dynein_token": genuine["token"], "dynein_signature": "A" * 24, **a_job}
    for attributes in (unsigned, signed):
        await send(running, "dynein-dead-letter", record.decode(), **attributes)
    await messages(running, "dynein-dead-letter", len(forged) + 2)
    redriven = await running.run("redrive", "--json")
    assert redriven.code == 1
    report = json.loads(redriven.out)
    assert (report["redriven"], sum(report["failed"].values())) == (0, len(forged) + 2)
    assert {why.split(":")[0] for why in report["failed"]} == {
        "its signature is not this deployment's",
        "inbound format 2 is unknown to this version, which reads format 3",
    }

    # The genuine job is last: what was forged was due before it.
    (arrived,) = await messages(running, VICTIM, 1)
    assert arrived["Body"] == "genuine"
    assert arrived["MessageAttributes"]["dynein-token"]["StringValue"] == genuine["token"]


async def test_an_ingester_with_another_secret_loses_nothing_that_a_redrive_does_not_send_back(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        running.environment |= QUICK
        async with running.sqs() as sqs:
            await sqs.create_queue(QueueName=VICTIM)
        api = await running.start("api", "dispatcher")
        wrong = await running.start("ingester", DYNEIN_TOKEN_SECRETS="a secret that is not the API's")
        running.environment["DYNEIN_URL"] = api.url
        submitted = json.loads(await running.command("submit", VICTIM, "genuine", "--policy", "scheduled", "--json"))

        async def poisoned() -> bool:
            return bool(wrong.logged("inbound.poison"))

        await until(poisoned, "the message is dead-lettered")
        assert await wrong.terminate() == 0
        await running.start("ingester")
        report = json.loads(await running.command("redrive", "--json"))
        assert (report["redriven"], report["failed"]) == (1, {})
        (arrived,) = await messages(running, VICTIM, 1)
        assert arrived["MessageAttributes"]["dynein-token"]["StringValue"] == submitted["token"]
