"""A server on loopback and clients that speak to it byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from dynein.server.http_protocol import Gate, GuardedProtocol
from dynein.server.http_server import Server
from dynein.server.listener import listen

App = Callable[[dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers with how many bytes the body had."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = f"{scope['method']} {size}".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Served:
    """A server under test."""

    def __init__(self, app: App, *, connections_max: int, gate: Gate | None) -> None:
        self._listener = listen("127.0.0.1", 0)
        config = uvicorn.Config(
            app,
            http=GuardedProtocol,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            timeout_keep_alive=3600,  # else a busy machine closes connections in the middle of a test
            timeout_graceful_shutdown=5,
        )
        self.server = Server(config, self._listener, connections_max=connections_max, gate=gate)
        self.clients: list[Client] = []
        self.port: int = self._listener.getsockname()[1]

    @property
    def connections(self) -> list[GuardedProtocol]:
        return [each for each in self.server.server_state.connections if isinstance(each, GuardedProtocol)]

    def pass_time(self, seconds: float) -> None:
        """As the server's own watch does it, once for each second from the last time on."""
        for connection in self.connections:
            start = connection._checked_at
            for second in range(1, int(seconds) + 1):
                connection.check(start + second)

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**24)
        client = Client(reader, writer)
        self.clients.append(client)
        return client

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 - a real server
                await asyncio.sleep(0.005)  # noqa: TID251


class Client:
    """One connection to it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Raises `ConnectionError` when the server has closed the connection."""
        self._writer.write(data)
        await self._writer.drain()

    async def response(self) -> tuple[int, bytes]:
        """Status and body of the next response."""
        async with asyncio.timeout(60):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.partition(b":")[2])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            )
            return int(head.split(b" ", 2)[1]), await self._reader.readexactly(length)

    async def problem(self) -> tuple[int, str]:
        """Status and code of a problem document."""
        status, body = await self.response()
        return status, json.loads(body)["code"]

    async def is_closed(self) -> bool:
        """Wait for the end of what the server sends."""
        try:
            async with asyncio.timeout(60):
                return await self._reader.read(1) == b""
        except ConnectionError:
            return True

    async def close(self) -> None:
        self._writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


@asynccontextmanager
async def served(app: App = echo, *, connections_max: int = 1000, gate: Gate | None = None) -> AsyncIterator[Served]:
    """A server while the block runs."""
    under_test = Served(app, connections_max=connections_max, gate=gate)
    serving = asyncio.create_task(under_test.server.serve(sockets=[]))
    await under_test.until(lambda: under_test.server.started)
    try:
        yield under_test
    finally:
        for client in under_test.clients:
            await client.close()
        under_test.server.should_exit = True
        await serving
