"""`dynein.core.queues.Queues` on SQS.

SQS reports failures in three places, and all are read: the call fails; the call succeeds and names entries that failed;
the call succeeds and does not mention an entry at all. A whole call refused for one entry's content is made again entry
by entry, so that one bad job never fails its neighbours.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError

from dynein.aws.calls import AwsCalls
from dynein.aws.error_codes import FORBIDDEN_CODES
from dynein.aws.errors import content_failure, entry_failure, error_code, queue_error
from dynein.aws.turns import Turns
from dynein.core.job import Attribute
from dynein.core.queue_address import QueueAddresses, is_fifo, is_url
from dynein.core.queues import ENTRIES_MAX, Depth, Destination, OutgoingMessage, Received, SendFailure, call_failure
from dynein.errors import AccessDenied, DyneinError, Remedy, UnknownQueue
from dynein.observability.events.delivery import ATTRIBUTES_DENIED
from dynein.observability.telemetry import Telemetry

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient

ResultT = TypeVar("ResultT")

_IDS = tuple(str(i) for i in range(ENTRIES_MAX))
_UNMENTIONED = SendFailure("Unanswered", "SQS's response does not mention this entry", Remedy.RETRY)


class SqsQueues:
    """All the queues one SQS client can reach. ``own_queues``: names of ours, which wait for no other
    (`dynein.aws.turns`).
    """

    def __init__(self, client: SQSClient, telemetry: Telemetry, own_queues: Container[str] = ()) -> None:
        self._client = client
        self._calls = AwsCalls(client, telemetry)
        config: Any = client.meta.config  # botocore sets its attributes from a table, unseen by type checkers
        # `dynein.aws.clients` sets both; the read timeout has a long poll on top of what any other call may take.
        self._call_timeout_s = float(config.connect_timeout)
        self._read_timeout_s = float(config.read_timeout)
        self._turns = Turns(config.max_pool_connections, own_queues)
        self._addresses = QueueAddresses(client.meta.endpoint_url, client.meta.region_name)

    async def resolve(self, queue: str) -> Destination:
        """See `dynein.core.queues.Queues.resolve`. The queue is known by its URL or its ARN, as its policy allows."""
        self._addresses.check(queue)
        try:
            if is_url(queue):
                return await self._described(queue)
            found = await self._run(queue, "GetQueueUrl", partial(self._client.get_queue_url, QueueName=queue))
        except AccessDenied as error:
            if _forbidden_by_policy(error):
                # SQS's response to a look-up that a policy forbids, whether the queue exists or not.
                raise UnknownQueue(queue) from error
            raise
        try:
            return await self._described(found["QueueUrl"])
        except AccessDenied as error:
            if not _forbidden_by_policy(error):
                raise
            # It exists, and may take messages all the same.
            ATTRIBUTES_DENIED.log(error, queue=queue)
            return Destination(found["QueueUrl"], is_fifo(queue))

    async def _described(self, url: str) -> Destination:
        asked = partial(self._client.get_queue_attributes, QueueUrl=url, AttributeNames=["All"])
        response = await self._run(url, "GetQueueAttributes", asked)
        found = {str(name): value for name, value in (response.get("Attributes") or {}).items()}
        return Destination(
            url,
            is_fifo(url),
            delay_s=_number(found, "DelaySeconds") or 0,
            message_bytes_max=_number(found, "MaximumMessageSize"),
            retention_s=_number(found, "MessageRetentionPeriod"),
        )

    async def send(self, url: str, messages: Sequence[OutgoingMessage]) -> list[SendFailure | None]:
        """See `dynein.core.queues.Queues.send`."""
        assert 1 <= len(messages) <= ENTRIES_MAX, len(messages)
        entries: list[dict[str, Any]] = []
        unsendable: dict[int, SendFailure] = {}
        fifo = is_fifo(url)
        for i, message in enumerate(messages):
            try:
                entries.append(_entry(_IDS[i], message, fifo=fifo))
            except binascii.Error as error:
                unsendable[i] = SendFailure("InvalidParameterValue", f"not base64: {error}", Remedy.REJECT)
        results = await self._batch(url, "SendMessageBatch", self._client.send_message_batch, entries)
        return [unsendable.get(i) or results.get(_IDS[i], _UNMENTIONED) for i in range(len(messages))]

    async def receive(self, url: str, *, entries_max: int, wait_s: int, visibility_timeout_s: int) -> list[Received]:
        """See `dynein.core.queues.Queues.receive`. ``wait_s`` is cut to what the read timeout leaves room for."""
        wait_s = max(0, min(wait_s, int(self._read_timeout_s - 1)))
        response = await self._run(
            url,
            "ReceiveMessage",
            partial(
                self._client.receive_message,
                QueueUrl=url,
                MaxNumberOfMessages=entries_max,
                WaitTimeSeconds=wait_s,
                VisibilityTimeout=visibility_timeout_s,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
            ),
            timeout_s=wait_s + self._call_timeout_s,
            in_turn=False,  # one that waits for messages is not slow, and nothing must wait for it
        )
        return [_received(message) for message in response.get("Messages") or ()]

    async def delete(self, url: str, receipts: Sequence[str]) -> list[SendFailure | None]:
        """See `dynein.core.queues.Queues.delete`. Deleting again what is deleted is acknowledged."""
        entries = [{"Id": _IDS[i], "ReceiptHandle": receipt} for i, receipt in enumerate(receipts)]
        results = await self._batch(url, "DeleteMessageBatch", self._client.delete_message_batch, entries)
        return [results.get(entry["Id"], _UNMENTIONED) for entry in entries]

    async def extend(self, url: str, receipts: Sequence[str], visibility_timeout_s: int) -> list[SendFailure | None]:
        """See `dynein.core.queues.Queues.extend`."""
        entries: list[dict[str, Any]] = [
            {"Id": _IDS[i], "ReceiptHandle": receipt, "VisibilityTimeout": visibility_timeout_s}
            for i, receipt in enumerate(receipts)
        ]
        change = self._client.change_message_visibility_batch
        results = await self._batch(url, "ChangeMessageVisibilityBatch", change, entries)
        return [results.get(entry["Id"], _UNMENTIONED) for entry in entries]

    async def depth(self, url: str) -> Depth:
        """See `dynein.core.queues.Queues.depth`."""
        response = await self._run(
            url,
            "GetQueueAttributes",
            partial(
                self._client.get_queue_attributes,
                QueueUrl=url,
                AttributeNames=[
                    "ApproximateNumberOfMessages",
                    "ApproximateNumberOfMessagesNotVisible",
                    "ApproximateNumberOfMessagesDelayed",
                ],
            ),
        )
        counts = response["Attributes"]
        return Depth(
            visible=int(counts["ApproximateNumberOfMessages"]),
            in_flight=int(counts["ApproximateNumberOfMessagesNotVisible"]),
            delayed=int(counts["ApproximateNumberOfMessagesDelayed"]),
        )

    async def _batch(
        self, url: str, operation: str, call: Callable[..., Awaitable[Any]], entries: list[dict[str, Any]]
    ) -> dict[str, SendFailure | None]:
        """Results by entry id; an entry that the response leaves out is not in it."""
        if not entries:
            return {}
        try:
            response = await self._run(url, operation, partial(call, QueueUrl=url, Entries=entries))
        except ClientError as error:  # refused for its content
            if len(entries) > 1:
                return await self._one_by_one(url, operation, call, entries)
            return {entries[0]["Id"]: content_failure(error)}
        results: dict[str, SendFailure | None] = dict.fromkeys(
            accepted["Id"] for accepted in response.get("Successful") or ()
        )
        for failed in response.get("Failed") or ():
            results[failed["Id"]] = entry_failure(failed)
        return results

    async def _one_by_one(
        self, url: str, operation: str, call: Callable[..., Awaitable[Any]], entries: list[dict[str, Any]]
    ) -> dict[str, SendFailure | None]:
        """In order, up to where the queue itself fails: what was acknowledged until then is still reported."""
        results: dict[str, SendFailure | None] = {}
        for entry in entries:
            try:
                results |= await self._batch(url, operation, call, [entry])
            except DyneinError as error:
                failure = call_failure(error)
                return {other["Id"]: failure for other in entries} | results
        return results

    async def _run(
        self,
        queue: str,
        operation: str,
        call: Callable[[], Awaitable[ResultT]],
        *,
        timeout_s: float | None = None,
        in_turn: bool = True,
    ) -> ResultT:
        """One call. Raises what the protocol says, and a `ClientError` only if the call was refused for its content."""
        taken = self._turns.take(queue, call) if in_turn else call()
        try:
            response = await self._calls.run(operation, taken, timeout_s=timeout_s or self._call_timeout_s)
        except BaseException as error:
            meant = queue_error(queue, operation, error) if isinstance(error, ClientError) else error
            self._turns.heard(queue, works=meant is None)
            if meant is None or meant is error:
                raise
            raise meant from error
        self._turns.heard(queue, works=True)
        return response


def _forbidden_by_policy(error: AccessDenied) -> bool:
    """Do the credentials work, and only this call is not permitted?"""
    return error.__cause__ is not None and error_code(error.__cause__) in FORBIDDEN_CODES


def _number(attributes: Mapping[str, str], name: str) -> int | None:
    """An attribute of a queue; ``None`` if the engine does not have it."""
    value = attributes.get(name, "")
    return int(value) if value.isdecimal() else None


def _entry(entry_id: str, message: OutgoingMessage, *, fifo: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"Id": entry_id, "MessageBody": message.body}
    if message.attributes:
        entry["MessageAttributes"] = {
            name: {"DataType": attribute.type, "BinaryValue": base64.b64decode(attribute.value, validate=True)}
            if attribute.type.startswith("Binary")
            else {"DataType": attribute.type, "StringValue": attribute.value}
            for name, attribute in message.attributes.items()
        }
    if message.delay_s or not fifo:
        # Also 0: left out, it would be the queue's own delay. A FIFO queue takes none.
        entry["DelaySeconds"] = message.delay_s
    if message.message_group_id is not None:
        entry["MessageGroupId"] = message.message_group_id
    if message.deduplication_id is not None:
        entry["MessageDeduplicationId"] = message.deduplication_id
    return entry


def _received(message: Mapping[str, Any]) -> Received:
    system = message.get("Attributes") or {}
    return Received(
        message_id=message["MessageId"],
        receipt=message["ReceiptHandle"],
        body=message.get("Body") or "",
        receive_count=int(system.get("ApproximateReceiveCount", 1)),
        attributes={
            name: Attribute(value["DataType"], base64.b64encode(value["BinaryValue"]).decode("ascii"))
            if value["DataType"].startswith("Binary")
            else Attribute(value["DataType"], value["StringValue"])
            for name, value in (message.get("MessageAttributes") or {}).items()
        },
        sent_at_ms=int(system["SentTimestamp"]) if "SentTimestamp" in system else None,
    )
