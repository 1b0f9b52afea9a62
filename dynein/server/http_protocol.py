"""HTTP/1.1 as uvicorn speaks it, with a bound on what one connection may cost.

uvicorn leaves these bounds to a proxy in front. Dynein must hold without one: whoever reaches the port may be slow,
endless or malicious, and must not delay the other callers or the dispatcher beside them.

======================================  ==============================================================================
what a connection does                  what becomes of it
======================================  ==============================================================================
sends no complete head of a request     408 and closed, `HEAD_WITHIN_S` after its first byte (or after it was opened)
sends a head without end                431 and closed, at `HEAD_BYTES_MAX` or `HEADERS_MAX`
sends a body too slowly, or stops       408 and closed: after `BODY_GRACE_S` a body must have come at `BODY_BYTES_A_S`
                                        on the average, and be complete within `BODY_WITHIN_S`
sends a body in crumbs                  400 and closed: chunk framing may take `FRAMING_BYTES_MAX` and an eighth of
                                        what it frames
pipelines requests                      no more is read while `PIPELINED_MAX` requests wait for their turn
does not read its responses             closed, `RESPONSE_STALLED_S` after the first that it did not take
has half a body sent at SIGTERM         503 ``draining`` and closed, at once
is refused for want of room             not read from for a while, longer each time in a row (`dynein.server.load_gate`)
asks for another protocol               answered as if it did not
is not one request to all who read it   400 and closed (`dynein.server.http_head`)
is idle                                 closed after uvicorn's keep-alive time-out, sooner where room is short
======================================  ==============================================================================

Time counts against a client only while we were reading from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Iterable
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol, cast

import httptools
import msgspec
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from dynein.api.problems import PROBLEM_JSON, make
from dynein.server.http_head import Head, HeadError, with_host

HEAD_BYTES_MAX = 32_768
"""Of request line and headers. nginx takes as much (``large_client_header_buffers``), Node.js half of it."""
HEADERS_MAX = 100
HEAD_WITHIN_S = 10.0
BODY_GRACE_S = 10.0
BODY_BYTES_A_S = 16_384
BODY_WITHIN_S = 120.0
FRAMING_BYTES_MAX = 32_768
RESPONSE_STALLED_S = 30.0
PIPELINED_MAX = 8
CLOSE_LINGER_S = 1.0
"""After a refusal, how long what still comes is read and dropped: closed at once, the refusal might never be seen."""
REST_FIRST_S = 0.25
REST_MAX_S = 0.5
"""How long nothing is read from a connection after a request of it was refused for want of room: the first time, and at
the most."""
_SKIPPED_BYTES_MAX = 65_536
"""A longer body of a refused request is not worth reading to its end: the connection is closed."""
_LENGTH_DIGITS_MAX = 20
_HEAD_PIECE_BYTES = 2_048
"""Parsed at once while heads may come: it holds a hundred pipelined requests at the most."""
_BODY_PIECE_BYTES = 8_192
"""The same within a body, whose end may come at any byte."""


class Refusal(NamedTuple):
    """A response, whole, but for ``connection``."""

    status: int
    head: bytes
    body: bytes


def problem_refusal(code: str, detail: str) -> Refusal:
    """A problem document, with the headers that describe it."""
    problem = make(code, detail, msgspec.UNSET)
    body = msgspec.json.encode(problem)
    return Refusal(problem.status, f"content-type: {PROBLEM_JSON}\r\ncontent-length: {len(body)}\r\n".encode(), body)


class Gate(Protocol):
    """Decides by its head whether a request is served."""

    def admit(
        self, path: bytes, peer: str, headers: Iterable[tuple[bytes, bytes]], body_bytes: int, in_progress: int
    ) -> Refusal | None:
        """``None`` if it is. ``in_progress``: requests that this process is serving."""


class Phase(Enum):
    """What is expected of the client next."""

    IDLE = auto()
    """The first byte of a request; a response to an earlier one may be under way."""
    HEAD = auto()
    BODY = auto()
    CLOSING = auto()
    """Nothing: it was refused."""


class _Flow(FlowControl):
    """Reading stays paused while ``held``, whoever else would have it go on."""

    held = False

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


# Beside uvicorn's fields: what one request has cost so far and since when, and what keeps us from reading on.
class GuardedProtocol(HttpToolsProtocol):
    """One connection."""

    flow: _Flow

    def __init__(self, *args: Any, gate: Gate | None = None, **kwargs: Any) -> None:  # noqa: ANN401 - as uvicorn's
        super().__init__(*args, **kwargs)
        self._gate = gate
        self._unanswered: deque[RequestResponseCycle] = deque()
        """Requests being answered or waiting for it, in order."""
        self._upgrading = False
        """The request asks for another protocol, and is about to be read again."""
        self._skipping = False
        """The body of a request that was refused is read and dropped."""
        self._refusals = 0
        self._resting: asyncio.TimerHandle | None = None
        self.phase = Phase.IDLE
        self.since = self.loop.time()
        """When ``phase`` began, by the event loop's time."""
        self._unparsed = b""
        self._messages = 0
        """Requests whose head has begun."""
        self._head_bytes = 0
        self._wire_bytes = 0
        self._body_bytes = 0
        self._not_reading_s = 0.0
        self._checked_at = self.since
        self._stalled_since: float | None = None

    # --- asyncio's protocol -----------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - see asyncio.Protocol
        super().connection_made(transport)
        self.flow = _Flow(transport)

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.CLOSING:
            return
        self._unset_keepalive_if_required()
        if self._unparsed:
            self._unparsed += data  # reading is paused; what the transport had read already comes all the same
        else:
            self._parse(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unparsed = b""
        self._abandon()
        if self._resting is not None:
            self._resting.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._stalled_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stalled_since = None
        super().resume_writing()

    # --- parsing ----------------------------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        """Parse piece by piece, so that a bound is noticed before much more than it has been taken in."""
        start = 0
        while start < len(data):
            if len(self.pipeline) >= PIPELINED_MAX or self._resting is not None:
                break
            end = start + (_BODY_PIECE_BYTES if self.phase is Phase.BODY else _HEAD_PIECE_BYTES)
            piece = data if start == 0 and end >= len(data) else data[start:end]
            if not self._parse_piece(piece):
                return
            start = end
        self._unparsed = data[start:]
        self._hold()

    def _parse_piece(self, piece: bytes) -> bool:
        """False once the connection is refused."""
        began_in = self._messages if self.phase is Phase.BODY else None
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            return self._parse_without_upgrade(piece[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            cause = error.__context__
            reason = str(cause) if isinstance(cause, HeadError) else "What came is not an HTTP/1.1 request."
            self.refuse("malformed-http", reason)
            return False
        if self.phase is Phase.HEAD:
            self._head_bytes += len(piece)
            if self._head_bytes > HEAD_BYTES_MAX or len(self.headers) > HEADERS_MAX:
                limits = f"{HEAD_BYTES_MAX} bytes and {HEADERS_MAX} headers"
                self.refuse("headers-too-large", f"The request line and headers take more than {limits}.")
                return False
        elif self.phase is Phase.BODY and began_in == self._messages:
            self._wire_bytes += len(piece)
            if self._wire_bytes - self._body_bytes > FRAMING_BYTES_MAX + self._body_bytes // 8:
                self.refuse("malformed-http", "The body's chunks are too small: their framing outweighs them.")
                return False
        return True

    def _parse_without_upgrade(self, rest: bytes) -> bool:
        """Read the request again as one that asks for no other protocol; ``rest`` is its body, and what follows.

        The parser takes all that comes after such a head for that protocol. Read by another parser as what it is to us,
        a body would be a request of its own.
        """
        head, self._upgrading = self._head().without_upgrade(), False
        self.parser = httptools.HttpRequestParser(self)
        return self._parse_piece(head) and (not rest or self._parse_piece(rest))

    def _head(self) -> Head:
        return Head(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._enter(Phase.HEAD)
        self._messages += 1
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        head = self._head()
        head.check()
        self._upgrading = self.parser.should_upgrade()
        if self._upgrading:
            return
        host = head.host_of_target()
        if host is not None:
            self.headers[:] = with_host(self.headers, host)
        self._enter(Phase.BODY)
        self._wire_bytes = self._body_bytes = 0
        # Behind a response under way a refusal would have to wait for its turn, and cost as much as an acceptance.
        cycle = self._cycle
        if self._gate is not None and (cycle is None or cycle.response_complete):
            body_bytes = self._declared_bytes()
            peer = self.client[0] if self.client else ""
            refusal = self._gate.admit(self.url, peer, self.headers, body_bytes, len(self.tasks))
            if refusal is not None:
                self._shed(refusal, body_bytes)
                return
            self._refusals = 0
        super().on_headers_complete()
        self._unanswered.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if not self._skipping:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._upgrading:
            return
        self._enter(Phase.IDLE)
        if self._skipping:
            self._skipping = False
        else:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self._unanswered.popleft()
        super().on_response_complete()
        self.since = self.loop.time()
        if self._unparsed and self.phase is not Phase.CLOSING and not self.transport.is_closing():
            data, self._unparsed = self._unparsed, b""
            self._unset_keepalive_if_required()
            self._parse(data)
        else:
            self._hold()
        self.flow.resume_reading()

    def _hold(self) -> None:
        """Read no more while there is enough to do: requests that wait, or the body of one whose turn is to come."""
        waiting_body = bool(self.pipeline) and len(self.cycle.body) > HIGH_WATER_LIMIT
        waiting = bool(self._unparsed) or len(self.pipeline) >= PIPELINED_MAX or waiting_body
        self.flow.held = waiting or self._resting is not None
        if self.flow.held:
            self.flow.pause_reading()

    def _enter(self, phase: Phase) -> None:
        if self.phase is not Phase.CLOSING:
            self.phase = phase
            self.since = self.loop.time()
            self._not_reading_s = 0.0

    # --- refusing ---------------------------------------------------------------------------------------------------

    @property
    def _cycle(self) -> RequestResponseCycle | None:
        """The latest request and its response. (uvicorn declares that there always is one.)"""
        return cast("RequestResponseCycle | None", self.cycle)

    @property
    def idle(self) -> bool:
        """Nothing is asked and nothing is being answered: closing it harms nobody."""
        return self.phase is Phase.IDLE and (self._cycle is None or self._cycle.response_complete)

    def _abandon(self) -> None:
        """Nobody reads responses any more: whoever is making one learns it, and writes no more of it.

        (uvicorn knows only of the latest request, and its transport raises when it is written to after its end.)
        """
        self.pipeline.clear()
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()

    def check(self, now: float) -> None:
        """Close it if it has taken too long. ``now``: the event loop's time. Called about once a second."""
        passed_s, self._checked_at = now - self._checked_at, now
        if self._stalled_since is not None and now - self._stalled_since > RESPONSE_STALLED_S:
            self._abandon()
            self.transport.abort()
            return
        if self.flow.read_paused:
            self._not_reading_s += passed_s
            return
        took_s = now - self.since - self._not_reading_s
        if (self.phase is Phase.IDLE and self._cycle is None and took_s > HEAD_WITHIN_S) or (
            self.idle and took_s > self.timeout_keep_alive
        ):
            self.transport.close()
        elif self.phase is Phase.HEAD and took_s > HEAD_WITHIN_S:
            self.refuse("request-timeout", f"The request's headers did not come within {HEAD_WITHIN_S:.0f} s.")
        elif self.phase is Phase.BODY and self._is_slow(took_s):
            self.refuse(
                "request-timeout",
                f"The body came too slowly: {self._body_bytes} bytes in {took_s:.0f} s. It must come at "
                f"{BODY_BYTES_A_S} bytes a second or faster, and within {BODY_WITHIN_S:.0f} s.",
            )

    def _is_slow(self, took_s: float) -> bool:
        if took_s > BODY_WITHIN_S:
            return True
        return took_s > BODY_GRACE_S and self._body_bytes < BODY_BYTES_A_S * took_s

    def shutdown(self) -> None:
        """See uvicorn: called when the server begins to close. Whoever is still sending a body learns it at once."""
        if self.phase in (Phase.HEAD, Phase.BODY) and (self._cycle is None or not self._cycle.response_started):
            self.refuse("draining", "This process is shutting down; nothing was accepted.")
        else:
            super().shutdown()

    # --- overload ---------------------------------------------------------------------------------------------------

    def _declared_bytes(self) -> int:
        for name, value in self.headers:
            if name == b"content-length":
                return int(value) if value.isdigit() and len(value) < _LENGTH_DIGITS_MAX else 0
        return 0

    def _shed(self, refusal: Refusal, body_bytes: int) -> None:
        """Refuse one request, and read no more from this connection for a while, longer each time in a row.

        So a flood waits at its sender: a refusal costs little, and a million of them much.
        """
        self._skipping = True
        closing = self.expect_100_continue or body_bytes > _SKIPPED_BYTES_MAX or not self.parser.should_keep_alive()
        connection = b"connection: close\r\n\r\n" if closing else b"\r\n"
        self.transport.write(STATUS_LINE[refusal.status] + refusal.head + connection + refusal.body)
        self.server_state.total_requests += 1
        if closing:
            self.phase = Phase.CLOSING
            self.loop.call_later(CLOSE_LINGER_S, self.transport.close)
            return
        rest_s = min(REST_MAX_S, REST_FIRST_S * 2.0**self._refusals)
        self._refusals += 1
        self._resting = self.loop.call_later(rest_s, self._rested)

    def _rested(self) -> None:
        self._resting = None
        if self.transport.is_closing() or self.phase is Phase.CLOSING:
            return
        data, self._unparsed = self._unparsed, b""
        self._parse(data)
        self.flow.resume_reading()

    def refuse(self, code: str, detail: str) -> None:
        """Answer with this problem, unless a response is under way, and close."""
        if self.phase is Phase.CLOSING:
            return
        self.phase = Phase.CLOSING
        self._unparsed = b""
        self._abandon()
        if any(cycle.response_started or not cycle.more_body for cycle in self._unanswered):
            # Half a response is written, or one is owed to an earlier request: it would take the refusal for its own.
            self.transport.abort()
        else:
            self._write_problem(code, detail)
            self.loop.call_later(CLOSE_LINGER_S, self.transport.close)

    def _write_problem(self, code: str, detail: str) -> None:
        status, head, body = problem_refusal(code, detail)
        more = (
            f"x-request-id: {os.urandom(8).hex()}\r\nconnection: close\r\n"
            "cache-control: no-store\r\nx-content-type-options: nosniff\r\n"
        )
        if status == 503:  # noqa: PLR2004 - HTTP's number
            more += "retry-after: 1\r\n"
        self.transport.write(STATUS_LINE[status] + head + more.encode() + b"\r\n" + body)
        if self.transport.can_write_eof():
            with contextlib.suppress(OSError):  # the client has gone
                self.transport.write_eof()
