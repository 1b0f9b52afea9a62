"""What one connection may cost, row by row of the table in `dynein.server.http_protocol`, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynein.server.http_protocol import (
    BODY_GRACE_S,
    BODY_WITHIN_S,
    HEAD_BYTES_MAX,
    HEAD_WITHIN_S,
    HEADERS_MAX,
    PIPELINED_MAX,
    RESPONSE_STALLED_S,
    Phase,
    Refusal,
)
from tests.unit.server.raw_http import Client, Served, echo, served

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def post(body: bytes, *, declared: int | None = None) -> bytes:
    length = len(body) if declared is None else declared
    return b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (length, body)


async def send_until_closed(client: Client, piece: bytes) -> None:
    """Send without end. It returns when the server has closed the connection."""
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionError):
            while True:
                await client.send(piece)


# --- heads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "piece",
    [b"x: " + b"y" * 1000 + b"\r\n", b"y" * 1000, b"a:b\r\n" * 200],
    ids=["many headers", "one header", "short headers"],
)
async def test_a_head_without_end_is_refused(piece: bytes) -> None:
    async with served() as server:
        client = await server.connect()
        await client.send(b"GET / HTTP/1.1\r\nhost: x\r\nx-first: ")
        await send_until_closed(client, piece)


async def test_a_path_without_end_is_refused() -> None:
    async with served() as server:
        client = await server.connect()
        await client.send(b"GET /" + b"a" * (HEAD_BYTES_MAX + 4096))
        assert await client.problem() == (431, "headers-too-large")


async def test_heads_up_to_the_bound_pass() -> None:
    async with served() as server:
        client = await server.connect()
        headers = b"".join(b"x-%d: %b\r\n" % (n, b"y" * 200) for n in range(HEADERS_MAX - 1))
        for _ in range(2):
            await client.send(b"GET / HTTP/1.1\r\nhost: x\r\n" + headers + b"\r\n")
            assert await client.response() == (200, b"GET 0")


@pytest.mark.parametrize("start", [b"", b"GET / HTT"])
async def test_who_sends_no_whole_head_in_time_is_closed(start: bytes) -> None:
    async with served() as server:
        client = await server.connect()
        await client.send(start)
        await server.until(lambda: [c.phase for c in server.connections] == [Phase.HEAD if start else Phase.IDLE])
        server.pass_time(HEAD_WITHIN_S - 1)
        assert not server.connections[0].transport.is_closing()
        server.pass_time(3)
        if start:
            assert await client.problem() == (408, "request-timeout")
        assert await client.is_closed()


# --- bodies -----------------------------------------------------------------------------------------------------------


async def test_a_body_that_stops_is_refused_and_frees_what_it_held() -> None:
    async with served() as server:
        client = await server.connect()
        await client.send(post(b"x" * 1000, declared=2000))
        await server.until(lambda: Phase.BODY in {c.phase for c in server.connections})
        server.pass_time(BODY_GRACE_S + 2)
        assert await client.problem() == (408, "request-timeout")
        assert await client.is_closed()
        other = await server.connect()
        await other.send(GET)
        assert await other.response() == (200, b"GET 0"), "the others are not meant"


async def test_a_body_that_comes_steadily_passes_but_not_for_ever() -> None:
    async with served() as server:
        client = await server.connect()
        await client.send(post(b"x" * 1_000_000, declared=10_000_000))
        await server.until(lambda: any(c._body_bytes == 1_000_000 for c in server.connections))
        server.pass_time(BODY_GRACE_S + 20)
        assert server.connections[0].phase is Phase.BODY, "fast enough on the average"
        server.pass_time(BODY_WITHIN_S)
        assert await client.problem() == (408, "request-timeout")


async def test_a_body_that_we_do_not_read_is_not_called_slow() -> None:
    turn = asyncio.Event()

    async def busy(scope: Any, receive: Any, send: Any) -> None:
        await turn.wait()
        await echo(scope, receive, send)

    async with served(busy) as server:
        client = await server.connect()
        sending = asyncio.ensure_future(client.send(post(b"x" * 8_000_000)))
        await server.until(lambda: any(c.flow.read_paused for c in server.connections))
        server.pass_time(BODY_WITHIN_S + 60)
        turn.set()
        assert await client.response() == (200, b"POST 8000000")
        await sending


async def test_a_body_in_crumbs_is_refused() -> None:
    async with served() as server:
        client = await server.connect()
        await client.send(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        await send_until_closed(client, b"1\r\nx\r\n" * 1000)


async def test_chunks_of_a_usual_size_pass() -> None:
    async with served() as server:
        client = await server.connect()
        await client.send(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(500):
            await client.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
        await client.send(b"0\r\n\r\n")
        assert await client.response() == (200, b"POST 512000")


@pytest.mark.parametrize("trailer", [b"x: y\r\n", b"y" * 1000])
async def test_trailers_without_end_are_refused(trailer: bytes) -> None:
    async with served() as server:
        client = await server.connect()
        await client.send(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-first: ")
        await send_until_closed(client, trailer * 100)


# --- pipelines and responses ------------------------------------------------------------------------------------------


async def test_pipelined_requests_are_all_answered_in_order() -> None:
    async with served() as server:
        client = await server.connect()
        await client.send(b"".join(post(b"x" * n) for n in range(2000)))
        assert [await client.response() for _ in range(2000)] == [(200, b"POST %d" % n) for n in range(2000)]


async def test_pipelined_requests_whose_responses_are_not_read_do_not_pile_up() -> None:
    async def large(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert scope["type"] == "http"
        headers = [(b"content-length", b"100000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * 100_000})

    async with served(large) as server:
        client = await server.connect()
        client._writer.write(GET * 300_000)
        await server.until(lambda: any(c.flow.read_paused and c.flow.write_paused for c in server.connections))
        (connection,) = server.connections
        assert len(connection.pipeline) <= PIPELINED_MAX + 100, "one piece may hold a hundred"
        assert len(connection._unparsed) <= 1_000_000
        server.pass_time(RESPONSE_STALLED_S + 2)
        await server.until(lambda: not server.connections)


async def test_whoever_makes_a_response_learns_that_nobody_waits_for_it() -> None:
    begun, learned = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        assert (await receive())["type"] == "http.request"
        begun.set()
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        learned.set()

    async with served(slow) as server:
        client = await server.connect()
        await client.send(GET * 3)
        await begun.wait()
        await server.until(lambda: len(server.connections[0].pipeline) == 2)
        writes: list[bytes] = []
        server.connections[0].transport.write = writes.append  # type: ignore[method-assign, assignment]
        await client.close()
        async with asyncio.timeout(60):
            await learned.wait()
        assert writes == [], "what is written to a transport that has ended raises, with uvloop"


@pytest.mark.parametrize("next_one", [b"\0", b"GET \0", b"GET / HTTP/1.1\r\nhost : x\r\n\r\n", GET[:-2] + b"\0"])
async def test_a_refusal_does_not_take_the_place_of_an_earlier_response(next_one: bytes) -> None:
    turn = asyncio.Event()

    async def busy(scope: Any, receive: Any, send: Any) -> None:
        await turn.wait()
        await echo(scope, receive, send)

    async with served(busy) as server:
        client = await server.connect()
        await client.send(post(b"a job that is accepted") + next_one)
        assert await client.is_closed(), "without a word: the first request would take it for its own"
        turn.set()


async def test_rubbish_is_answered_with_a_problem() -> None:
    async with served() as server:
        client = await server.connect()
        await client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # TLS
        assert await client.problem() == (400, "malformed-http")
        assert await client.is_closed()


async def test_half_a_body_at_the_end_of_the_server_is_told_that_it_ends() -> None:
    async with served() as server:
        client = await server.connect()
        await client.send(post(b"x" * 10, declared=2000))
        await server.until(lambda: Phase.BODY in {c.phase for c in server.connections})
        server.server.should_exit = True
        assert await client.problem() == (503, "draining")
        assert await client.is_closed()


# --- many -------------------------------------------------------------------------------------------------------------


async def test_past_the_bound_idle_connections_make_room_for_new_ones() -> None:
    async with served(connections_max=20) as server:
        for _ in range(20):
            await server.connect()
        await server.until(lambda: len(server.connections) == 20)
        for _ in range(50):
            client = await server.connect()
            await client.send(GET)
            assert await client.response() == (200, b"GET 0")
        assert len(server.connections) <= 20


async def test_where_none_is_idle_new_ones_wait() -> None:
    async with served(connections_max=3) as server:
        busy = [await server.connect() for _ in range(3)]
        for client in busy:
            await client.send(post(b"x", declared=2))
        await server.until(lambda: [c.phase for c in server.connections] == [Phase.BODY] * 3)
        late = await server.connect()
        await late.send(GET)
        await busy[0].send(b"y")
        assert await busy[0].response() == (200, b"POST 2")
        assert await late.response() == (200, b"GET 0")
        assert len(server.connections) <= 3


# --- whatever comes ---------------------------------------------------------------------------------------------------

_PARTS = st.one_of(
    st.binary(max_size=300),
    st.sampled_from(
        [
            GET, post(b"hello"), post(b"x" * 5000), post(b"", declared=10), b"\r\n", b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n",
            b"transfer-encoding: chunked\r\n", b"content-length: 5\r\n", b"content-length: -1\r\n", b"5\r\nhello\r\n",
            b"0\r\n\r\n", b"expect: 100-continue\r\n", b"connection: close\r\n",
            b"connection: upgrade\r\nupgrade: x\r\n",
            b"HTTP/1.0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"x" * 4096,
        ]
    ),
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(_PARTS, max_size=12))
def test_whatever_one_connection_sends_the_next_is_served(parts: list[bytes]) -> None:
    async def run() -> None:
        async with served() as server:
            await _abuse(server, parts)
            client = await server.connect()
            await client.send(post(b"hello"))
            assert await client.response() == (200, b"POST 5")

    asyncio.run(run())


async def _abuse(server: Served, parts: list[bytes]) -> None:
    client = await server.connect()
    with contextlib.suppress(ConnectionError):
        for part in parts:
            await client.send(part)


# --- want of room -----------------------------------------------------------------------------------------------------


class Bouncer:
    """Lets in whom a test says."""

    def __init__(self) -> None:
        self.open = False
        self.asked: list[tuple[bytes, int]] = []

    def admit(
        self, path: bytes, peer: str, headers: Iterable[tuple[bytes, bytes]], body_bytes: int, in_progress: int
    ) -> Refusal | None:
        assert peer == "127.0.0.1"
        assert in_progress >= 0
        assert (b"host", b"x") in headers
        self.asked.append((path, body_bytes))
        return None if self.open else Refusal(503, b"content-length: 4\r\nretry-after: 1\r\n", b"full")


async def test_a_refused_request_is_answered_at_once_and_its_body_dropped() -> None:
    async def never(scope: Any, *_: Any) -> None:
        raise AssertionError(scope)

    bouncer = Bouncer()
    async with served(never, gate=bouncer) as server:
        client = await server.connect()
        for size in (0, 5, 10_000):
            await client.send(post(b"x" * size))
            assert await client.response() == (503, b"full")
    assert bouncer.asked == [(b"/", 0), (b"/", 5), (b"/", 10_000)]


async def test_after_a_refusal_the_connection_serves_what_is_let_in() -> None:
    bouncer = Bouncer()
    async with served(gate=bouncer) as server:
        client = await server.connect()
        await client.send(post(b"hello"))
        assert await client.response() == (503, b"full")
        bouncer.open = True
        await client.send(post(b"hello"))
        assert await client.response() == (200, b"POST 5")


@pytest.mark.parametrize("request_", [post(b"", declared=1_000_000), b"GET / HTTP/1.0\r\nhost: x\r\n\r\n"])
async def test_where_its_body_is_large_or_it_is_the_last_the_connection_is_closed(request_: bytes) -> None:
    async with served(gate=Bouncer()) as server:
        client = await server.connect()
        await client.send(request_)
        assert await client.response() == (503, b"full")
        assert await client.is_closed()


async def test_a_flood_of_refused_requests_waits_at_its_sender() -> None:
    bouncer = Bouncer()
    async with served(gate=bouncer) as server:
        client = await server.connect()
        flood = asyncio.ensure_future(client.send(GET * 500_000))
        assert await client.response() == (503, b"full")
        await server.until(lambda: len(bouncer.asked) >= 3)
        other = await server.connect()
        bouncer.open = True
        await other.send(GET)
        assert await other.response() == (200, b"GET 0")
        assert len(bouncer.asked) < 1000
        flood.cancel()
