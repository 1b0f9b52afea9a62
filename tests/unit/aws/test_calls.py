"""What is counted of a call to AWS; that its errors are ours is tested in `test_aws`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, cast

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from dynein.aws.calls import AwsCalls, units_of
from dynein.observability.telemetry import Telemetry

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient


class _Config:
    read_timeout = 5.0


class _Meta:
    config = _Config()


class _Client:
    meta = _Meta()


class Counted:
    """One client's calls and their metrics."""

    def __init__(self) -> None:
        self.telemetry = Telemetry()
        self._calls = AwsCalls(cast("DynamoDBClient", _Client()), self.telemetry)

    async def respond(self, operation: str, response: dict[str, Any]) -> None:
        async def call() -> dict[str, Any]:
            return response

        assert await self._calls.run(operation, call()) is response

    async def fail(self, operation: str, error: Exception) -> None:
        async def call() -> None:
            raise error

        with contextlib.suppress(Exception):
            await self._calls.run(operation, call())

    def value(self, name: str, **labels: str) -> float:
        return self.telemetry.registry.get_sample_value(name, labels) or 0.0

    def outcomes(self, operation: str) -> dict[str, float]:
        (metric,) = self.telemetry.aws_calls.collect()
        return {
            sample.labels["outcome"]: sample.value
            for sample in metric.samples
            if sample.labels["operation"] == operation and sample.name.endswith("_total") and sample.value
        }


def refused(code: str, status: int = 400) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": "why"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "Operation")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (refused("ProvisionedThroughputExceededException"), "throttled"),
        (refused("AWS.SimpleQueueService.RequestThrottled"), "throttled"),
        (refused("KMS.ThrottlingException"), "throttled"),
        (refused("ConditionalCheckFailedException"), "conflict"),
        (refused("TransactionCanceledException"), "conflict"),
        (refused("AccessDeniedException"), "refused"),
        (refused("ResourceNotFoundException"), "refused"),
        (refused("ValidationException"), "refused"),
        (refused("AWS.SimpleQueueService.NonExistentQueue"), "refused"),
        (refused("InternalServerError", 500), "failed"),
        (refused("Whatever", 503), "failed"),
        (EndpointConnectionError(endpoint_url="http://x"), "failed"),
        (ConnectionResetError(), "failed"),
        (TimeoutError(), "timeout"),
    ],
)
async def test_how_a_call_ended(error: Exception, outcome: str) -> None:
    counted = Counted()
    await counted.fail("Query", error)
    assert counted.outcomes("Query") == {outcome: 1}
    assert counted.value("dynein_aws_call_seconds_count", operation="Query") == 1


async def test_a_batch_done_in_part_was_throttled() -> None:
    counted = Counted()
    await counted.respond("BatchWriteItem", {"UnprocessedItems": {}})
    await counted.respond("BatchWriteItem", {"UnprocessedItems": {"t": [{}]}})
    await counted.respond("BatchGetItem", {"UnprocessedKeys": {"t": {"Keys": [{}]}}})
    assert counted.outcomes("BatchWriteItem") == {"ok": 1, "throttled": 1}
    assert counted.outcomes("BatchGetItem") == {"throttled": 1}


async def test_capacity_is_what_dynamodb_reports() -> None:
    counted = Counted()
    await counted.respond("Query", {"ConsumedCapacity": {"TableName": "t", "CapacityUnits": 2.5}})
    await counted.respond("Query", {"ConsumedCapacity": {"TableName": "t", "CapacityUnits": 0.5}})
    batch = [{"TableName": "t", "CapacityUnits": 25.0}, {"TableName": "u", "CapacityUnits": 1.0}]
    await counted.respond("BatchWriteItem", {"ConsumedCapacity": batch})
    await counted.respond("PutItem", {})
    units = "dynein_capacity_units_total"
    assert counted.value(units, operation="Query", kind="read") == 3.0
    assert counted.value(units, operation="BatchWriteItem", kind="write") == 26.0
    assert counted.value(units, operation="PutItem", kind="write") == 0.0


@pytest.mark.parametrize("odd", [{}, [], {"CapacityUnits": None}, [{"TableName": "t"}]])
def test_an_engine_that_does_not_say_consumed_nothing(odd: Any) -> None:
    assert units_of(odd) == 0.0


async def test_a_call_given_up_by_its_caller_is_not_counted() -> None:
    counted = Counted()
    calling = asyncio.ensure_future(counted._calls.run("Query", asyncio.Event().wait()))
    await asyncio.wait([calling], timeout=0)
    calling.cancel()
    await asyncio.wait([calling])
    assert counted.outcomes("Query") == {}
