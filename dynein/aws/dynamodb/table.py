"""One DynamoDB table's calls, with what needs care: conditions as results, transactions, batches that are half done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from dynein.aws.calls import AwsCalls
from dynein.aws.dynamodb.items import Item, identity
from dynein.aws.error_codes import meaning_of
from dynein.aws.errors import error_code
from dynein.errors import Throttled
from dynein.observability.events.process import AWS_THROTTLED
from dynein.runtime.context import Context
from dynein.runtime.retry import Backoff, Retry

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient

COUNTED: Any = {"ReturnConsumedCapacity": "TOTAL"}
"""In each request, so that its response says what it consumed."""
GET_MAX = 100
"""DynamoDB: keys in a BatchGetItem."""
CONFLICT_TRIES = 12
UNPROCESSED_TRIES = 8
BACKOFF = Backoff(first_s=0.02, max_s=0.5)


class _Conflict(Throttled):
    """A transaction is under way on a record of ours; it takes milliseconds."""


class _Unprocessed(Throttled):
    """DynamoDB has left a part of a batch undone."""


class DynamoTable:
    """One table of the account that ``client`` leads to. Made once and handed to whatever works on the table.

    Its verbs raise what `dynein.aws.calls.AwsCalls.run` does. Of errors only conflicts and keys left unprocessed are
    repeated here: no caller could do anything else about them.
    """

    def __init__(self, client: DynamoDBClient, name: str, context: Context) -> None:
        self.client = client
        self.name = name
        self.clock = context.clock
        self._rng = context.rng
        self.run = AwsCalls(client, context.telemetry).run
        """For calls that have no verb here."""
        self._conflicts = self.retry(CONFLICT_TRIES)
        self._unprocessed = self.retry(UNPROCESSED_TRIES)

    def retry(self, tries_max: int) -> Retry:
        """Repeats what lost a race in this table, with short pauses."""
        return Retry(self.clock, self._rng, BACKOFF, tries_max=tries_max)

    async def get(self, key: Item) -> Item | None:
        """One item, strongly consistent."""
        call = self.client.get_item(TableName=self.name, Key=key, ConsistentRead=True, **COUNTED)
        response = await self.run("GetItem", call)
        item = response.get("Item")
        return dict(item) if item is not None else None

    async def get_many(self, keys: Sequence[Item]) -> list[Item]:
        """Those of ``keys`` that exist, strongly consistent, in no order. Keys may repeat.

        DynamoDB leaves keys unprocessed under load; they are asked for again, with pauses. Raises `Throttled` when
        some are still unprocessed after `UNPROCESSED_TRIES`.
        """
        wanted = list({identity(key): key for key in keys}.values())
        found: list[Item] = []

        async def get_wanted() -> None:
            nonlocal wanted
            while wanted:
                request: Any = {self.name: {"Keys": wanted[:GET_MAX], "ConsistentRead": True}}
                response = await self.run("BatchGetItem", self.client.batch_get_item(RequestItems=request, **COUNTED))
                found.extend(dict(item) for items in (response.get("Responses") or {}).values() for item in items)
                left = [dict(key) for rest in (response.get("UnprocessedKeys") or {}).values() for key in rest["Keys"]]
                wanted = left + wanted[GET_MAX:]
                if left:
                    raise _Unprocessed(f"BatchGetItem: {len(left)} keys unprocessed, again and again")

        await self._unprocessed.call("BatchGetItem", get_wanted, retry_on=(_Unprocessed,))
        return found

    async def write_batch(self, requests: Sequence[Item]) -> set[tuple[str, bytes]]:
        """One BatchWriteItem of put and delete requests, no two on one key. The keys of those *not* done."""
        items: Any = {self.name: list(requests)}
        response = await self.run("BatchWriteItem", self.client.batch_write_item(RequestItems=items, **COUNTED))
        return {
            identity(request["PutRequest"]["Item"] if "PutRequest" in request else request["DeleteRequest"]["Key"])
            for left in (response.get("UnprocessedItems") or {}).values()
            for request in left
        }

    async def query(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """One Query page of this table: the response."""
        return await self.run("Query", self.client.query(TableName=self.name, **request, **COUNTED))

    async def query_all(self, request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The items of all of a Query's pages."""
        items: list[Mapping[str, Any]] = []
        further: dict[str, Any] = {}
        while True:
            response = await self.query({**request, **further})
            items += response["Items"]
            if not response.get("LastEvaluatedKey"):
                return items
            further = {"ExclusiveStartKey": response["LastEvaluatedKey"]}

    async def scan(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """One Scan page of this table: the response."""
        return await self.run("Scan", self.client.scan(TableName=self.name, **request, **COUNTED))

    async def put(self, item: Item, **condition: Any) -> None:  # noqa: ANN401 - SDK types
        """Put, whatever was there."""
        await self.run("PutItem", self.client.put_item(TableName=self.name, Item=item, **condition, **COUNTED))

    async def delete(self, key: Item) -> None:
        """Delete, whatever is there."""
        await self.run("DeleteItem", self.client.delete_item(TableName=self.name, Key=key, **COUNTED))

    async def put_if(self, item: Item, condition: str, **names_and_values: Any) -> bool:  # noqa: ANN401 - SDK types
        """Put under a condition. ``False``: it did not hold. A conflict is repeated, as in `update_if`."""

        async def put() -> bool:
            try:
                await self.put(item, ConditionExpression=condition, **names_and_values)
            except ClientError as error:
                return _condition_failed("PutItem", error)
            return True

        return await self._conflicts.call("PutItem", put, retry_on=(_Conflict,))

    async def update_if(self, key: Item, update: str, condition: str, values: Item, names: Item) -> Item | None:
        """Update under a condition; the whole item as it then is. ``None``: the condition did not hold.

        A transaction under way on the record (a cancel checks the shard's marks) makes DynamoDB refuse the update for
        a moment. It is repeated, with pauses; `Throttled` when that does not end.
        """
        request: Any = {
            "TableName": self.name,
            "Key": key,
            "UpdateExpression": update,
            "ConditionExpression": condition,
            "ExpressionAttributeValues": values,
            "ReturnValues": "ALL_NEW",
            **COUNTED,
        }
        if names:
            request["ExpressionAttributeNames"] = names

        async def update_item() -> Item | None:
            try:
                response = await self.run("UpdateItem", self.client.update_item(**request))
            except ClientError as error:
                _condition_failed("UpdateItem", error)
                return None
            return dict(response["Attributes"])

        return await self._conflicts.call("UpdateItem", update_item, retry_on=(_Conflict,))

    async def transact(self, actions: Sequence[Item], *, repeat_id: str | None = None) -> bool:
        """All of ``actions`` or none. ``False``: a condition did not hold.

        A conflict with another transaction is repeated, with pauses; `Throttled` when that does not end. After
        `Unavailable` it may have been done or not. Called again with the same actions and ``repeat_id`` (up to 36
        characters), DynamoDB does it once, if that is within ten minutes.
        """
        request: Any = {"TransactItems": list(actions), **COUNTED}
        if repeat_id is not None:
            request["ClientRequestToken"] = repeat_id

        async def transact() -> bool:
            try:
                await self.run("TransactWriteItems", self.client.transact_write_items(**request))
            except ClientError as error:
                return _transaction_failed(error)
            return True

        return await self._conflicts.call("TransactWriteItems", transact, retry_on=(_Conflict,))


def _condition_failed(operation: str, error: ClientError) -> bool:
    """``False`` if ``error`` is that. Raises `_Conflict`, or ``error`` itself for what it else is."""
    code = error_code(error)
    if code == "ConditionalCheckFailedException":
        return False
    if code == "TransactionConflictException":
        raise _Conflict(f"{operation}: transactions on this record keep getting in the way") from error
    raise error


def _transaction_failed(error: ClientError) -> bool:
    """``False`` if a condition did not hold. Raises what else it is."""
    if error_code(error) != "TransactionCanceledException":
        raise error
    response: Any = error.response
    codes = {reason.get("Code") for reason in response.get("CancellationReasons", [])}
    if "ConditionalCheckFailed" in codes:
        return False
    if any(code is not None and meaning_of(code) is Throttled for code in codes):
        AWS_THROTTLED.log(operation="TransactWriteItems", error=str(error))
        raise Throttled(f"TransactWriteItems: {error}") from error
    if "TransactionConflict" in codes:
        raise _Conflict("TransactWriteItems: other transactions keep getting in the way") from error
    raise error
