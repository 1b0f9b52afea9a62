"""HTTP/1.1: one keep-alive connection, with one request at a time on it. `dynein.aws.wire.pool` has several.

A request is sent once. When its connection ends before the whole response is here, it cannot be known whether the
server took it, and most of our calls do something each time they are made: the caller gets an error, and decides.

Only responses that say how long they are count (``content-length`` or chunks): what ends with its connection cannot be
distinguished from what was cut off. Errors are `OSError`, or `BadResponse` for what is not HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, cast

import httptools
from botocore.parsers import ResponseParserError

RESPONSE_BYTES_MAX = 64 * 1024 * 1024
"""No response of ours is larger: DynamoDB ends one at 16 MB of data, which JSON and base64 can make twice that."""
_INFORMATIONAL_BELOW = 200


class BadResponse(ResponseParserError):
    """The server's response is not what the protocol allows. (The SDK's type, so that it is mapped as the SDK's.)"""


class Response(NamedTuple):
    """A whole response. Header names are in lower case; of several with one name, the last is kept."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Connection(asyncio.Protocol):
    """One connection. Idle, or waiting for the response to its one request, or lost."""

    def __init__(self, on_lost: Callable[[Connection], None]) -> None:
        self._on_lost = on_lost
        self._parser: httptools.HttpResponseParser | None = None
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Response] | None = None
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._received_bytes = 0
        self._keep = True
        self.idle_since_s = 0.0
        """Since when it has been idle; set by the pool."""
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def usable(self) -> bool:
        """Whether another request may be sent on it."""
        return self._keep and self._waiting is None and self._transport is not None and not self._transport.is_closing()

    def ask(self, request: bytes) -> asyncio.Future[Response]:
        """Send ``request``, which must be whole; await the result for its response."""
        if self._transport is None or not self.usable:
            raise ConnectionResetError("the connection was closed before the request was sent")
        self._waiting = asyncio.get_running_loop().create_future()
        self._received_bytes = 0
        self._transport.write(request)
        return self._waiting

    def abort(self) -> None:
        """Close it now. A request that waits for its response gets an error."""
        self._keep = False
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not derive from it
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        if self._waiting is None:  # not asked for: a server that explains why it closes, or one that we cannot follow
            self.abort()
            return
        assert self._parser is not None
        self._received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(BadResponse(f"not an HTTP response: {error}"))
        if self._received_bytes > RESPONSE_BYTES_MAX:
            self._fail(BadResponse(f"a response of more than {RESPONSE_BYTES_MAX} bytes"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._keep = False
        self._parser = None  # they refer to each other
        if self._waiting is not None:
            how_far = "in the middle of" if self._received_bytes else "before"
            reason = f": {exc}" if exc is not None else ""
            self._fail(ConnectionResetError(f"the connection was closed {how_far} the response{reason}"))
        self._on_lost(self)
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
            return  # the response is still to come; or has been
        self._keep = self._keep and parser.should_keep_alive()
        self._waiting = None
        if not waiting.done():
            waiting.set_result(Response(status, self._headers, b"".join(self._body)))

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)
        self.abort()
