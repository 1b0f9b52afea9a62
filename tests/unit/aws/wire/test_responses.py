"""Responses of every kind: whatever comes, it is a response of the declared form, or an error that `AwsCalls` maps."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import example, given
from hypothesis import strategies as st

from dynein.aws.wire.http1 import BadResponse, Response
from dynein.aws.wire.responses import DYNAMODB, SQS, Operation

OPERATIONS = [*SQS.values(), *DYNAMODB.values()]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
our_names = ["Items", "Item", "Successful", "Failed", "Messages", "Attributes", "Responses", "__type", "message", "Id"]
almost = st.dictionaries(st.sampled_from([*our_names, "UnprocessedItems", "CancellationReasons"]), json_values)
bodies = st.binary(max_size=60) | (json_values | almost).map(lambda value: json.dumps(value).encode())
headers = st.dictionaries(
    st.sampled_from([b"x-amz-crc32", b"x-amzn-query-error", b"x-amzn-requestid", b"date"]), st.binary(max_size=12)
)


@given(st.sampled_from(OPERATIONS), st.integers(100, 599) | st.just(200), headers, bodies)
@example(SQS["receive_message"], 200, {}, b"[" * 100_000)
@example(SQS["receive_message"], 200, {}, b'{"x":' * 100_000)
@example(SQS["receive_message"], 500, {}, b'{"x":' * 100_000)
@example(DYNAMODB["query"], 200, {}, b'{"Items": [{"\xff": {}}]}')
@example(DYNAMODB["query"], 400, {}, b'{"__type": "\xff"}')
@example(DYNAMODB["query"], 400, {b"x-amzn-query-error": b"\xff;\xff"}, b'{"__type": "a#b:c#d"}')
def test_anything(operation: Operation, status: int, headers: dict[bytes, bytes], body: bytes) -> None:
    came: Any
    try:
        came = operation.read(Response(status, headers, body))
    except (ClientError, BadResponse) as error:
        came = error
    if isinstance(came, ClientError):
        assert came.response["ResponseMetadata"]["HTTPStatusCode"] == status != 200
        assert came.operation_name == operation.name
    elif isinstance(came, BadResponse):
        assert len(str(came)) < 2000
    else:
        assert isinstance(came, dict)
        assert status == 200


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        (SQS["send_message_batch"], {"Successful": None, "Failed": None}),
        (SQS["send_message_batch"], {"Failed": [{"Id": "0", "Code": None, "Message": None, "SenderFault": None}]}),
        (SQS["receive_message"], {"Messages": None}),
        (
            SQS["receive_message"],
            {"Messages": [{"MessageId": "m", "ReceiptHandle": "r", "Attributes": None, "MessageAttributes": None}]},
        ),
        (DYNAMODB["get_item"], {"Item": None}),
        (DYNAMODB["query"], {"Items": [], "Count": 0, "LastEvaluatedKey": None}),
        (DYNAMODB["batch_get_item"], {"Responses": None, "UnprocessedKeys": None}),
        (DYNAMODB["batch_write_item"], {"UnprocessedItems": None}),
    ],
)
def test_what_may_be_missing_may_be_null(operation: Operation, body: dict[str, Any]) -> None:
    assert operation.read(Response(200, {}, json.dumps(body).encode())) == body


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        (SQS["send_message_batch"], {"Successful": [{}]}),
        (SQS["send_message_batch"], {"Failed": [{"Code": "c"}]}),
        (SQS["receive_message"], {"Messages": [{"MessageId": "m"}]}),
        (SQS["get_queue_url"], {}),
        (DYNAMODB["query"], {}),
        (DYNAMODB["query"], {"Items": []}),
        (DYNAMODB["query"], {"Items": [{"sk": {"B": "not base64"}}], "Count": 1}),
        (DYNAMODB["batch_write_item"], {"UnprocessedItems": {"t": [{"PutRequest": {}}]}}),
    ],
)
def test_what_may_not_be_missing(operation: Operation, body: dict[str, Any]) -> None:
    with pytest.raises(BadResponse):
        operation.read(Response(200, {}, json.dumps(body).encode()))


def test_what_is_not_declared_is_skipped() -> None:
    other = {"M": {"x": {"S": "y"}}, "NS": ["1"], "S": "s"}
    body = {"Items": [{"a": other, "b": {"BOOL": True}}], "Count": 1, "ScannedCount": [{}]}
    response = DYNAMODB["query"].read(Response(200, {}, json.dumps(body).encode()))
    assert response == {"Items": [{"a": {"S": "s"}, "b": {}}], "Count": 1}
