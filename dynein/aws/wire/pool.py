"""A pool of connections to one endpoint (`dynein.aws.wire.http1`).

Connections that have been idle for `IDLE_MAX_S` are not used again, because servers close them, and a request that
crosses such a close in the network is lost.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import OrderedDict

from aiohappyeyeballs import start_connection

from dynein.aws.wire.http1 import Connection, Response
from dynein.runtime.clock import Clock

NOT_SENT = "nothing was sent"
"""See `Pool.ask`."""
IDLE_MAX_S = 12.0
"""aiobotocore's figure; the services themselves keep idle connections longer."""
_NEXT_ADDRESS_S = 0.25
"""RFC 8305's recommendation, "Connection Attempt Delay"."""


class Pool:
    """Up to ``connections_max`` connections to one endpoint; a request that finds all of them busy waits in line.

    The line is as long as our callers' own bounds allow, and none waits longer than its call's time bound.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, connections_max: int, clock: Clock) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._connections_max = connections_max
        self._clock = clock
        self._idle: list[Connection] = []
        self._opened: dict[Connection, None] = {}
        self._slots_taken = 0
        self._line: OrderedDict[asyncio.Future[Connection | None], None] = OrderedDict()
        self._closed = False

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._opened)

    async def ask(self, request: bytes) -> Response:
        """Send a whole request, once, and return its response. Cancelling it closes its connection.

        Raises `OSError` when no server can be reached or the connection ends early, `BadResponse`. Whatever is raised
        before anything was sent, a cancellation too, has the note `NOT_SENT`.
        """
        try:
            connection = await self._acquire()
        except BaseException as error:
            error.add_note(NOT_SENT)
            raise
        try:
            return await connection.ask(request)
        finally:
            self._release(connection)  # which closes it, if its response is not here

    async def close(self) -> None:
        """Close every connection; requests under way fail, and so does any later one."""
        self._closed = True
        opened = list(self._opened)
        for connection in opened:
            connection.abort()
        if opened:
            await asyncio.wait([connection.lost for connection in opened])

    def _lost(self, connection: Connection) -> None:
        """A connection has ended; if it was idle, its place is free."""
        self._opened.pop(connection, None)
        if connection in self._idle:
            self._idle.remove(connection)
            self._slots_taken -= 1

    async def _acquire(self) -> Connection:
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

    def _take_idle(self) -> Connection | None:
        """The one used last: those that are not needed grow old and are closed."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and self._clock.monotonic() - connection.idle_since_s <= IDLE_MAX_S:
                return connection
            connection.abort()
            self._slots_taken -= 1
        return None

    async def _stand_in_line(self) -> Connection | None:
        """A connection, or ``None`` for the right to open one."""
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._line[turn] = None
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._line.pop(turn, None)  # unless it was its turn in this very moment, and it was passed over
            else:
                self._hand_on(turn.result())
            raise

    async def _open(self) -> Connection:
        """Takes a place that is ours already."""
        loop = asyncio.get_running_loop()
        name = self._host if self._tls is not None else None
        try:
            addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            # Not one address after the other: where IPv6 leads nowhere, the first would use up the call's time.
            connected = await start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S)
            _, connection = await loop.create_connection(
                lambda: Connection(self._lost), sock=connected, ssl=self._tls, server_hostname=name
            )
        except BaseException:
            self._hand_on(None)
            raise
        self._opened[connection] = None
        if self._closed:
            connection.abort()
        return connection

    def _release(self, connection: Connection) -> None:
        if connection.usable:
            self._hand_on(connection)
        else:
            connection.abort()
            self._hand_on(None)

    def _hand_on(self, connection: Connection | None) -> None:
        """Give a connection, or the place for one, to the first in line."""
        while self._line:
            turn, _ = self._line.popitem(last=False)
            if not turn.done():
                turn.set_result(connection)
                return
        if connection is None:
            self._slots_taken -= 1
        else:
            connection.idle_since_s = self._clock.monotonic()
            self._idle.append(connection)
