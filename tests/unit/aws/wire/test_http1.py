"""The connection pool, against a server of this process that sends its response byte by byte as the test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvloop
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dynein.aws.wire import http1
from dynein.aws.wire.http1 import BadResponse, Response
from dynein.aws.wire.pool import IDLE_MAX_S, NOT_SENT, Pool
from dynein.testing import ManualClock

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

REQUEST = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
GOOD = Response(200, {b"content-length": b"2"}, b"{}")
HANG_S = 240.0


class Server:
    """Reads a request, does the next act of its script, and so on. An act may end the connection."""

    def __init__(self, *acts: Handler) -> None:
        self.acts = list(acts)
        self.requests = 0
        self.connections = 0
        self.at_once_max = 0
        self.ended = 0
        self._open = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open += 1
        self.at_once_max = max(self.at_once_max, self._open)
        try:
            while await reader.readexactly(len(REQUEST)) == REQUEST and not writer.is_closing():
                self.requests += 1
                act = self.acts.pop(0) if self.acts else says(RESPONSE)
                await act(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open -= 1
            self.ended += 1
            writer.close()


def says(*parts: bytes) -> Handler:
    """Each of ``parts`` in a packet of its own (as far as the loop can tell)."""

    async def act(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            for _turn in range(3):
                await asyncio.sleep(0)  # noqa: TID251 - lets the client read it

    return act


def says_and_closes(*parts: bytes) -> Handler:
    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await says(*parts)(reader, writer)
        writer.close()

    return act


async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Until the client goes away."""
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""


@contextlib.asynccontextmanager
async def world(
    *acts: Handler, connections_max: int = 4, clock: ManualClock | None = None
) -> AsyncIterator[tuple[Pool, Server]]:
    server = Server(*acts)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    pool = Pool("127.0.0.1", server.port, None, connections_max, clock or ManualClock())
    async with asyncio.timeout(HANG_S):
        try:
            yield pool, server
        finally:
            await pool.close()
            listening.close()
            await until(lambda: server.ended == server.connections)


