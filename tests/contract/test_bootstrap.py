"""What ``dynein bootstrap`` must find and leave behind on every SQS. Tables: `tests.contract.test_table`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import pytest_asyncio

from dynein.aws.bootstrap import RECEIVES_MAX, Step, bootstrap
from dynein.aws.clients import Clients, dynamodb_client
from dynein.runtime.context import command_context
from dynein.settings import Settings
from tests.contract.conftest import Opened, without_table_afterwards
from tests.contract.subjects import REAL_QUEUES, Subject, over

pytestmark = over(REAL_QUEUES)

FORGOTTEN = {"elasticmq": {"MaximumMessageSize", "MessageRetentionPeriod"}}
"""ElasticMQ deviates: it takes these attributes and neither acts on them nor knows them when asked, so that each
bootstrap sets them again."""


class Account(NamedTuple):
    """An SQS with nothing of ours in it, and a table elsewhere."""

    engine: str
    settings: Settings
    aws: Clients

    async def bootstrap(self) -> list[Step]:
        return await bootstrap(self.aws, self.settings, command_context())

    @property
    def all_well(self) -> list[str]:
        """The outcomes of a bootstrap that finds nothing to do: the two queues, the table, its layout."""
        queues = "updated" if self.engine in FORGOTTEN else "verified"
        return [queues, queues, "verified", "verified"]

    async def url(self, name: str) -> str:
        return (await self.aws.sqs.get_queue_url(QueueName=name))["QueueUrl"]

    async def attributes(self, name: str) -> dict[str, str]:
        result = await self.aws.sqs.get_queue_attributes(QueueUrl=await self.url(name), AttributeNames=["All"])
        return {str(key): value for key, value in result["Attributes"].items()}


@pytest_asyncio.fixture(loop_scope="session")
async def account(
    subject: Subject, opened: Opened, engine_settings: Settings, endpoint_of: Callable[[str], str | None]
) -> AsyncIterator[Account]:
    names = {"inbound_queue": f"{engine_settings.table}-in", "dead_letter_queue": f"{engine_settings.table}-dead"}
    # The SQS engine may have no tables; those are another engine's, whichever it is.
    tables = endpoint_of("real" if subject.engine == "real" else "roto")
    settings = engine_settings.model_copy(update={**names, "dynamodb_endpoint_url": tables})
    async with dynamodb_client(settings) as dynamodb, without_table_afterwards(dynamodb, settings.table):
        made = Account(subject.engine, settings, Clients(opened.sqs, dynamodb))
        yield made
        for name in names.values():
            await opened.sqs.delete_queue(QueueUrl=await made.url(name))


async def test_it_creates_everything_and_then_finds_it_as_it_should_be(account: Account) -> None:
    assert [step.outcome for step in await account.bootstrap()] == ["created"] * 4
    assert [step.outcome for step in await account.bootstrap()] == account.all_well


async def test_what_cannot_be_ingested_ends_in_the_dead_letter_queue(account: Account) -> None:
    await account.bootstrap()
    dead = await account.attributes(account.settings.dead_letter_queue)
    inbound = await account.attributes(account.settings.inbound_queue)
    redrive = json.loads(inbound["RedrivePolicy"])
    assert redrive["deadLetterTargetArn"] == dead["QueueArn"]
    assert int(redrive["maxReceiveCount"]) == RECEIVES_MAX


async def test_attributes_that_someone_changed_are_put_right(account: Account) -> None:
    await account.bootstrap()
    wanted = await account.attributes(account.settings.inbound_queue)
    url = await account.url(account.settings.inbound_queue)
    await account.aws.sqs.set_queue_attributes(
        QueueUrl=url, Attributes={"VisibilityTimeout": "7", "MessageRetentionPeriod": "60"}
    )
    assert [step.outcome for step in await account.bootstrap()][1] == "updated"
    assert [step.outcome for step in await account.bootstrap()] == account.all_well
    put_right = await account.attributes(account.settings.inbound_queue)
    ours = {"MaximumMessageSize", "MessageRetentionPeriod", "RedrivePolicy", "VisibilityTimeout"}
    for name in ours - FORGOTTEN.get(account.engine, set()):
        assert put_right[name] == wanted[name]
