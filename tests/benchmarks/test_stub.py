"""The stub counts what AWS would bill: benchmarks stand or fall with it."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.stub.expressions import holds, updated
from benchmarks.stub.meter import Meter, read_units, write_units
from benchmarks.stub.queues import Queues
from benchmarks.stub.table import ConditionFailed, Table, size_bytes
from dynein.core.keys import range_from

URL = "http://127.0.0.1/000000000000/"


class Asked:
    """A stub's two halves, asked as a client would."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.queues = Queues(self.meter, ["kept"])
        self.table = Table(self.meter)

    def sqs(self, operation: str, **request: Any) -> Any:
        answers: list[bytes] = []
        take: Callable[[bytes], None] = answers.append
        self.queues.handle(operation.encode(), json.dumps(request).encode(), take)
        return json.loads(answers[0])

    def dynamodb(self, operation: str, **request: Any) -> Any:
        return json.loads(self.table.handle(operation.encode(), json.dumps({"TableName": "t", **request}).encode()))

    def send(self, queue: str, *bodies: str) -> Any:
        entries = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies)]
        return self.sqs("SendMessageBatch", QueueUrl=URL + queue, Entries=entries)

    def put(self, sk: bytes, text: str) -> None:
        item = {"pk": {"S": "p"}, "sk": {"B": b64encode(sk).decode()}, "job": {"S": text}}
        self.dynamodb("BatchWriteItem", RequestItems={"t": [{"PutRequest": {"Item": item}}]})

    def query(self, **more: Any) -> Any:
        values = {":pk": {"S": "p"}, ":from": {"B": b64encode(b"a").decode()}, ":past": {"B": b64encode(b"c").decode()}}
        return self.dynamodb(
            "Query",
            KeyConditionExpression="pk = :pk AND sk BETWEEN :from AND :past",
            ExpressionAttributeValues=values,
            **more,
        )


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_every_entry_of_a_batch_is_acknowledged_and_a_body_that_looks_like_one_is_not_an_entry(asked: Asked) -> None:
    answer = asked.send("other", 'a body with "Id": "7" in it', "second")
    assert [entry["Id"] for entry in answer["Successful"]] == ["0", "1"]
    assert asked.meter.entries["SendMessageBatch"] == 2


def test_a_request_is_billed_by_chunk(asked: Asked) -> None:
    asked.send("other", "x" * 65_536)
    asked.send("other", "x" * 65_537)
    asked.send("other", "x" * 65_536, "y" * 65_536)
    assert asked.meter.requests["SendMessageBatch"] == 3
    assert asked.meter.billed["SendMessageBatch"] == 1 + 2 + 2


def test_a_kept_queue_gives_back_what_was_sent(asked: Asked) -> None:
    body = 'quotes " and ümlauts'
    asked.send("kept", body)
    (message,) = asked.sqs("ReceiveMessage", QueueUrl=URL + "kept", MaxNumberOfMessages=10)["Messages"]
    assert message["Body"] == body
    assert asked.queues.depth("kept") == {"waiting": 0, "in_flight": 1}
    entries = [{"Id": "0", "ReceiptHandle": message["ReceiptHandle"]}]
    asked.sqs("DeleteMessageBatch", QueueUrl=URL + "kept", Entries=entries)
    assert asked.queues.depth("kept") == {"waiting": 0, "in_flight": 0}


def test_a_query_reads_its_range_in_order_and_page_by_page(asked: Asked) -> None:
    for sk in (b"c1", b"b2", b"a1", b"b1"):
        asked.put(sk, "text")
    first = asked.query(Limit=2)
    assert [item["sk"]["B"] for item in first["Items"]] == [b64encode(sk).decode() for sk in (b"a1", b"b1")]
    rest = asked.query(Limit=2, ExclusiveStartKey=first["LastEvaluatedKey"])
    assert [item["sk"]["B"] for item in rest["Items"]] == [b64encode(b"b2").decode()]
    assert "LastEvaluatedKey" not in rest


def test_triggers_due_from_a_time_on_are_forgotten_and_no_longer_counted(asked: Asked) -> None:
    for pk in ("t#1#0", "t#1#1", "s#0"):
        for due_ms in (4_999, 5_000, 5_001):
            sk = b64encode(range_from(due_ms) + b"id").decode()
            item = {"pk": {"S": pk}, "sk": {"B": sk}, "job": {"S": "x"}}
            asked.dynamodb("BatchWriteItem", RequestItems={"t": [{"PutRequest": {"Item": item}}]})
    assert asked.table.triggers() == 6
    asked.table.forget_triggers(5_000)
    assert asked.table.triggers() == 2


def test_units_follow_sizes(asked: Asked) -> None:
    asked.put(b"a", "x" * 1_000)  # with names and keys just under or over 1 KB
    item = {"pk": {"S": "p"}, "sk": {"B": "YQ=="}, "job": {"S": "x" * 1_000}}
    assert size_bytes(item) == len("pk") + 1 + len("sk") + 1 + len("job") + 1_000
    asked.put(b"b", "x" * 1_100)
    assert asked.meter.write_units["BatchWriteItem"] == 1 + 2
    asked.query()
    assert asked.meter.read_units["Query"] == 1
    key = {"pk": {"S": "p"}, "sk": {"B": b64encode(b"b").decode()}}
    asked.dynamodb("BatchWriteItem", RequestItems={"t": [{"DeleteRequest": {"Key": key}}]})
    assert asked.meter.write_units["BatchWriteItem"] == 3 + 2


@pytest.mark.parametrize(("size_bytes", "units"), [(0, 1), (1, 1), (1_024, 1), (1_025, 2)])
def test_a_write_unit_is_a_kilobyte(size_bytes: int, units: int) -> None:
    assert write_units(size_bytes) == units


@pytest.mark.parametrize(("size_bytes", "units"), [(0, 1), (4_096, 1), (4_097, 2)])
def test_a_read_unit_is_four(size_bytes: int, units: int) -> None:
    assert read_units(size_bytes) == units


def test_conditions_and_updates(asked: Asked) -> None:
    item = {"owner": {"S": "me"}, "fence": {"N": "9"}}
    values = {":owner": {"S": "me"}, ":fence": {"N": "10"}, ":one": {"N": "1"}}
    names = {"#owner": "owner"}
    assert holds("#owner = :owner AND fence < :fence", item, values, names)  # as numbers, not as text
    assert not holds("fence = :fence", item, values, names)
    assert holds("attribute_not_exists(pk) OR fence = :fence", item, values, names)
    assert not holds("retired <= :fence", item, values, names)  # what is not there meets no comparison
    assert updated("SET fence = fence + :one, beat = :one", item, values, names)["fence"] == {"N": "10"}
    assert updated("REMOVE #owner", item, values, names) == {"fence": {"N": "9"}}
    key = {"pk": {"S": "p"}, "sk": {"B": "AA=="}}
    with pytest.raises(ConditionFailed):
        asked.dynamodb(
            "UpdateItem", Key=key, UpdateExpression="SET a = :one", ConditionExpression="fence = :fence",
            ExpressionAttributeValues=values,
        )  # fmt: skip
