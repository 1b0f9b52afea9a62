"""The proxy does the damage that it is told to do, and no other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from tests.acceptance.fleet import HANG_S
from tests.acceptance.proxy import NO_FAULTS, LinkFaults, Proxy

ANSWER_BYTES = 100


class Upstream(NamedTuple):
    """Answers each line with `ANSWER_BYTES` bytes."""

    proxy: Proxy
    heard: list[bytes]
    news: asyncio.Event

    async def ask(self, line: bytes) -> bytes:
        """The answer to one line, over a new connection."""
        port = int(self.proxy.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(line)
            async with asyncio.timeout(HANG_S):
                return await reader.readexactly(ANSWER_BYTES)
        finally:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    heard: list[bytes] = []
    news = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                heard.append(line)
                news.set()
                writer.write(b"x" * ANSWER_BYTES)
                await writer.drain()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, Proxy(server.sockets[0].getsockname()[1], seed=1) as proxy:
        yield Upstream(proxy, heard, news)


async def test_without_faults_everything_passes() -> None:
    async with upstream() as far:
        assert await far.ask(b"hello\n") == b"x" * ANSWER_BYTES
        assert far.heard == [b"hello\n"]


async def test_a_reset_request_is_not_delivered() -> None:
    async with upstream() as far:
        far.proxy.faults = LinkFaults(reset=1)
        with pytest.raises(ConnectionResetError):
            await far.ask(b"hello\n")
        assert (far.heard, far.proxy.counts.reset) == ([], 1)


async def test_a_lost_answer_is_cut_off_and_its_request_was_delivered() -> None:
    async with upstream() as far:
        far.proxy.faults = LinkFaults(lose_answer=1)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)) as cut_off:
            await far.ask(b"hello\n")
        if isinstance(cut_off.value, asyncio.IncompleteReadError):
            assert len(cut_off.value.partial) <= ANSWER_BYTES // 2
        assert (far.heard, far.proxy.counts.answers_lost) == ([b"hello\n"], 1)


async def test_a_black_hole_delivers_late_what_nobody_waits_for_any_more() -> None:
    async with upstream() as far:
        far.proxy.faults = LinkFaults(black_hole=True)
        asking = asyncio.ensure_future(far.ask(b"hello\n"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asking, 0.3)
        assert far.heard == []
        far.proxy.faults = NO_FAULTS
        async with asyncio.timeout(HANG_S):
            await far.news.wait()
        assert far.heard == [b"hello\n"]


async def test_refused_connections_are_refused_until_it_listens_again() -> None:
    async with upstream() as far:
        far.proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await far.ask(b"hello\n")
        await far.proxy.listen()
        await far.ask(b"hello again\n")


async def test_every_open_connection_is_reset_at_once() -> None:
    async with upstream() as far:
        far.proxy.faults = LinkFaults(answer_delay_s=HANG_S)
        asking = [asyncio.ensure_future(far.ask(b"%d\n" % i)) for i in range(3)]
        async with asyncio.timeout(HANG_S):
            while len(far.heard) < len(asking):
                far.news.clear()
                await far.news.wait()
        far.proxy.reset_all()
        ends = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(end) for end in ends] == [ConnectionResetError] * 3


async def test_a_mute_link_delivers_requests_at_once_and_keeps_their_answers_back() -> None:
    async with upstream() as far:
        far.proxy.faults = LinkFaults(mute=True)
        asking = asyncio.ensure_future(far.ask(b"hello\n"))
        async with asyncio.timeout(HANG_S):
            await far.news.wait()
        done, _ = await asyncio.wait((asking,), timeout=0.1)
        assert (far.heard, done) == ([b"hello\n"], set())
        far.proxy.faults = NO_FAULTS
        assert await asking == b"x" * ANSWER_BYTES