async def until(condition: Callable[[], bool]) -> None:
    """Something that another task, or the network within this process, brings about."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.001)  # noqa: TID251 - the real loop


# --- responses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts",
    [
        [RESPONSE],
        [bytes([byte]) for byte in RESPONSE],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", b"1\r\n}\r\n0\r\n", b"\r\n"],
        [b"HTTP/1.1 100 Continue\r\n\r\n", RESPONSE],
        [b"HTTP/1.1 103 Early Hints\r\nX-Amzn-RequestId: not this\r\n\r\n" + RESPONSE],
    ],
    ids=["whole", "byte by byte", "chunks", "after 100", "after 103"],
)
async def test_a_response_is_read_however_it_comes(parts: list[bytes]) -> None:
    async with world(says(*parts)) as (pool, server):
        first = await pool.ask(REQUEST)
        assert (first.status, first.body) == (200, b"{}")
        assert b"x-amzn-requestid" not in first.headers
        assert await pool.ask(REQUEST) == GOOD
        assert server.connections == 1, "and its connection is used again"


async def test_headers_and_status() -> None:
    async with world(says(b"HTTP/1.1 400 Bad\r\nX-Amzn-RequestId: R\r\ncontent-length: 0\r\n\r\n")) as (pool, _):
        assert await pool.ask(REQUEST) == Response(400, {b"x-amzn-requestid": b"R", b"content-length": b"0"}, b"")


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        RESPONSE + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        RESPONSE + b"{}",
    ],
    ids=["says close", "HTTP/1.0", "a second response", "more than it said"],
)
async def test_a_connection_that_cannot_be_followed_is_not_used_again(response: bytes) -> None:
    async with world(says(response)) as (pool, server):
        assert (await pool.ask(REQUEST)).body == b"{}"
        assert await pool.ask(REQUEST) == GOOD
        assert server.connections == 2


@pytest.mark.parametrize(
    "response",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x15\x03\x01\x00\x02\x02",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    ],
)
async def test_what_is_not_a_response(response: bytes) -> None:
    async with world(says(response)) as (pool, server):
        with pytest.raises(BadResponse):
            await pool.ask(REQUEST)
        assert await pool.ask(REQUEST) == GOOD
        assert server.connections == 2


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 2000,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 2000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 2000,
    ],
    ids=["body", "headers", "chunks"],
)
async def test_a_response_without_end(response: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "RESPONSE_BYTES_MAX", 1000)
    async with world(says(response)) as (pool, _):
        with pytest.raises(BadResponse, match="1000 bytes"):
            await pool.ask(REQUEST)


# --- connections that end -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "how_far"),
    [
        ([], "before"),
        ([b"HTTP/1.1 20"], "in the middle of"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{"], "in the middle of"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"], "in the middle of"),
        ([b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"{}"], "in the middle of"),
    ],
    ids=["no byte", "status line", "body", "chunks", "no length"],
)
@pytest.mark.parametrize("reused", [False, True])
async def test_a_request_whose_connection_ends_is_not_sent_again(
    parts: list[bytes], how_far: str, *, reused: bool
) -> None:
    """It cannot be known whether it was carried out."""
    before = [says(RESPONSE)] if reused else []
    async with world(*before, says_and_closes(*parts)) as (pool, server):
        for _ in before:
            await pool.ask(REQUEST)
        with pytest.raises(ConnectionResetError, match=how_far):
            await pool.ask(REQUEST)
        assert server.requests == len(before) + 1
        assert await pool.ask(REQUEST) == GOOD
        assert server.connections == 2


@pytest.mark.parametrize("farewell", [b"", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])
async def test_a_connection_that_ends_while_idle_is_forgotten(farewell: bytes) -> None:
    async with world(says_and_closes(RESPONSE, farewell), connections_max=1) as (pool, server):
        assert await pool.ask(REQUEST) == GOOD
        await until(lambda: pool.connections == 0)
        assert await pool.ask(REQUEST) == GOOD
        assert server.connections == 2


async def test_a_connection_that_was_idle_for_long_is_not_used_again() -> None:
    clock = ManualClock()
    async with world(connections_max=1, clock=clock) as (pool, server):
        for pause_s, connections in ((0, 1), (IDLE_MAX_S, 1), (IDLE_MAX_S + 1, 2), (1, 2)):
            await clock.advance(pause_s)
            assert await pool.ask(REQUEST) == GOOD
            assert server.connections == connections


async def test_nobody_listens() -> None:
    async with world(connections_max=1) as (pool, server):
        unreachable = Pool("127.0.0.1", 1, None, 1, ManualClock())
        for _ in range(2):  # the place for the connection is free again
            with pytest.raises(OSError, match="Connect call failed"):
                await unreachable.ask(REQUEST)
        assert server.connections == 0
        assert pool.connections == 0


async def test_what_was_not_sent_has_a_note() -> None:
    """By it a caller can tell that a repeat is safe."""
    unreachable = Pool("127.0.0.1", 1, None, 1, ManualClock())
    with pytest.raises(OSError, match="Connect call failed") as refused:
        await unreachable.ask(REQUEST)
    assert refused.value.__notes__ == [NOT_SENT]
    async with world(silence, connections_max=1) as (pool, server):
        first = asyncio.ensure_future(pool.ask(REQUEST))
        await until(lambda: server.requests == 1)
        with pytest.raises(TimeoutError) as in_line:
            async with asyncio.timeout(0):
                await pool.ask(REQUEST)
        assert in_line.value.__cause__ is not None
        assert in_line.value.__cause__.__notes__ == [NOT_SENT]
        await pool.close()
        with pytest.raises(ConnectionResetError) as sent:
            await first
        assert not hasattr(sent.value, "__notes__")


async def test_closing() -> None:
    async with world(silence) as (pool, server):
        asking = asyncio.ensure_future(pool.ask(REQUEST))
        await until(lambda: server.requests == 1)
        await pool.close()
        with pytest.raises(ConnectionResetError):
            await asking
        with pytest.raises(ConnectionAbortedError):
            await pool.ask(REQUEST)
        await until(lambda: server.ended == 1)
        assert pool.connections == 0


# --- many at once ---------------------------------------------------------------------------------------------------


async def test_the_pool_has_a_bound_and_the_line_moves() -> None:
    async with world(connections_max=3) as (pool, server):
        responses = await asyncio.gather(*(pool.ask(REQUEST) for _ in range(50)))
        assert responses == [GOOD] * 50
        assert server.at_once_max == server.connections == pool.connections == 3


async def test_first_come_first_served() -> None:
    async with world(connections_max=1) as (pool, _):
        finished: list[int] = []

        async def ask(number: int) -> None:
            await pool.ask(REQUEST)
            finished.append(number)

        await asyncio.gather(*(ask(number) for number in range(10)))
        assert finished == list(range(10))


async def test_the_line_moves_over_connections_that_end() -> None:
    last = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
    acts = [says_and_closes(), says(last), says(b"nonsense\r\n\r\n"), says(RESPONSE)]
    async with world(*acts, connections_max=1) as (pool, server):
        responses = await asyncio.gather(*(pool.ask(REQUEST) for _ in range(6)), return_exceptions=True)
        assert [type(response).__name__ for response in responses] == [
            "ConnectionResetError",
            "Response",
            "BadResponse",
            *["Response"] * 3,
        ]
        assert server.at_once_max <= 2, "the old one may still be closing when the next is opened"


async def test_the_line_moves_where_nobody_listens() -> None:
    pool = Pool("127.0.0.1", 1, None, 1, ManualClock())
    async with asyncio.timeout(HANG_S):
        responses = await asyncio.gather(*(pool.ask(REQUEST) for _ in range(6)), return_exceptions=True)
    assert [type(response) for response in responses] == [ConnectionRefusedError] * 6


async def test_cancelling_a_request_closes_its_connection() -> None:
    """The response that may still come would be taken for the next request's."""
    async with world(silence, connections_max=1) as (pool, server):
        asking = asyncio.ensure_future(pool.ask(REQUEST))
        await until(lambda: server.requests == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: server.ended == 1)
        assert await pool.ask(REQUEST) == GOOD
        assert server.connections == 2


