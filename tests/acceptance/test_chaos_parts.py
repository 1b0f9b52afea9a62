"""What the chaos tests are made of does what they believe: the proxy its damage, the accounts their findings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import TriggerKey
from tests.acceptance.chaos_accounts import (
    GONE_QUEUE,
    LATE_MAX_MS,
    SENT_MS,
    STALL,
    Account,
    Fault,
    Sighting,
    Standing,
    Way,
)
from tests.acceptance.fleet import HANG_S, SECRET
from tests.acceptance.proxy import NO_FAULTS, LinkFaults, Proxy

# --- the proxy --------------------------------------------------------------------------------------------------------

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


# --- the accounts -----------------------------------------------------------------------------------------------------

DUE_MS = 1_750_000_000_000
ASKED_MS = DUE_MS - 60_000
"""Stored long before it is due."""
CALM_FROM_MS = DUE_MS - 1
SIGNER = TokenSigner([SECRET.encode()])


def token(number: int = 1) -> str:
    return SIGNER.sign(JobRef(TokenKind.SCHEDULED, TriggerKey(DUE_MS, number.to_bytes(12, "big"), 0)))


SENT = Sighting(token(), DUE_MS + 10)
AGAIN = Sighting(token(), DUE_MS + 5_000)
MUCH_LATER = Sighting(token(), DUE_MS + LATE_MAX_MS + 1)


def account(
    standing: Standing = Standing.ACCEPTED,
    *deliveries: Sighting,
    policy: str = "SCHEDULED",
    queue: str = "work",
    dead_letters: tuple[Sighting, ...] = (),
    stored: tuple[Sighting, ...] = (),
    cancelled: bool = False,
) -> Account:
    return Account(
        "1", queue, policy, ASKED_MS, ASKED_MS + 10, standing, token() if standing is Standing.ACCEPTED else "",
        cancelled=cancelled, deliveries=list(deliveries), dead_letters=list(dead_letters), stored=list(stored),
    )  # fmt: skip


def fault(way: Way, at_ms: int) -> Fault:
    return Fault("something", way, at_ms, at_ms)


@pytest.mark.parametrize(
    "fine",
    [
        account(Standing.ACCEPTED, SENT),
        account(stored=(SENT,)),
        account(cancelled=True),
        account(queue=GONE_QUEUE, dead_letters=(SENT,)),
        account(Standing.REFUSED),
        account(Standing.DOUBTFUL),
        account(Standing.DOUBTFUL, SENT),
    ],
)
def test_a_job_is_in_one_place_as_promised(fine: Account) -> None:
    assert fine.wrong([], CALM_FROM_MS) == []


@pytest.mark.parametrize(
    ("broken", "finding"),
    [
        (account(), "LOST"),
        (account(Standing.ACCEPTED, SENT, cancelled=True), "CANCELLED"),
        (account(stored=(SENT,), cancelled=True), "CANCELLED"),
        (account(Standing.REFUSED, SENT), "REFUSED"),
        (account(Standing.ASKED), "its client"),
        (account(Standing.ACCEPTED, SENT, AGAIN), "DUPLICATE"),
        (account(Standing.ACCEPTED, SENT, stored=(SENT,)), "DUPLICATE"),
        (account(Standing.DOUBTFUL, SENT, AGAIN), "DUPLICATE"),
        (account(Standing.DOUBTFUL, SENT, Sighting(token(2), DUE_MS + 10)), "made twice"),
        (account(Standing.ACCEPTED, Sighting(token(2), DUE_MS + 10)), "there under a foreign token"),
        (account(Standing.ACCEPTED, Sighting(token(), DUE_MS - 1)), "EARLY"),
        (account(Standing.ACCEPTED, MUCH_LATER), "LATE"),
        (account(dead_letters=(SENT,)), "wrongly dead-lettered"),
        (account(Standing.ACCEPTED, SENT, queue=GONE_QUEUE), "wrongly dead-lettered"),
    ],
)
def test_anything_else_is_wrong(broken: Account, finding: str) -> None:
    assert any(sentence.startswith(finding) for sentence in broken.wrong([], CALM_FROM_MS))


@pytest.mark.parametrize(
    ("happened", "excused"),
    [
        (fault(Way.DISPATCHER, DUE_MS + 5), True),
        (fault(Way.DISPATCHER, DUE_MS - 5), False),
        (fault(Way.DISPATCHER, DUE_MS + 10 + SENT_MS + 1), False),
        (fault(Way.INGESTER, ASKED_MS + 1_000), True),
        (fault(Way.INGESTER, DUE_MS + 5), False),
        (fault(Way.API, ASKED_MS + 5), True),
        (fault(Way.API, ASKED_MS + 1_000), False),
        (fault(Way.ANY, DUE_MS + 5), True),
        (fault(Way.NONE, DUE_MS + 5), False),
    ],
)
def test_a_duplicate_is_excused_by_what_happened_where_and_when_the_job_was(happened: Fault, *, excused: bool) -> None:
    again = account(Standing.ACCEPTED, SENT, AGAIN)
    assert (again.wrong([happened], CALM_FROM_MS) == []) == excused


def test_a_job_may_be_late_when_nothing_runs_at_all() -> None:
    late = account(Standing.ACCEPTED, MUCH_LATER)
    assert late.wrong([Fault(STALL, Way.ANY, DUE_MS - 1_000, DUE_MS + 4_000)], CALM_FROM_MS) == []


def test_a_process_that_is_frozen_repeats_only_what_it_was_doing() -> None:
    again = account(Standing.ACCEPTED, SENT, AGAIN)
    frozen = Fault("SIGSTOP", Way.DISPATCHER, DUE_MS - 1_000, DUE_MS + 4_000, strikes_s=0.05)
    assert again.wrong([frozen], CALM_FROM_MS) != []
    assert again.wrong([frozen._replace(from_ms=DUE_MS - 20)], CALM_FROM_MS) == []


def test_a_direct_send_is_never_repeated() -> None:
    again = account(Standing.ACCEPTED, SENT, AGAIN, policy="IMMEDIATE")
    assert again.wrong([fault(Way.ANY, DUE_MS + 5)], CALM_FROM_MS) != []
