"""Clients of SQS and DynamoDB, set up in one way. `dynein.aws.calls` makes the calls.

A client is the SDK's, or, by default, `dynein.aws.wire`'s with the SDK's behind it: same methods, responses and errors.
The SDK never retries here. The caller knows what repeating a call means (which entries of a batch, whether a lease is
still worth renewing), so callers retry; a second retry loop below them would only hide how slow AWS is.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import (
    NoRegionError,
)
from botocore.utils import get_environ_proxies

from dynein import __version__
from dynein.aws.clock_offset import ClockOffset
from dynein.aws.wire.client import wire_client
from dynein.errors import InvalidSettings
from dynein.observability.events.process import AWS_PROXIED
from dynein.observability.telemetry import Telemetry
from dynein.runtime.clock import Clock, SystemClock
from dynein.settings import Settings

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient
    from types_aiobotocore_sqs import SQSClient


class Clients(NamedTuple):
    """Both services, open."""

    sqs: SQSClient
    dynamodb: DynamoDBClient


@asynccontextmanager
async def clients(
    settings: Settings, clock: Clock | None = None, telemetry: Telemetry | None = None
) -> AsyncIterator[Clients]:
    """Open clients for one process; closed on leaving. Raises `InvalidSettings` when no region is to be found.

    ``telemetry`` shows how far our clock is from AWS's.
    """
    session = get_session()
    offset = ClockOffset(clock or SystemClock(), telemetry.clock_offset) if telemetry is not None else None
    async with (
        sqs_client(settings, session, clock, offset) as sqs,
        dynamodb_client(settings, session, clock, offset) as dynamodb,
    ):
        yield Clients(sqs, dynamodb)


@asynccontextmanager
async def sqs_client(
    settings: Settings,
    session: AioSession | None = None,
    clock: Clock | None = None,
    offset: ClockOffset | None = None,
) -> AsyncIterator[SQSClient]:
    """An SQS client. Its read timeout leaves room for a long poll (`Settings.receive_wait_s`)."""
    read_timeout_s = settings.call_timeout_s + settings.receive_wait_s
    endpoint_url = settings.sqs_endpoint_url or settings.endpoint_url
    async with _open("sqs", settings, session, clock, offset, endpoint_url, read_timeout_s) as client:
        yield client


@asynccontextmanager
async def dynamodb_client(
    settings: Settings,
    session: AioSession | None = None,
    clock: Clock | None = None,
    offset: ClockOffset | None = None,
) -> AsyncIterator[DynamoDBClient]:
    """A DynamoDB client."""
    endpoint_url = settings.dynamodb_endpoint_url or settings.endpoint_url
    async with _open("dynamodb", settings, session, clock, offset, endpoint_url, settings.call_timeout_s) as client:
        yield client


@asynccontextmanager
async def _open(
    service: Literal["sqs", "dynamodb"],
    settings: Settings,
    session: AioSession | None,
    clock: Clock | None,
    offset: ClockOffset | None,
    endpoint_url: str | None,
    read_timeout_s: float,
) -> AsyncIterator[Any]:
    session = session or get_session()
    config = AioConfig(
        connect_timeout=settings.call_timeout_s,
        read_timeout=read_timeout_s,
        max_pool_connections=settings.connections_max,
        # One attempt in all: see the module docstring.
        retries={"mode": "standard", "total_max_attempts": 1},
        # Costs a tenth of a call's CPU time; our parameters come from typed code, and AWS checks them again.
        parameter_validation=False,
        user_agent_extra=f"dynein/{__version__}",
    )
    opening = session.create_client(service, region_name=settings.region, endpoint_url=endpoint_url, config=config)
    try:
        async with opening as sdk:
            if settings.aws_client == "aiobotocore" or _is_behind_a_proxy(sdk):
                if offset is not None:
                    sdk.meta.events.register("after-call", offset.on_sdk_response)
                yield sdk
                return
            wire = wire_client(
                sdk,
                await session.get_credentials(),
                clock or SystemClock(),
                offset=offset,
                connections_max=settings.connections_max,
                ca_bundle=session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE"),
            )
            async with wire as client:
                yield client
    except NoRegionError as error:
        raise InvalidSettings("no AWS region: set DYNEIN_REGION (or AWS_REGION, or the profile's region)") from error


def _is_behind_a_proxy(sdk: Any) -> bool:  # noqa: ANN401 - the SDK makes its clients' classes at run time
    """Whether the environment (``HTTPS_PROXY``, ``NO_PROXY``) puts a proxy before the service: left to the SDK."""
    url: str = sdk.meta.endpoint_url
    if urlsplit(url).scheme not in get_environ_proxies(url):
        return False
    AWS_PROXIED.log(url=url)
    return True
