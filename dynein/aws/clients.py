"""Clients of SQS and DynamoDB, set up in one way. `dynein.aws.calls` makes the calls.

A client is the SDK's, or, by default, `dynein.aws.wire`'s with the SDK's behind it: same methods, responses and errors.
The SDK never retries here. The caller knows what repeating a call means (which entries of a batch, whether a lease is
still worth renewing), so callers retry; a second retry loop below them would only hide how slow AWS is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import BotoCoreError

from dynein import __version__
from dynein.aws.clock_offset import ClockOffset
from dynein.aws.endpoints import Service, endpoint_of, reach_of, region_of
from dynein.aws.sdk_configuration import ca_bundle, check_sdk_files, opening_error
from dynein.aws.wire.client import wire_client
from dynein.core.loopback import is_loopback
from dynein.errors import DyneinError, Retryable
from dynein.observability.events.process import AWS_PROXIED
from dynein.observability.logs import quieten_credentials
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
    """Open clients for one process; closed on leaving. Raises `InvalidSettings`
    or `AccessDenied` when the settings, or the SDK's own configuration, are wrong.

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
    async with _open("sqs", settings, session, clock, offset, read_timeout_s) as client:
        yield client


@asynccontextmanager
async def dynamodb_client(
    settings: Settings,
    session: AioSession | None = None,
    clock: Clock | None = None,
    offset: ClockOffset | None = None,
) -> AsyncIterator[DynamoDBClient]:
    """A DynamoDB client."""
    async with _open("dynamodb", settings, session, clock, offset, settings.call_timeout_s) as client:
        yield client


@asynccontextmanager
async def _open(
    service: Service,
    settings: Settings,
    session: AioSession | None,
    clock: Clock | None,
    offset: ClockOffset | None,
    read_timeout_s: float,
) -> AsyncIterator[Any]:
    session = session or get_session()
    async with AsyncExitStack() as stack:
        sdk = await _sdk_client(service, settings, session, read_timeout_s, stack)
        if settings.aws_client == "aiobotocore" or sdk.reach.proxy is not None:
            if sdk.reach.proxy is not None:
                AWS_PROXIED.log(url=sdk.meta.endpoint_url)
            if offset is not None:
                sdk.meta.events.register("after-call", offset.on_sdk_response)
            yield sdk
            return
        bundle = ca_bundle(session)
        wire = wire_client(
            sdk,
            await session.get_credentials(),
            clock or SystemClock(),
            offset=offset,
            connections_max=settings.connections_max,
            ca_bundle=None if bundle is None else bundle.value,
        )
        yield await stack.enter_async_context(wire)


async def _sdk_client(
    service: Service, settings: Settings, session: AioSession, read_timeout_s: float, stack: AsyncExitStack
) -> Any:  # noqa: ANN401 - the SDK makes its clients' classes at run time
    """The SDK's client, open until ``stack`` is closed, with its `Reach` as ``reach``.

    Raises `InvalidSettings` or `AccessDenied` for whatever is wrong with the SDK's configuration.
    """
    try:
        check_sdk_files(session)
        endpoint, region = endpoint_of(service, settings, session), region_of(settings, session)
        config = AioConfig(
            connect_timeout=settings.call_timeout_s,
            read_timeout=read_timeout_s,
            max_pool_connections=settings.connections_max,
            # One attempt in all: see the module docstring.
            retries={"mode": "standard", "total_max_attempts": 1},
            # Costs a tenth of a call's CPU time; our parameters come from typed code, and AWS checks them again.
            parameter_validation=False,
            user_agent_extra=f"dynein/{__version__}",
            # None: as the environment says, which puts proxies before this very machine too.
            proxies={} if endpoint is not None and is_loopback(urlsplit(endpoint.value).hostname) else None,
        )
        opening = session.create_client(
            service,
            region_name=region.value,
            endpoint_url=None if endpoint is None else endpoint.value,
            config=config,
        )
        sdk: Any = await stack.enter_async_context(opening)
        await _try_credentials(session, settings)
    except DyneinError:
        raise
    except (BotoCoreError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise opening_error(error, settings, session) from error
    sdk.reach = reach_of(service, sdk.meta.endpoint_url, endpoint, region)
    return sdk


async def _try_credentials(session: AioSession, settings: Settings) -> None:
    """Fetch the credentials once, so that a wrong configuration is reported now. Temporary failures are not."""
    credentials: Any = await session.get_credentials()  # None: the first call says so
    if credentials is None:
        return
    try:
        async with asyncio.timeout(settings.call_timeout_s):
            await credentials.get_frozen_credentials()
    except TimeoutError:
        return
    except (BotoCoreError, OSError, ValueError, KeyError, RuntimeError) as error:
        if not isinstance(opening_error(error, settings, session), Retryable):
            raise


quieten_credentials()
