"""A TCP proxy that misbehaves on demand, between the fleet and its engine.

It knows nothing of HTTP: whatever comes from the engine is (part of) an answer to a request that was delivered. Who
wants to know what passes brings a `Listener` for each connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from tests.acceptance.fleet import pause

CHUNK_BYTES = 64 * 1024
LAST_REQUEST_S = 2.0
"""How long the engine has for what a caller sent before it hung up."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with a time of 0: closing sends RST in place of FIN, and throws away what was not sent yet."""


class LinkFaults(NamedTuple):
    """What happens to what passes, on connections that are open already too. Chances are those of each chunk."""

    request_delay_s: float = 0.0
    answer_delay_s: float = 0.0
    """Mean; each chunk waits between nothing and twice as long."""
    reset: float = 0.0
    """Chance that a request ends its connection with RST, undelivered (or delivered up to there)."""
    lose_answer: float = 0.0
    """Chance that an answer is cut off in the middle (its request was delivered), then RST."""
    black_hole: bool = False
    """Accept, and pass nothing in either direction. What came in is delivered when it ends, as TCP would, even if the
    one who sent it has given up by then."""
    mute: bool = False
    """Half open: requests pass, and their answers are kept back for as long as this lasts."""


NO_FAULTS = LinkFaults()


class Listener(Protocol):
    """Hears what passes on one connection."""

    def requested(self, chunk: bytes) -> None:
        """This is about to be passed to the upstream."""

    def answered(self, chunk: bytes) -> None:
        """This has come from the upstream."""

    def passed(self) -> None:
        """All that has come from the upstream so far was passed on."""

    def hung_up(self) -> None:
        """The connection has ended, or its caller has no more to say and waits for nothing."""


class _Deaf:
    def requested(self, chunk: bytes) -> None:
        pass

    def answered(self, chunk: bytes) -> None:
        pass

    def passed(self) -> None:
        pass

    def hung_up(self) -> None:
        pass


@dataclass
class Counts:
    """What a proxy has done so far."""

    connections: int = 0
    requests: int = 0
    reset: int = 0
    answers_lost: int = 0
    delivered_late: int = 0


class Proxy:
    """Listens on a free port, while its context is open, and passes everything on to ``upstream_port``.

    Set `faults` at any time. The same seed and the same traffic meet the same fate (real traffic is never the same).
    """

    def __init__(self, upstream_port: int, *, seed: int, listener: Callable[[], Listener] = _Deaf) -> None:
        self._upstream_port = upstream_port
        self._listener = listener
        self._rng = random.Random(seed)
        self._faults = NO_FAULTS
        self._passable = asyncio.Event()
        self._passable.set()
        self._audible = asyncio.Event()
        """Set: answers pass."""
        self._audible.set()
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}
        self._port = 0
        self.counts = Counts()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def faults(self) -> LinkFaults:
        """What happens to what passes."""
        return self._faults

    @faults.setter
    def faults(self, faults: LinkFaults) -> None:
        self._faults = faults
        (self._passable.clear if faults.black_hole else self._passable.set)()
        (self._audible.clear if faults.black_hole or faults.mute else self._audible.set)()

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        while self._links:
            for link in self._links:
                link.cancel()
            await asyncio.gather(*self._links, return_exceptions=True)

    async def listen(self) -> None:
        """Accept connections: from the start, and again after `refuse`."""
        assert self._server is None
        self._server = await asyncio.start_server(self._link, "127.0.0.1", self._port)
        self._port = int(self._server.sockets[0].getsockname()[1])

    def refuse(self) -> None:
        """Listen no more, and reset every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self.reset_all()

    def reset_all(self) -> None:
        """RST on every connection, in both directions, whatever is under way."""
        self.counts.reset += len(self._links)
        for ends in list(self._links.values()):
            _reset(*ends)

    # ----------------------------------------------------------------------------------------------------------------

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links[task] = (writer,)
        self.counts.connections += 1
        listener = self._listener()
        try:
            await self._passable.wait()
            with contextlib.suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
                self._links[task] = (writer, far_writer)
                requests = asyncio.ensure_future(self._pass_requests(reader, far_writer, listener))
                answers = asyncio.ensure_future(self._pass_answers(far_reader, writer, listener))
                await _until_either_ends(requests, answers)
        except asyncio.CancelledError:
            pass  # leaving; asyncio's own callback would log it
        finally:
            listener.hung_up()
            _reset(*self._links.pop(task))

    async def _pass_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener: Listener
    ) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            self.counts.requests += 1
            await self._delay(self._faults.request_delay_s)
            if self._rng.random() < self._faults.reset:
                self.counts.reset += 1
                _reset(writer)
                return
            if not self._passable.is_set():
                self.counts.delivered_late += 1
                await self._passable.wait()
            listener.requested(chunk)
            writer.write(chunk)
            await writer.drain()
        listener.hung_up()

    async def _pass_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener: Listener
    ) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            listener.answered(chunk)
            await self._delay(self._faults.answer_delay_s)
            lost = self._rng.random() < self._faults.lose_answer
            await self._audible.wait()
            writer.write(chunk[: len(chunk) // 2] if lost else chunk)
            await writer.drain()
            if lost:
                self.counts.answers_lost += 1
                return
            listener.passed()

    async def _delay(self, mean_s: float) -> None:
        if mean_s > 0:
            await pause(self._rng.uniform(0, 2 * mean_s))


async def _until_either_ends(requests: asyncio.Future[None], answers: asyncio.Future[None]) -> None:
    try:
        await asyncio.wait((requests, answers), return_when=asyncio.FIRST_COMPLETED)
        # The caller may have hung up on a request that has only now come through.
        await asyncio.wait((answers,), timeout=LAST_REQUEST_S)
    finally:
        requests.cancel()
        answers.cancel()
        ends = await asyncio.gather(requests, answers, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception) and not isinstance(end, OSError):
            raise end  # asyncio logs it: a listener is wrong


def _reset(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        raw = writer.get_extra_info("socket")
        if raw is not None and raw.fileno() >= 0:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        writer.transport.abort()
