"""DynamoDB calls that need care: conditions as results, transactions, and batches that come back half done."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from dynein.aws.calls import AwsCalls
from dynein.aws.dynamodb.items import Item, identity
from dynein.aws.errors import THROTTLING_CODES, error_code
from dynein.errors import Throttled
from dynein.observability.events.process import AWS_THROTTLED
from dynein.observability.telemetry import Telemetry
from dynein.runtime.backoff import pause_s
from dynein.runtime.clock import Clock

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient

COUNTED: Any = {"ReturnConsumedCapacity": "TOTAL"}
"""In each request, so that its answer says what it consumed."""
GET_MAX = 100
"""DynamoDB: keys in a BatchGetItem."""
CONFLICT_TRIES = 6
UNPROCESSED_TRIES = 8
_PAUSE_FIRST_S = 0.02
_PAUSE_MAX_S = 0.5


class DynamoCalls:
    """Calls on one table."""

    def __init__(
        self,
        client: DynamoDBClient,
        table: str,
        clock: Clock,
        telemetry: Telemetry,
        rng: random.Random | None = None,
    ) -> None:
        self.client = client
        self.table = table
        self.clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._calls = AwsCalls(client, telemetry)
        self.run = self._calls.run

    async def get(self, key: Item) -> Item | None:
        """One item, strongly consistent."""
        call = self.client.get_item(TableName=self.table, Key=key, ConsistentRead=True, **COUNTED)
        answer = await self.run("GetItem", call)
        item = answer.get("Item")
        return dict(item) if item is not None else None

    async def get_many(self, keys: Sequence[Item]) -> list[Item]:
        """Those of ``keys`` that exist, strongly consistent, in no order. Keys may repeat.

        DynamoDB leaves keys unprocessed under load; they are asked for again, with pauses. Raises `Throttled` when
        some are still unprocessed after `UNPROCESSED_TRIES`.
        """
        wanted = list({identity(key): key for key in keys}.values())
        found: list[Item] = []
        failures = 0
        while wanted:
            request: Any = {self.table: {"Keys": wanted[:GET_MAX], "ConsistentRead": True}}
            answer = await self.run("BatchGetItem", self.client.batch_get_item(RequestItems=request, **COUNTED))
            found += [dict(item) for items in (answer.get("Responses") or {}).values() for item in items]
            left = [dict(key) for rest in (answer.get("UnprocessedKeys") or {}).values() for key in rest["Keys"]]
            wanted = left + wanted[GET_MAX:]
            if left:
                failures += 1
                if failures == UNPROCESSED_TRIES:
                    raise Throttled(f"BatchGetItem: {len(left)} keys unprocessed after {failures} tries")
                await self.pause(failures)
        return found

    async def write_batch(self, requests: Sequence[Item]) -> set[tuple[str, bytes]]:
        """One BatchWriteItem of put and delete requests, no two on one key. The keys of those *not* done."""
        items: Any = {self.table: list(requests)}
        answer = await self.run("BatchWriteItem", self.client.batch_write_item(RequestItems=items, **COUNTED))
        return {
            identity(request["PutRequest"]["Item"] if "PutRequest" in request else request["DeleteRequest"]["Key"])
            for left in (answer.get("UnprocessedItems") or {}).values()
            for request in left
        }

    async def query(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """One Query page of this table: the answer."""
        return await self.run("Query", self.client.query(TableName=self.table, **request, **COUNTED))

    async def query_all(self, request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The items of all of a Query's pages."""
        items: list[Mapping[str, Any]] = []
        further: dict[str, Any] = {}
        while True:
            answer = await self.query({**request, **further})
            items += answer["Items"]
            if not answer.get("LastEvaluatedKey"):
                return items
            further = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    async def scan(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """One Scan page of this table: the answer."""
        return await self.run("Scan", self.client.scan(TableName=self.table, **request, **COUNTED))

    async def put(self, item: Item, **condition: Any) -> None:  # noqa: ANN401 - SDK types
        """Put, whatever was there."""
        await self.run("PutItem", self.client.put_item(TableName=self.table, Item=item, **condition, **COUNTED))

    async def delete(self, key: Item) -> None:
        """Delete, whatever is there."""
        await self.run("DeleteItem", self.client.delete_item(TableName=self.table, Key=key, **COUNTED))

    async def put_if(self, item: Item, condition: str, **names_and_values: Any) -> bool:  # noqa: ANN401 - SDK types
        """Put under a condition. ``False``: it did not hold."""
        request = {"ConditionExpression": condition, **names_and_values}
        for failures in range(1, CONFLICT_TRIES + 1):
            try:
                await self.put(item, **request)
            except ClientError as error:
                if error_code(error) == "ConditionalCheckFailedException":
                    return False
                await self._pause_if_conflict(error, failures)
            else:
                return True
        raise Throttled("PutItem: transactions on this record keep getting in the way")

    async def update_if(self, key: Item, update: str, condition: str, values: Item, names: Item) -> Item | None:
        """Update under a condition; the whole item as it then is. ``None``: the condition did not hold.

        A transaction under way on the record (a cancel checks the shard's marks) makes DynamoDB refuse the update for
        a moment; it is tried again, shortly.
        """
        request: Any = {
            "TableName": self.table,
            "Key": key,
            "UpdateExpression": update,
            "ConditionExpression": condition,
            "ExpressionAttributeValues": values,
            "ReturnValues": "ALL_NEW",
            **COUNTED,
        }
        if names:
            request["ExpressionAttributeNames"] = names
        for failures in range(1, CONFLICT_TRIES + 1):
            try:
                answer = await self.run("UpdateItem", self.client.update_item(**request))
            except ClientError as error:
                if error_code(error) == "ConditionalCheckFailedException":
                    return None
                await self._pause_if_conflict(error, failures)
            else:
                return dict(answer["Attributes"])
        raise Throttled("UpdateItem: transactions on this record keep getting in the way")

    async def transact(self, actions: Sequence[Item], *, repeat_id: str | None = None) -> bool:
        """All of ``actions`` or none. ``False``: a condition did not hold.

        A conflict with another transaction is tried again, with pauses; `Throttled` when that does not end. After
        `Unavailable` it may have been done or not. Called again with the same actions and ``repeat_id`` (up to 36
        characters), DynamoDB does it once, if that is within ten minutes.
        """
        request: Any = {"TransactItems": list(actions), **COUNTED}
        if repeat_id is not None:
            request["ClientRequestToken"] = repeat_id
        for failures in range(1, CONFLICT_TRIES + 1):
            try:
                await self.run("TransactWriteItems", self.client.transact_write_items(**request))
            except ClientError as error:
                if error_code(error) != "TransactionCanceledException":
                    raise
                response: Any = error.response
                codes = {reason.get("Code") for reason in response.get("CancellationReasons", [])}
                if "ConditionalCheckFailed" in codes:
                    return False
                if codes & THROTTLING_CODES:
                    AWS_THROTTLED.log(operation="TransactWriteItems", error=str(error))
                    raise Throttled(f"TransactWriteItems: {error}") from error
                if "TransactionConflict" not in codes:
                    raise
                await self.pause(failures)
            else:
                return True
        raise Throttled("TransactWriteItems: other transactions keep getting in the way")

    async def pause(self, failures: int) -> None:
        """Back off after the n-th failure in a row."""
        await self.clock.sleep(pause_s(failures, first_s=_PAUSE_FIRST_S, max_s=_PAUSE_MAX_S, rng=self._rng))

    async def _pause_if_conflict(self, error: ClientError, failures: int) -> None:
        if error_code(error) != "TransactionConflictException":
            raise error
        await self.pause(failures)
