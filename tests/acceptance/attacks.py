"""What somebody who can reach the port may try, each on one real process. Every attack ends by itself.

They come from an address of their own (127.0.0.2), as from another machine: who is served is decided by address.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import random
from collections.abc import Awaitable, Callable, Iterable

from tests.acceptance.fleet import pause
from tests.http.raw_cases import CASES, JOB, LENGTH, request

MIB = 1024 * 1024
LARGEST = 16 * MIB
FROM = "127.0.0.2"
STUCK_S = 1.0
"""A server that takes no more for so long has had enough of it: then the attack is over."""

Attack = Callable[["Attacker"], Awaitable[None]]


class Attacker:
    """Knows the port, and holds connections open until `release`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._held: list[asyncio.StreamWriter] = []
        self.statuses: list[int] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port, local_addr=(FROM, 0), limit=2**24)

    async def send(self, *pieces: bytes) -> None:
        """Send on one connection, and read the response if there is one."""
        reader, writer = await self.connect()
        try:
            for piece in pieces:
                writer.write(piece)
                async with asyncio.timeout(60):
                    await writer.drain()
            writer.write(b"")
            await self._status(reader)
        except ConnectionError:
            pass  # refused in the middle of it
        finally:
            writer.transport.abort()

    async def post(self, path: str, body: bytes, headers: bytes = b"") -> None:
        line = b"POST %b HTTP/1.1" % path.encode()
        await self.send(request(b"content-length: %d\r\n%b" % (len(body), headers), b"", line), body)

    async def send_until_stuck(self, start: bytes, piece: bytes, total: int) -> None:
        """Send again and again without reading, until the server closes or reads no more."""
        _, writer = await self.connect()
        try:
            writer.write(start)
            for _ in range(total // len(piece)):
                writer.write(piece)
                async with asyncio.timeout(STUCK_S):
                    await writer.drain()
                await pause(0)  # the other callers live on the same event loop
        except (ConnectionError, TimeoutError):
            pass
        finally:
            writer.transport.abort()

    async def hold(self, start: bytes) -> None:
        """Send something, then nothing, and keep the connection open."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            _, writer = await self.connect()
            self._held.append(writer)
            writer.write(start)
            async with asyncio.timeout(STUCK_S):
                await writer.drain()

    async def _status(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(60):
                head = await reader.readuntil(b"\r\n\r\n")
            self.statuses.append(int(head.split(b" ", 2)[1]))

    def release(self) -> None:
        for writer in self._held:
            writer.transport.abort()


def filled(start: bytes, piece: bytes, end: bytes, size: int = LARGEST) -> bytes:
    return start + piece * ((size - len(start) - len(end)) // len(piece)) + end


async def heads_without_end(attacker: Attacker) -> None:
    for piece in (b"x: " + b"y" * 1000 + b"\r\n", b"y" * 1000, b"a:b\r\n" * 200):
        await attacker.send_until_stuck(b"GET / HTTP/1.1\r\nhost: localhost\r\nx-a: ", piece * 50, 48 * MIB)


async def responses_never_read(attacker: Attacker) -> None:
    many = b"GET /docs HTTP/1.1\r\nhost: localhost\r\n\r\n" * 1_000
    for _ in range(4):
        await attacker.send_until_stuck(b"", many, 14 * MIB)


async def uploads_that_stop(attacker: Attacker) -> None:
    for _ in range(16):
        head = request(b"content-length: %d\r\n" % LARGEST, b"", b"POST /v1/jobs/batch HTTP/1.1")
        await attacker.hold(head + b" " * (2 * MIB))


async def connections_without_a_word(attacker: Attacker) -> None:
    for _ in range(300):
        await attacker.hold(b"")
    for _ in range(100):
        await attacker.hold(b"GET / HTTP/1.1\r\n")


async def bodies_too_large(attacker: Attacker) -> None:
    for _ in range(5):
        await attacker.post("/v1/jobs/batch", b" " * (LARGEST + 1))
        chunk = b"%x\r\n%b\r\n" % (MIB, b" " * MIB)
        await attacker.send(
            request(b"transfer-encoding: chunked\r\n", b"", b"POST /v1/jobs/batch HTTP/1.1"), *[chunk] * 17
        )


async def bodies_in_crumbs(attacker: Attacker) -> None:
    start = request(b"transfer-encoding: chunked\r\n")
    await attacker.send_until_stuck(start, b"1\r\nx\r\n" * 1000, 4 * MIB)


async def batches_of_nothing(attacker: Attacker) -> None:
    for start, piece, end in (
        (b'{"jobs":[', b"1,", b"1]}"),
        (b'{"jobs":[', b"{},", b"{}]}"),
        (b'{"jobs":["\\ud800",', b"[],", b"1]}"),
        (b"{", b'"jobs":[1],', b'"jobs":[1]}'),
        (b'{"jobs":[[', b"{},", b"1]]}"),
        (b'{"jobs":', b"[", b""),
    ):
        await attacker.post("/v1/jobs/batch", filled(start, piece, end))


async def batches_of_wrong_jobs(attacker: Attacker) -> None:
    for job in (b'{"queue":"demo","body":"x","%b":1}' % (b"y" * 90), b'{"queue":"%b","body":"x"}' % (b"q" * 600)):
        await attacker.post("/v1/jobs/batch", b'{"jobs":[' + b",".join([job] * 1000) + b"]}")


async def single_jobs_of_many_parts(attacker: Attacker) -> None:
    job = b'{"queue":"demo","body":"x",'
    for size in (LARGEST, MIB):
        for body in (
            job + b'"attributes":{' + b",".join(b'"a%d":1' % n for n in range(size // 12)) + b"}}",
            filled(job + b'"policy":"', b"p", b'"}', size),
            filled(job + b'"delay":', b"9", b"}", size),
            filled(b'{"body":"x","queue":"', b"q", b'"}', size),
            filled(b"{", b'"body":"x",', b'"queue":1}', size),
            filled(b'{"queue":"demo","json":', b"[", b"", size),
        ):
            await attacker.post("/v1/jobs", body)


async def queues_that_do_not_exist(attacker: Attacker) -> None:
    for batch in range(11):
        jobs = [{"queue": f"made-up-{batch}-{n}", "body": "x"} for n in range(1000)]
        disguise = b"x-forwarded-for: 198.51.100.%d\r\n" % batch
        await attacker.post("/v1/jobs/batch", json.dumps({"jobs": jobs}).encode(), disguise)


async def queues_of_dynein(attacker: Attacker) -> None:
    for queue in ("dynein-inbound", "dynein-dead-letter", "http://localhost/000000000000/dynein-inbound"):
        await attacker.post("/v1/jobs", json.dumps({"queue": queue, "body": '{"v":1,"jobs":[]}'}).encode())


async def gzip_bombs(attacker: Attacker) -> None:
    bombs = [gzip.compress(b'{"jobs":[' + b" " * 100 * MIB), gzip.compress(b"") * 10_000, gzip.compress(JOB)[:-1]]
    for bomb in bombs * 3:
        await attacker.post("/v1/jobs/batch", bomb, b"content-encoding: gzip\r\n")
    await attacker.post("/v1/jobs", JOB, b"content-encoding: br\r\n")


async def pages_of_others(attacker: Attacker) -> None:
    await attacker.send(b"POST /v1/jobs HTTP/1.1\r\nhost: evil.example\r\n" + LENGTH + b"\r\n" + JOB)
    await attacker.post("/v1/jobs", JOB, b"origin: https://evil.example\r\ncontent-type: text/plain\r\n")


async def no_requests_at_all(attacker: Attacker) -> None:
    rng = random.Random(1)
    for _ in range(100):
        await attacker.send(rng.randbytes(rng.randrange(1, 2_000)) + b"\r\n\r\n")
    for case in CASES.values():
        await attacker.send(case.sent)


async def many_callers_at_once(attacker: Attacker) -> None:
    async def one() -> None:
        for _ in range(20):
            await attacker.send(request(LENGTH, JOB))

    await asyncio.gather(*(one() for _ in range(50)))


async def full_batches_at_once(attacker: Attacker) -> None:
    batch = full_batch()
    await asyncio.gather(*(attacker.post("/v1/jobs/batch", batch) for _ in range(6)))


ATTACKS: Iterable[Attack] = (
    uploads_that_stop,
    connections_without_a_word,
    heads_without_end,
    responses_never_read,
    bodies_too_large,
    bodies_in_crumbs,
    batches_of_nothing,
    batches_of_wrong_jobs,
    single_jobs_of_many_parts,
    queues_that_do_not_exist,
    queues_of_dynein,
    gzip_bombs,
    pages_of_others,
    no_requests_at_all,
    many_callers_at_once,
    full_batches_at_once,
)


def full_batch() -> bytes:
    """A batch that is as large as it may be, and right."""
    text = os.urandom(5_800).hex()
    return json.dumps({"jobs": [{"queue": "demo", "body": text, "delay": "1h"}] * 1000}).encode()
