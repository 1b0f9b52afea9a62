"""The client for asyncio."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self, TypeVar

import aiohttp

from dynein.client import flows
from dynein.client.exchange import Call, NoResponse, Pause, Response, Steps
from dynein.client.flows import Outcome
from dynein.client.jobs import Accepted, Delay, Job, Moved, Prepared, Status, When
from dynein.client.options import CONNECTIONS_MAX, PATIENCE_S, TIMEOUT_S, Options, response_of

ResultT = TypeVar("ResultT")


class AsyncClient:
    """`dynein.client.Client` for asyncio, used on one event loop: ``async with`` it, or `close` it."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._options = Options(url, headers, timeout_s, patience_s)
        self._ssl: ssl.SSLContext | bool = True if ssl_context is None else ssl_context
        self._session: aiohttp.ClientSession | None = None

    async def submit(self, job: Job, *, once: bool = False) -> Accepted:
        """See `Client.submit`."""
        return await self._drive(flows.submit(self._options.patience, job, once=once))

    async def submit_many(self, jobs: Iterable[Job]) -> list[Outcome]:
        """See `Client.submit_many`."""
        return await self._drive(flows.submit_many(self._options.patience, list(jobs)))

    async def prepare(
        self,
        *,
        run_at: When | None = None,
        delay: Delay | None = None,
        timezone: str | None = None,
        group: tuple[str, str] | None = None,
    ) -> Prepared:
        """See `Client.prepare`."""
        return await self._drive(flows.prepare(self._options.patience, run_at, delay, timezone, group))

    async def get(self, token: str) -> Status:
        """See `Client.get`."""
        return await self._drive(flows.get(self._options.patience, token))

    async def cancel(self, token: str) -> None:
        """See `Client.cancel`."""
        await self._drive(flows.cancel(self._options.patience, token))

    async def move(
        self, token: str, *, run_at: When | None = None, delay: Delay | None = None, timezone: str | None = None
    ) -> Moved:
        """See `Client.move`."""
        return await self._drive(flows.move(self._options.patience, token, run_at, delay, timezone))

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def _drive(self, steps: Steps[ResultT]) -> ResultT:
        reply: Response | NoResponse | None = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as end:
                result: ResultT = end.value
                return result
            if isinstance(step, Pause):
                await self._options.clock.sleep(step.seconds)
                reply = None
            else:
                reply = await self._send(step)

    async def _send(self, call: Call) -> Response | NoResponse:
        if self._session is None:  # it needs a running event loop
            self._session = aiohttp.ClientSession(
                headers=self._options.headers,
                # Not a total: it would include waiting for a free connection, and a request not sent would be in doubt.
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self._options.timeout_s, sock_read=self._options.timeout_s
                ),
                connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, ssl=self._ssl),
            )
        url = self._options.url + call.path
        try:
            async with self._session.request(call.method, url, data=call.body, allow_redirects=False) as response:
                return response_of(response.status, response.headers, await response.read())
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return NoResponse(sent=False, why=f"{self._options.url} cannot be reached: {error}")
        except (aiohttp.ClientError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            return NoResponse(sent=True, why=f"{self._options.url} did not respond: {why}")
