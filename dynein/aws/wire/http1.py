"""HTTP/1.1 to one endpoint: a pool of keep-alive connections, one request at a time on each.

A request is sent once. When its connection ends before the whole answer is here, nobody can know whether the server
took it, and most of our calls do something each time they are made: the caller hears of it and decides. Connections
that have been idle for `IDLE_MAX_S` are not used again, because servers close them, and a request that crosses such a
close in the network is lost.

Only answers that say how long they are count (``content-length`` or chunks): what ends with its connection cannot be
told from what was cut off. Errors are `OSError`, or `BadAnswer` for what is not HTTP.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from typing import NamedTuple, cast

import httptools
from aiohappyeyeballs import start_connection
from botocore.parsers import ResponseParserError

from dynein.runtime.clock import Clock

IDLE_MAX_S = 12.0
"""aiobotocore's figure; the services themselves keep idle connections longer."""
ANSWER_BYTES_MAX = 64 * 1024 * 1024
"""No answer of ours is larger: DynamoDB ends one at 16 MB of data, which JSON and base64 can make twice that."""
_INFORMATIONAL_BELOW = 200
_NEXT_ADDRESS_S = 0.25
"""RFC 8305's recommendation, "Connection Attempt Delay"."""


class BadAnswer(ResponseParserError):
    """The server's answer is not what the protocol allows. (The SDK's type, so that it is mapped as the SDK's.)"""


class Answer(NamedTuple):
    """A whole answer. Header names are in lower case; of several with one name, the last is kept."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class _Connection(asyncio.Protocol):
    """One connection. Idle, or waiting for the answer to its one request, or lost."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._parser: httptools.HttpResponseParser | None = None
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._received_bytes = 0
        self._keep = True
        self.idle_since_s = 0.0
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def usable(self) -> bool:
        """Whether another request may be sent on it."""
        return self._keep and self._waiting is None and self._transport is not None and not self._transport.is_closing()

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        """Send ``request``, which must be whole; await the result for its answer."""
        if self._transport is None or not self.usable:
            raise ConnectionResetError("the connection was closed before the request was sent")
        self._waiting = asyncio.get_running_loop().create_future()
        self._received_bytes = 0
        self._transport.write(request)
        return self._waiting

    def abort(self) -> None:
        """Close it now. Whoever waits for an answer gets an error."""
        self._keep = False
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not derive from it
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        if self._waiting is None:  # nobody asked: a server that says why it closes, or one that we cannot follow
            self.abort()
            return
        assert self._parser is not None
        self._received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(BadAnswer(f"not an HTTP answer: {error}"))
        if self._received_bytes > ANSWER_BYTES_MAX:
            self._fail(BadAnswer(f"an answer of more than {ANSWER_BYTES_MAX} bytes"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._keep = False
        self._parser = None  # they refer to each other
        if self._waiting is not None:
            how_far = "in the middle of" if self._received_bytes else "before"
            reason = f": {exc}" if exc is not None else ""
            self._fail(ConnectionResetError(f"the connection was closed {how_far} the answer{reason}"))
        self._pool.on_lost(self)
        if not self.lost.done():
            self.lost.set_result(None)

    # --- httptools

    def on_message_begin(self) -> None:
        self._headers = {}
        self._body = []
        if self._waiting is None:
            self._keep = False  # more than was asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        parser, waiting = self._parser, self._waiting
        assert parser is not None
        status = parser.get_status_code()
        if status < _INFORMATIONAL_BELOW or waiting is None:
            return  # the answer is still to come; or has been
        self._keep = self._keep and parser.should_keep_alive()
        self._waiting = None
        if not waiting.done():
            waiting.set_result(Answer(status, self._headers, b"".join(self._body)))

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)
        self.abort()


class Pool:
    """Up to ``connections_max`` connections to one endpoint; who finds all of them busy waits in line.

    The line is as long as our callers' own bounds allow, and each waits no longer than its call's time bound.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, connections_max: int, clock: Clock) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._connections_max = connections_max
        self._clock = clock
        self._idle: list[_Connection] = []
        self._opened: dict[_Connection, None] = {}
        self._slots_taken = 0
        self._line: deque[asyncio.Future[_Connection | None]] = deque()
        self._closed = False

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._opened)

    async def ask(self, request: bytes) -> Answer:
        """Send a whole request, once, and return its answer. Cancelling it closes its connection.

        Raises `OSError` when nobody can be reached or the connection ends early, `BadAnswer`.
        """
        connection = await self._acquire()
        try:
            return await connection.ask(request)
        finally:
            self._release(connection)  # which closes it, if its answer is not here

    async def close(self) -> None:
        """Close every connection; requests under way fail, and so does any later one."""
        self._closed = True
        opened = list(self._opened)
        for connection in opened:
            connection.abort()
        if opened:
            await asyncio.wait([connection.lost for connection in opened])

    def on_lost(self, connection: _Connection) -> None:
        """A connection has ended; if it was idle, its place is free."""
        self._opened.pop(connection, None)
        if connection in self._idle:
            self._idle.remove(connection)
            self._slots_taken -= 1

    async def _acquire(self) -> _Connection:
        while not self._closed:
            connection = self._take_idle()
            if connection is not None:
                return connection
            if self._slots_taken < self._connections_max:
                self._slots_taken += 1
            else:
                connection = await self._stand_in_line()
            if connection is None:
                return await self._open()
            if connection.usable:
                return connection
            self._release(connection)  # lost between being handed over and our turn
        raise ConnectionAbortedError("this client is closed")

    def _take_idle(self) -> _Connection | None:
        """The one used last: those that are not needed grow old and are closed."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and self._clock.monotonic() - connection.idle_since_s <= IDLE_MAX_S:
                return connection
            connection.abort()
            self._slots_taken -= 1
        return None

    async def _stand_in_line(self) -> _Connection | None:
        """A connection, or ``None`` for the right to open one."""
        turn: asyncio.Future[_Connection | None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._line.remove(turn)
            else:
                self._hand_on(turn.result())
            raise

    async def _open(self) -> _Connection:
        """Takes a place that is ours already."""
        loop = asyncio.get_running_loop()
        name = self._host if self._tls is not None else None
        try:
            addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            # Not one address after the other: where IPv6 leads nowhere, the first would use up the call's time.
            connected = await start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S)
            _, connection = await loop.create_connection(
                lambda: _Connection(self), sock=connected, ssl=self._tls, server_hostname=name
            )
        except BaseException:
            self._hand_on(None)
            raise
        self._opened[connection] = None
        if self._closed:
            connection.abort()
        return connection

    def _release(self, connection: _Connection) -> None:
        if connection.usable:
            self._hand_on(connection)
        else:
            connection.abort()
            self._hand_on(None)

    def _hand_on(self, connection: _Connection | None) -> None:
        """Give a connection, or the place for one, to the first in line."""
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        if connection is None:
            self._slots_taken -= 1
        else:
            connection.idle_since_s = self._clock.monotonic()
            self._idle.append(connection)