async def test_cancelling_in_line_gives_up_the_place_and_no_other() -> None:
    async with world(silence, connections_max=1) as (pool, server):
        first, second, third = (asyncio.ensure_future(pool.ask(REQUEST)) for _ in range(3))
        await until(lambda: server.requests == 1)
        second.cancel()
        await asyncio.wait([second])
        first.cancel()
        assert await third == GOOD
        assert server.requests == 2
        for task in (first, second):
            assert task.cancelled()


@pytest.mark.parametrize("first_ends", ["by its response", "cancelled"])
async def test_cancelling_in_the_moment_of_ones_turn(first_ends: str) -> None:
    """The connection, or the place for one, is already ours then: the next in line must get it."""
    acts = [silence] if first_ends == "cancelled" else []
    async with world(*acts, connections_max=1) as (pool, server):

        async def ask_then_cancel_the_second() -> None:
            try:
                await pool.ask(REQUEST)
            finally:
                second.cancel()  # the same step of the loop that gave it its turn

        first = asyncio.ensure_future(ask_then_cancel_the_second())
        second, third = (asyncio.ensure_future(pool.ask(REQUEST)) for _ in range(2))
        if first_ends == "cancelled":
            await until(lambda: server.requests == 1)
            first.cancel()
        assert await third == GOOD
        assert second.cancelled()
        assert server.requests == 2
        assert server.connections == (2 if first_ends == "cancelled" else 1)


async def test_cancelling_those_who_wait_with_the_one_they_wait_for() -> None:
    """As time limits do that end together: whoever is passed over when a place is free leaves the line but once."""
    async with world(silence, connections_max=1) as (pool, server):
        first, second, third = (asyncio.ensure_future(pool.ask(REQUEST)) for _ in range(3))
        await until(lambda: server.requests == 1)
        first.cancel()
        second.cancel()
        assert await third == GOOD
        await asyncio.wait([first, second])
        assert first.cancelled()
        assert second.cancelled()


async def test_cancelling_while_connecting() -> None:
    async with world(connections_max=1) as (pool, _):
        for _turn in range(3):
            asking = asyncio.ensure_future(pool.ask(REQUEST))
            await asyncio.wait([asking], timeout=0)
            asking.cancel()
            await asyncio.wait([asking])
        assert await pool.ask(REQUEST) == GOOD


# --- anything at all ------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(parts=st.lists(st.binary(max_size=40), max_size=4), start=st.sampled_from([b"", RESPONSE[:17], RESPONSE]))
@example(parts=[b"\r\nContent-Length: 99999999999999999999\r\n\r\n"], start=RESPONSE[:15])
@example(parts=[b"\0" * 40], start=RESPONSE[:17])
def test_any_bytes_end_in_a_response_or_our_errors_and_the_pool_goes_on(parts: list[bytes], start: bytes) -> None:
    async def scenario() -> None:
        async with world(says_and_closes(start, *parts), connections_max=1) as (pool, _):
            with contextlib.suppress(OSError, BadResponse):
                await pool.ask(REQUEST)
            await until(lambda: pool.connections == 0)
            assert await pool.ask(REQUEST) == GOOD

    asyncio.run(scenario())


def test_on_the_loop_that_the_service_runs_on() -> None:
    """uvloop's transports are not asyncio's."""

    async def scenario() -> None:
        acts = [says(RESPONSE), says_and_closes(), silence]
        async with world(*acts, connections_max=2) as (pool, server):
            assert await pool.ask(REQUEST) == GOOD
            with pytest.raises(ConnectionResetError):
                await pool.ask(REQUEST)
            asking = asyncio.ensure_future(pool.ask(REQUEST))
            await until(lambda: server.requests == 3)
            asking.cancel()
            await until(lambda: server.ended == 2)
            assert await asyncio.gather(*(pool.ask(REQUEST) for _ in range(20))) == [GOOD] * 20
            assert pool.connections == 2

    uvloop.run(scenario())
