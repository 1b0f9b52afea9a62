"""The whole application over real sockets, byte by byte: requests that are not quite requests, and no requests at all.

Whatever comes, in whatever pieces: the server answers or closes within its deadlines, never with a server error, takes
nothing in a body for a request, and goes on serving the others.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynein.server.http_protocol import BODY_WITHIN_S, GuardedProtocol, Phase
from tests.http.raw_cases import CASES, CHUNKS, JOB, LENGTH, PROBE, SMUGGLED, Case, request
from tests.unit.api.setting import Api
from tests.unit.server.raw_http import Client, Served, served

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
LAST = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


class Target:
    """The application, and a server for it, on an event loop of their own."""

    def __init__(self, runner: asyncio.Runner, server: Served, taken: list[int]) -> None:
        self.runner = runner
        self._server = server
        self._taken = taken

    def answers(self, pieces: list[bytes], *, ended: bool) -> tuple[list[int], bool]:
        """Statuses of the responses, and whether the server closed the connection.

        ``ended``: nothing is missing, so no deadline has to pass.
        """
        return self.runner.run(self._answers(pieces, ended=ended))

    def serves_others(self) -> bool:
        """One more caller, on a connection of its own."""
        return self.answers([request(LENGTH, JOB)], ended=True) == ([202], False)

    async def _answers(self, pieces: list[bytes], *, ended: bool) -> tuple[list[int], bool]:
        self._taken[0] = 0
        client = await self._server.connect()
        await self._server.until(lambda: len(self._server.connections) == 1)
        [connection] = self._server.connections
        await self._send(client, connection, pieces)
        await self._server.until(lambda: not self._is_at_work(connection))
        if not ended and not self._is_closed(connection) and not connection.idle:
            self._server.pass_time(BODY_WITHIN_S + 60)
            assert self._is_closed(connection), "past every deadline"
        closed = self._is_closed(connection)
        if not closed:
            assert connection.idle
            await client.send(LAST)
        text = await self._all(client)
        await client.close()
        await self._server.until(lambda: not self._server.connections)
        statuses = [int(status) for status in _STATUS.findall(text)]
        if not closed:
            assert statuses.pop() == 200, "whoever is not refused may go on"
        return statuses, closed

    async def _send(self, client: Client, connection: GuardedProtocol, pieces: list[bytes]) -> None:
        sent = 0
        for piece in pieces:
            try:
                await client.send(piece)
            except ConnectionError:
                return
            sent += len(piece)
            if await self._is_closed_before(connection, sent):
                return

    async def _is_closed_before(self, connection: GuardedProtocol, taken: int) -> bool:
        await self._server.until(lambda: self._taken[0] >= taken or self._is_closed(connection))
        return self._is_closed(connection)

    def _is_closed(self, connection: GuardedProtocol) -> bool:
        return connection.phase is Phase.CLOSING or connection.transport.is_closing()

    def _is_at_work(self, connection: GuardedProtocol) -> bool:
        """A request is complete, and its response is not."""
        if self._is_closed(connection):
            return False
        cycle: Any = connection._cycle
        answering = cycle is not None and not cycle.response_complete
        return bool(connection.pipeline) or (answering and connection.phase is not Phase.BODY)

    async def _all(self, client: Client) -> bytes:
        text = b""
        try:
            async with asyncio.timeout(60):
                while piece := await client._reader.read(65_536):
                    text += piece
        except ConnectionError:
            pass
        return text


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    taken = [0]
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        receive = GuardedProtocol.data_received

        def count(self: GuardedProtocol, data: bytes) -> None:
            taken[0] += len(data)
            receive(self, data)

        patch.setattr(GuardedProtocol, "data_received", count)
        running = served(Api().app)
        server = runner.run(running.__aenter__())
        yield Target(runner, server, taken)
        runner.run(running.__aexit__(None, None, None))


def split(data: bytes, places: list[int]) -> list[bytes]:
    cuts = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(cuts)]


ATTACK = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PLACES = st.lists(st.integers(0, 2_000), max_size=5)


@pytest.mark.parametrize("name", CASES)
def test_a_request_that_is_not_quite_one(target: Target, name: str) -> None:
    case: Case = CASES[name]
    for pieces in ([case.sent], split(case.sent, [10, 40, 70, len(case.sent) - 5])):
        assert target.answers(pieces, ended=True) == (case.statuses, case.closed)


@ATTACK
@given(name=st.sampled_from(sorted(CASES)), places=PLACES)
def test_it_does_not_matter_in_which_pieces_it_comes(target: Target, name: str, places: list[int]) -> None:
    case = CASES[name]
    assert target.answers(split(case.sent, places), ended=True) == (case.statuses, case.closed)


@ATTACK
@given(data=st.binary(max_size=2_000), places=PLACES)
def test_any_bytes_at_all(target: Target, data: bytes, places: list[int]) -> None:
    statuses, _ = target.answers(split(data, places), ended=False)
    assert all(200 <= status < 500 for status in statuses)
    assert target.serves_others()


LINES = [
    *(
        b"%b %b %b\r\n" % (method, path, version)
        for method in (b"GET", b"POST", b"DELETE", b"PATCH", b"HEAD", b"OPTIONS")
        for path in (
            b"/v1/jobs",
            b"/v1/jobs/batch",
            b"/v1/jobs/AAAA",
            b"/v1/tokens",
            b"/healthz",
            b"/docs",
            b"*",
            b"/%",
        )
        for version in (b"HTTP/1.1", b"HTTP/1.0")
    ),
]
HEADERS = b"""\
host: localhost
content-length: 27
content-length: 0
content-length: 100000
transfer-encoding: chunked
transfer-encoding: gzip
content-encoding: gzip
expect: 100-continue
connection: close
connection: upgrade
upgrade: h2c
upgrade: websocket
origin: https://evil.example
content-type: text/plain
traceparent: 00-0
x-request-id: \x7f
 folded
"""
PARTS = [line + b"\r\n" for line in HEADERS.splitlines()]
PARTS += [b"x: y\n", b"\r\n", b"\r\n\r\n", JOB, CHUNKS, b"5\r\n", b"0\r\n\r\n", b"\0", SMUGGLED, PROBE]


@settings(ATTACK, max_examples=150)
@given(line=st.sampled_from(LINES), parts=st.lists(st.sampled_from(PARTS), max_size=12), places=PLACES)
def test_parts_of_requests_in_any_order(target: Target, line: bytes, parts: list[bytes], places: list[int]) -> None:
    statuses, _ = target.answers(split(line + b"".join(parts), places), ended=False)
    assert all(100 <= status < 500 for status in statuses)


@settings(ATTACK, max_examples=100)
@given(
    name=st.sampled_from(sorted(CASES)),
    changes=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=4),
    places=PLACES,
)
def test_requests_with_bytes_changed(
    target: Target, name: str, changes: list[tuple[int, int]], places: list[int]
) -> None:
    data = bytearray(CASES[name].sent)
    for place, byte in changes:
        data[place % len(data)] = byte
    statuses, _ = target.answers(split(bytes(data), places), ended=False)
    assert all(100 <= status < 500 for status in statuses)
    assert target.serves_others()
