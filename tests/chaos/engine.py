"""The engine as consumers and operators have it: without the proxy."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, NamedTuple

from dynein.aws.dynamodb.items import identity, read_trigger
from dynein.aws.dynamodb.shards import DynamoShardRecords
from dynein.aws.dynamodb.table import DynamoTable
from dynein.core.keys import Kind, TriggerKey, bucket_of, parse_partition_key, parse_sort_key
from dynein.core.trigger import Trigger
from dynein.runtime.context import command_context
from tests.acceptance.fleet import Fleet, now_ms
from tests.chaos.accounts import FIFO_QUEUE
from tests.chaos.clients import ONE_TRY
from tests.chaos.settings import BUCKET_WIDTH_S

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient
    from types_aiobotocore_sqs import SQSClient

TABLE = "dynein"
QUEUES = ["work-0", "work-1"]

RETIRED_MS = 20_000
SOON_MS = 3_600_000
"""Jobs are due within seconds or a day ahead."""


class Stored(NamedTuple):
    """What is in the trigger store: the triggers that nothing keeps from being sent, and how many there are in all.

    The others have a tombstone: a job that was cancelled, and ingested afterwards.
    """

    triggers: list[Trigger]
    records: int


class Aws(NamedTuple):
    """Both services, and the queues of the test."""

    sqs: SQSClient
    dynamodb: DynamoDBClient
    destinations: list[str]
    inbound: str
    dead_letters: str

    @property
    def urls(self) -> list[str]:
        """Every queue."""
        return [*self.destinations, self.inbound, self.dead_letters]

    async def under_way(self) -> str:
        """A queue that is not empty, or triggers that are due or will be soon; nothing if there are none."""
        for url in self.urls:
            answer = await self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
            counts = {key: value for key, value in answer["Attributes"].items() if "NumberOfMessages" in key}
            if any(value != "0" for value in counts.values()):
                return f"{url}: {counts}"
        soon_ms = now_ms() + SOON_MS
        soon = [trigger for trigger in (await self.stored()).triggers if trigger.key.due_at_ms < soon_ms]
        return f"{len(soon)} triggers to be sent: {soon[:3]}" if soon else ""

    async def stored(self) -> Stored:
        """What is in the trigger store."""
        found: list[Trigger] = []
        cancelled: set[TriggerKey] = set()
        async for page in self.dynamodb.get_paginator("scan").paginate(TableName=TABLE, ConsistentRead=True):
            for item in page["Items"]:
                pk, sk = identity(item)
                place = parse_partition_key(pk)
                if place is None:
                    continue
                key, kind = parse_sort_key(sk, place[1])
                if kind is Kind.TOMBSTONE:
                    cancelled.add(key)
                else:
                    trigger = read_trigger(item, key)
                    assert trigger is not None, item
                    found.append(trigger)
        return Stored([trigger for trigger in found if trigger.key not in cancelled], len(found))


@contextlib.asynccontextmanager
async def open_aws(running: Fleet) -> AsyncIterator[Aws]:
    """The queues are made."""
    async with running.sqs(ONE_TRY) as sqs, running.dynamodb(ONE_TRY) as dynamodb:
        destinations = [(await sqs.create_queue(QueueName=name))["QueueUrl"] for name in QUEUES]
        fifo = await sqs.create_queue(QueueName=FIFO_QUEUE, Attributes={"FifoQueue": "true"})
        inbound, dead_letters = [
            (await sqs.get_queue_url(QueueName=name))["QueueUrl"] for name in ("dynein-inbound", "dynein-dead-letter")
        ]
        yield Aws(sqs, dynamodb, [*destinations, fifo["QueueUrl"]], inbound, dead_letters)


async def age(aws: Aws) -> None:
    """Make the table look as if it had been in use up to now: of a new one, the last hour is read first."""
    shards = DynamoShardRecords(DynamoTable(aws.dynamodb, TABLE, command_context()))
    retired_before = bucket_of(now_ms() - RETIRED_MS, BUCKET_WIDTH_S * 1000)
    for record in await shards.all():
        taken = await shards.take(record, "predecessor")
        assert taken is not None
        renewed = await shards.renew(
            taken, settled_mark_ms=taken.settled_mark_ms, read_mark_ms=now_ms(), retired_before=retired_before
        )
        assert renewed is not None
        assert await shards.release(renewed)
