"""``dynein audit --repair``: each kind of damage that it claims to find, planted under a real service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dynein.admin.audit import OVERDUE, STRANDED, UNDECODABLE
from dynein.admin.redrive import NOT_DUE
from dynein.aws.dynamodb.items import key_item, tombstone_item, trigger_item
from dynein.aws.dynamodb.table import DynamoTable
from dynein.aws.dynamodb.triggers import DynamoTriggerStore
from dynein.core.inbound_message import Arrival
from dynein.core.job import Job, encode_job
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import Kind, TriggerKey, bucket_of, partition_key, sort_key
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import Tombstone
from dynein.runtime.context import command_context
from tests.acceptance.fleet import QUICK, SECRET, Fleet, Result, fleet, now_ms, until

TABLE = "dynein"
WIDTH_MS = 60_000
NO_SHARD = 4000
"""Of which there is no record: the table has eight shards."""
LONG_AGO_MS = 2 * 3_600_000
"""In a bucket that is retired: a new table's shards begin with the last hour."""
A_WHILE_AGO_MS = 300_000
QUEUE = "audited"


class Damage:
    """What is planted, by what is wrong with it."""

    def __init__(self, dynamodb: Any) -> None:
        self._dynamodb = dynamodb
        self._store = DynamoTriggerStore(DynamoTable(dynamodb, TABLE, command_context()), WIDTH_MS)
        self._made = 0
        self.spoilt: list[dict[str, Any]] = []
        """Keys of the records that are no triggers."""

    def trigger(self, due_at_ms: int, *, shard: int = 3, kind: TokenKind = TokenKind.SCHEDULED) -> Trigger:
        self._made += 1
        key = TriggerKey(due_at_ms, self._made.to_bytes(12, "big"), shard)
        token = TokenSigner([SECRET.encode()]).sign(JobRef(kind, key))
        return Trigger(key, token, encode_job(Job(QUEUE, f"job {self._made}")))

    async def stored(self, trigger: Trigger) -> Trigger:
        assert await self._store.add([trigger]) == []
        return trigger

    async def claimed(self, trigger: Trigger) -> Trigger:
        assert await self._store.claim(Arrival(trigger, "a create of long ago", prepared=True))
        return trigger

    async def cancelled(self, trigger: Trigger) -> Trigger:
        await self.put(tombstone_item(Tombstone(trigger.key, None), now_ms(), WIDTH_MS))
        return trigger

    async def put(self, item: dict[str, Any]) -> None:
        await self._dynamodb.put_item(TableName=TABLE, Item=item)

    async def spoil(self, item: dict[str, Any]) -> None:
        """Put a record at a trigger's place that is no trigger."""
        await self.put(item)
        self.spoilt.append({"pk": item["pk"], "sk": item["sk"]})

    async def mend(self) -> None:
        """What an operator does about those."""
        for key in self.spoilt:
            await self._dynamodb.delete_item(TableName=TABLE, Key=key)


async def spoil_in_every_way(damage: Damage) -> None:
    ahead_ms = now_ms() + 3_600_000
    bucket = bucket_of(ahead_ms, WIDTH_MS)
    foreign_key, misplaced, wordless, mistaken, swapped = [damage.trigger(ahead_ms) for _ in range(5)]
    await damage.spoil({**trigger_item(foreign_key, WIDTH_MS), **key_item(partition_key(bucket, 3), b"not a sort key")})
    in_another_bucket = key_item(partition_key(bucket + 1, 3), sort_key(misplaced.key, Kind.TRIGGER))
    await damage.spoil({**trigger_item(misplaced, WIDTH_MS), **in_another_bucket})
    without_job = trigger_item(wordless, WIDTH_MS)
    del without_job["job"]
    await damage.spoil(without_job)
    await damage.spoil({**trigger_item(mistaken, WIDTH_MS), "tk": {"S": "no token"}})
    await damage.spoil({**trigger_item(swapped, WIDTH_MS), "tk": {"S": mistaken.token}})


async def audited(running: Fleet, *options: str) -> tuple[Result, dict[str, Any]]:
    result = await running.run("audit", "--json", *options)
    return result, json.loads(result.out)


def found(report: dict[str, Any], kind: str) -> set[str]:
    """Tokens of the findings of a kind."""
    return {finding["token"] for finding in report["findings"] if finding["kind"] == kind}


