"""The SDK's errors in our words, and the one bound and count around each call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)

from dynein.aws.calls import AwsCalls
from dynein.aws.clients import clients, dynamodb_client, sqs_client
from dynein.aws.errors import aws_error, error_code
from dynein.errors import AccessDenied, InvalidSettings, NotBootstrapped, Throttled, Unavailable
from dynein.observability.telemetry import Telemetry
from dynein.settings import load_settings

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient


def refused(code: str, status: int = 400) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": "why"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "Operation")


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (refused("ThrottlingException"), Throttled),
        (refused("ProvisionedThroughputExceededException"), Throttled),
        (refused("RequestLimitExceeded"), Throttled),
        (refused("ThrottlingException", 503), Throttled),
        (refused("InternalServerError", 500), Unavailable),
        (refused("NeverSeenBefore", 503), Unavailable),
        (refused("TransactionInProgressException"), Unavailable),
        (refused("ResourceNotFoundException"), NotBootstrapped),
        (refused("AccessDeniedException"), AccessDenied),
        (refused("ExpiredTokenException"), AccessDenied),
        (refused("NeverSeenBefore", 403), AccessDenied),
        (NoCredentialsError(), AccessDenied),
        (EndpointConnectionError(endpoint_url="http://x"), Unavailable),
        (ConnectTimeoutError(endpoint_url="http://x"), Unavailable),
        (ReadTimeoutError(endpoint_url="http://x"), Unavailable),
        (ConnectionClosedError(endpoint_url="http://x"), Unavailable),
        (TimeoutError(), Unavailable),
        (ConnectionResetError(), Unavailable),
    ],
)
def test_what_an_error_means(error: Exception, meant: type[Exception]) -> None:
    ours = aws_error("PutItem", error)
    assert type(ours) is meant
    assert "PutItem" in str(ours)


@pytest.mark.parametrize(
    "error",
    [
        refused("ConditionalCheckFailedException"),
        refused("TransactionCanceledException"),
        refused("TransactionConflictException"),
        refused("ValidationException"),
        refused("AWS.SimpleQueueService.NonExistentQueue"),
        KeyError("a bug of ours"),
    ],
)
def test_what_is_for_the_caller_to_judge(error: Exception) -> None:
    assert aws_error("PutItem", error) is None


def test_codes_come_without_their_namespace() -> None:
    assert error_code(refused("com.amazonaws.dynamodb.v20120810#ThrottlingException")) == "ThrottlingException"
    assert error_code(TimeoutError()) == "TimeoutError"


class _Config:
    read_timeout = 0.01


class _Meta:
    config = _Config()


class _Client:
    meta = _Meta()


class TestCalls:
    def setup_method(self) -> None:
        self.telemetry = Telemetry()
        self.calls = AwsCalls(cast("DynamoDBClient", _Client()), self.telemetry)

    def counted(self, outcome: str) -> float | None:
        labels = {"operation": "PutItem", "outcome": outcome}
        return self.telemetry.registry.get_sample_value("dynein_aws_calls_total", labels)

    async def test_a_response(self) -> None:
        async def call() -> int:
            return 7

        assert await self.calls.run("PutItem", call()) == 7
        assert self.counted("ok") == 1

    async def test_an_error_in_our_words(self) -> None:
        async def call() -> None:
            raise refused("ThrottlingException")

        with pytest.raises(Throttled) as caught:
            await self.calls.run("PutItem", call())
        assert isinstance(caught.value.__cause__, ClientError)
        assert self.counted("throttled") == 1

    async def test_a_result_code_is_left_as_it_is(self) -> None:
        async def call() -> None:
            raise refused("ConditionalCheckFailedException")

        with pytest.raises(ClientError):
            await self.calls.run("PutItem", call())
        assert self.counted("conflict") == 1

    async def test_no_response_in_time(self) -> None:
        with pytest.raises(Unavailable):
            await self.calls.run("PutItem", asyncio.Event().wait())
        assert self.counted("timeout") == 1

    async def test_cancelling_is_no_error(self) -> None:
        calling = asyncio.ensure_future(self.calls.run("PutItem", asyncio.Event().wait(), timeout_s=60))
        await asyncio.wait([calling], timeout=0)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling


class TestClients:
    async def test_settings_reach_both(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        settings = load_settings(
            {
                "region": "eu-west-3",
                "endpoint_url": "http://127.0.0.1:1",
                "dynamodb_endpoint_url": "http://127.0.0.1:2",
                "call_timeout_s": 4.0,
                "receive_wait_s": 7,
                "connections_max": 9,
            }
        )
        async with clients(settings) as aws:
            assert aws.sqs.meta.region_name == aws.dynamodb.meta.region_name == "eu-west-3"
            assert aws.sqs.meta.endpoint_url == "http://127.0.0.1:1"
            assert aws.dynamodb.meta.endpoint_url == "http://127.0.0.1:2"
            sqs, dynamodb = cast("Any", aws.sqs.meta.config), cast("Any", aws.dynamodb.meta.config)
            assert (dynamodb.connect_timeout, dynamodb.read_timeout) == (4.0, 4.0)
            assert sqs.read_timeout == 11.0, "a long poll is no timeout"
            assert sqs.max_pool_connections == dynamodb.max_pool_connections == 9
            assert sqs.retries["total_max_attempts"] == dynamodb.retries["total_max_attempts"] == 1

    async def test_no_region(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
        for opening in (sqs_client, dynamodb_client):
            with pytest.raises(InvalidSettings, match="DYNEIN_REGION"):
                async with opening(load_settings({})):
                    pass

    async def test_nobody_listens(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        settings = load_settings({"region": "eu-west-3", "endpoint_url": "http://127.0.0.1:1"})
        async with dynamodb_client(settings) as client:
            calls = AwsCalls(client, Telemetry())
            with pytest.raises(Unavailable):
                await calls.run("ListTables", client.list_tables())
