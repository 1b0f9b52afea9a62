"""The SDK's errors in our words, and the one bound and count around each call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from botocore.exceptions import (
    ClientError,
)

from dynein.aws.calls import AwsCalls
from dynein.aws.clients import clients, dynamodb_client, sqs_client
from dynein.errors import InvalidSettings, Throttled, Unavailable
from dynein.observability.telemetry import Telemetry
from dynein.settings import load_settings

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient


def refused(code: str, status: int = 400) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": "why"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "Operation")


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