async def receive(running: Fleet, queue: str, number: int) -> list[dict[str, Any]]:
    """So many messages of a queue, consumed; fails unless they come."""
    messages: list[Any] = []
    async with running.sqs() as sqs:
        url = (await sqs.get_queue_url(QueueName=queue))["QueueUrl"]

        async def all_there() -> bool:
            answer = await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"])
            for message in answer.get("Messages", []):
                messages.append(message)
                await sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            return len(messages) >= number

        await until(all_there, f"{number} messages on {queue}")
    return messages


def attributes(messages: list[dict[str, Any]], name: str) -> list[str]:
    return sorted(message["MessageAttributes"][name]["StringValue"] for message in messages)


async def test_each_kind_of_damage_is_found_and_what_can_be_repaired_is_delivered_once(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running, running.dynamodb() as dynamodb, running.sqs() as sqs:
        running.environment |= QUICK
        await sqs.create_queue(QueueName=QUEUE)
        damage = Damage(dynamodb)
        long_ago_ms = now_ms() - LONG_AGO_MS
        stranded = await damage.stored(damage.trigger(long_ago_ms))
        prepared = damage.trigger(long_ago_ms, kind=TokenKind.PREPARED)
        await damage.stored(await damage.claimed(prepared))
        shardless = await damage.stored(damage.trigger(now_ms() + 3_600_000, shard=NO_SHARD))
        cancelled = await damage.stored(await damage.cancelled(damage.trigger(long_ago_ms)))
        overdue = await damage.stored(damage.trigger(now_ms() - A_WHILE_AGO_MS))
        healthy = await damage.stored(damage.trigger(now_ms() + 7_200_000))
        await spoil_in_every_way(damage)
        lost = {stranded.token, prepared.token, shardless.token}

        # Found, and nothing touched.
        for _ in range(2):
            result, report = await audited(running)
            assert result.code == 1
            assert report["counts"] == {STRANDED: 3, OVERDUE: 1, UNDECODABLE: 5}
            assert found(report, STRANDED) == lost
            assert found(report, OVERDUE) == {overdue.token}
            assert (report["triggers"], report["tombstones"], report["repaired"]) == (6, 1, 0)

        # Repaired: what is stranded, and nothing else. No dispatcher is there yet, so what comes is the repair's doing.
        front = await running.start("api", "ingester")
        result, report = await audited(running, "--repair")
        assert result.code == 1, "there are records left that only an operator can deal with"
        assert {finding["token"] for finding in report["findings"] if finding["repaired"]} == lost
        delivered = await receive(running, QUEUE, 2)
        assert attributes(delivered, "dynein-token") == sorted([stranded.token, prepared.token])
        redriven = json.loads((await running.run("redrive", "--json")).out)
        assert (redriven["redriven"], redriven["failed"]) == (0, {NOT_DUE: 1}), "dead, but not due: it is never early"
        dead_letters = await receive(running, "dynein-dead-letter", 1)
        assert attributes(dead_letters, "dynein-token") == [shardless.token], "no dispatcher will ever own its shard"
        assert attributes(dead_letters, "dynein-reason") == [f"shard {NO_SHARD} does not exist in the table"]
        result, report = await audited(running)
        assert report["counts"] == {STRANDED: 0, OVERDUE: 1, UNDECODABLE: 5}
        assert result.code == 1

        # What is overdue needs no repair, only a dispatcher.
        dispatcher = await running.start("dispatcher")
        delivered = await receive(running, QUEUE, 1)
        assert attributes(delivered, "dynein-token") == [overdue.token]

        # What is undecodable needs an operator.
        await damage.mend()

        async def clean() -> bool:
            return (await running.run("audit")).code == 0

        await until(clean, "a clean audit")
        _, report = await audited(running)
        assert (report["counts"], report["findings"]) == ({STRANDED: 0, OVERDUE: 0, UNDECODABLE: 0}, [])
        assert report["triggers"] == 2, (healthy, cancelled)

        # Everything has come once, and what was cancelled has not: they end when nothing is on its way any more.
        assert [await process.terminate() for process in (dispatcher, front)] == [0, 0]
        answer = await sqs.receive_message(QueueUrl=(await sqs.get_queue_url(QueueName=QUEUE))["QueueUrl"])
        assert "Messages" not in answer
