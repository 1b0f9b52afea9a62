"""SQS's and DynamoDB's responses to the calls of `dynein.aws.wire.client`: the parts that we read, by their JSON names.

Responses are decoded into plain dicts of the very form that the SDK gives, blobs as bytes included, so that their
reader need not know which client made the call. What is not declared here is skipped; what is declared and of another
type makes the response a bad one. Optional parts may be missing or ``null`` (as some emulators write them).
"""

from __future__ import annotations

import zlib
from typing import Any, NotRequired, TypedDict

import msgspec
from botocore.exceptions import ClientError

from dynein.aws.wire.http1 import BadResponse, Response

_OK = 200
_SHOWN_BYTES = 200
_QUERY_ERROR_PARTS = 2


class Value(TypedDict, total=False):
    """An attribute value: exactly one of these. Other types than ours come out empty."""

    S: str
    N: str
    B: bytes


ItemValues = dict[str, Value]


class Consumed(TypedDict, total=False):
    """What a call consumed, in whatever form: no response is a bad one for that."""

    ConsumedCapacity: Any


class Acknowledged(TypedDict):
    Id: str


class FailedEntry(TypedDict):
    Id: str
    Code: NotRequired[str | None]
    Message: NotRequired[str | None]
    SenderFault: NotRequired[bool | None]


class BatchResult(TypedDict, total=False):
    """SendMessageBatch, DeleteMessageBatch, ChangeMessageVisibilityBatch."""

    Successful: list[Acknowledged] | None
    Failed: list[FailedEntry] | None


class MessageAttribute(TypedDict):
    DataType: str
    StringValue: NotRequired[str | None]
    BinaryValue: NotRequired[bytes | None]


class Message(TypedDict):
    MessageId: str
    ReceiptHandle: str
    Body: NotRequired[str | None]
    Attributes: NotRequired[dict[str, str] | None]
    MessageAttributes: NotRequired[dict[str, MessageAttribute] | None]


class ReceiveMessage(TypedDict, total=False):
    Messages: list[Message] | None


class GetQueueUrl(TypedDict):
    QueueUrl: str


class GetQueueAttributes(TypedDict, total=False):
    Attributes: dict[str, str] | None


class GetItem(Consumed, total=False):
    Item: ItemValues | None


class Query(Consumed):
    """Of a query that only counts, there are no items."""

    Items: NotRequired[list[ItemValues]]
    Count: int
    LastEvaluatedKey: NotRequired[ItemValues | None]


class UpdateItem(Consumed, total=False):
    Attributes: ItemValues | None


class KeysLeft(TypedDict):
    Keys: list[ItemValues]


class BatchGetItem(Consumed, total=False):
    Responses: dict[str, list[ItemValues]] | None
    UnprocessedKeys: dict[str, KeysLeft] | None


class Put(TypedDict):
    Item: ItemValues


class Delete(TypedDict):
    Key: ItemValues


class Write(TypedDict, total=False):
    PutRequest: Put
    DeleteRequest: Delete


class BatchWriteItem(Consumed, total=False):
    UnprocessedItems: dict[str, list[Write]] | None


class Reason(TypedDict, total=False):
    Code: str | None
    Message: str | None


class _Refusal(msgspec.Struct):
    """The body of an error response. Services disagree on the case of ``message``."""

    type: str | None = msgspec.field(name="__type", default=None)
    message: str | None = None
    capital_message: str | None = msgspec.field(name="Message", default=None)
    reasons: list[Reason] | None = msgspec.field(name="CancellationReasons", default=None)


class Operation:
    """One AWS operation: its name, and how its response is read."""

    def __init__(self, name: str, result: Any) -> None:  # noqa: ANN401 - a TypedDict has no better type
        self.name = name
        self._decoder = msgspec.json.Decoder(result)

    def read(self, response: Response) -> Any:  # noqa: ANN401 - what `result` says
        """The decoded body. Raises `ClientError` for an error that AWS names, `BadResponse` for anything else."""
        if response.status != _OK:
            raise _refused(self.name, response)
        checksum = response.headers.get(b"x-amz-crc32")
        if checksum is not None and checksum != b"%d" % zlib.crc32(response.body):
            raise BadResponse(f"the response does not match its checksum: {_shown(response)}")
        try:
            return self._decoder.decode(response.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadResponse(f"cannot read the response ({error}): {_shown(response)}") from error


_REFUSAL = msgspec.json.Decoder(_Refusal)


def _refused(operation: str, response: Response) -> Exception:
    try:
        body = _REFUSAL.decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = _Refusal()
    if not body.type:  # a proxy's page, a load balancer's, a port where something else listens
        return BadResponse(f"HTTP {response.status}, and not in AWS's form: {_shown(response)}")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers.items()}
    error = {"Code": _code(body.type), "Message": body.message or body.capital_message or ""}
    parts = headers.get("x-amzn-query-error", "").split(";")
    if len(parts) == _QUERY_ERROR_PARTS and parts[0]:
        error |= {"QueryErrorCode": error["Code"], "Code": parts[0], "Type": parts[1]}
    parsed: Any = {
        "Error": error,
        "ResponseMetadata": {
            "RequestId": headers.get("x-amzn-requestid", ""),
            "HTTPStatusCode": response.status,
            "HTTPHeaders": headers,
            "RetryAttempts": 0,
        },
    }
    if body.reasons is not None:
        parsed["CancellationReasons"] = body.reasons
    return ClientError(parsed, operation)


def _code(kind: str) -> str:
    """``com.amazonaws.dynamodb.v20120810#Code:http://...`` in all its forms."""
    return kind.split(":", 1)[0].rsplit("#", 1)[-1]


def _shown(response: Response) -> str:
    body = response.body[:_SHOWN_BYTES]
    return f"{body!r}{'...' if len(response.body) > len(body) else ''}"


SQS = {
    "send_message_batch": Operation("SendMessageBatch", BatchResult),
    "receive_message": Operation("ReceiveMessage", ReceiveMessage),
    "delete_message_batch": Operation("DeleteMessageBatch", BatchResult),
    "change_message_visibility_batch": Operation("ChangeMessageVisibilityBatch", BatchResult),
    "get_queue_url": Operation("GetQueueUrl", GetQueueUrl),
    "get_queue_attributes": Operation("GetQueueAttributes", GetQueueAttributes),
}
DYNAMODB = {
    "query": Operation("Query", Query),
    "get_item": Operation("GetItem", GetItem),
    "put_item": Operation("PutItem", Consumed),
    "update_item": Operation("UpdateItem", UpdateItem),
    "delete_item": Operation("DeleteItem", Consumed),
    "batch_get_item": Operation("BatchGetItem", BatchGetItem),
    "batch_write_item": Operation("BatchWriteItem", BatchWriteItem),
    "transact_write_items": Operation("TransactWriteItems", Consumed),
}
"""Operations by the SDK's name for their method."""
