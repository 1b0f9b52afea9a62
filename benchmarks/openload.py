"""A load generator that does not wait: requests are due at a rate, whatever becomes of those before (an open loop).

Reads plans (`Plan` as JSON) from standard input, one a line, and writes a `Report` for each. A plan has several flows,
each from a source address of its own: a caller. A request that is due while all connections of its flow wait for a
response is sent as soon as one is free; the time until then is spent at the client, and is no latency.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from array import array
from collections import Counter, deque
from typing import cast

import msgspec

from benchmarks.loadgen import carry_out, percentile

_LENGTH = b"\r\ncontent-length: "
_STATUS = slice(9, 12)
_TICK_S = 0.002


class Flow(msgspec.Struct):
    """One caller's requests."""

    source: str
    """Its address, in 127.0.0.0/8."""
    rate_per_s: float
    connections: int


class Plan(msgspec.Struct):
    """What to send."""

    address: str
    request: str
    """A whole HTTP request."""
    flows: list[Flow]
    seconds: float


class Result(msgspec.Struct):
    """What came of one flow."""

    due: int
    statuses: dict[str, int]
    p50_ms: float
    p99_ms: float
    max_ms: float
    """Of those that were accepted: from sending to the response."""


class Report(msgspec.Struct):
    """Of all flows, in their order."""

    flows: list[Result]
    wall_s: float


class _Connection(asyncio.Protocol):
    def __init__(self, flow: _Flow) -> None:
        self._flow = flow
        self._buffer = b""
        self._sent_at = 0.0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._flow.free.append(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - counted, whatever it was
        self._flow.lost(self)

    def send(self) -> None:
        assert self.transport is not None
        self._sent_at = time.perf_counter()
        self.transport.write(self._flow.request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end >= 0:
            lowered = buffer[:end].lower() + b"\r\n"
            start = lowered.index(_LENGTH) + len(_LENGTH)
            length = int(lowered[start : lowered.index(b"\r\n", start)])
            if len(buffer) >= end + 4 + length:
                self._buffer = b""
                self._flow.responded(self, buffer[_STATUS].decode(), time.perf_counter() - self._sent_at)
                return
        self._buffer = buffer


class _Flow:
    def __init__(self, flow: Flow, address: str, request: bytes) -> None:
        self.request = request
        self._flow = flow
        host, _, port = address.partition(":")
        self._peer = (host, int(port))
        self.free: deque[_Connection] = deque()
        self.due = 0
        self.sent = 0
        self.statuses: Counter[str] = Counter()
        self.accepted_s = array("d")
        self._began = 0.0
        self._over = False

    async def open(self) -> None:
        for start in range(0, self._flow.connections, 100):
            some = range(start, min(start + 100, self._flow.connections))
            await asyncio.gather(*(self._connect() for _ in some))

    async def run(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        while (passed_s := loop.time() - self._began) < seconds:
            self.due = int(passed_s * self._flow.rate_per_s)
            self._send_due()
            await asyncio.sleep(_TICK_S)  # noqa: TID251 - a load generator

    def end(self) -> Result:
        self._over = True
        for connection in self.free:
            assert connection.transport is not None
            connection.transport.abort()
        ordered = sorted(1000 * seconds for seconds in self.accepted_s)
        return Result(
            self.due,
            dict(self.statuses),
            statistics.median(ordered) if ordered else 0.0,
            percentile(ordered, 0.99),
            ordered[-1] if ordered else 0.0,
        )

    def responded(self, connection: _Connection, status: str, seconds: float) -> None:
        self.statuses[status] += 1
        if status.startswith("2"):
            self.accepted_s.append(seconds)
        self.free.append(connection)
        self._send_due()

    def lost(self, connection: _Connection) -> None:
        if not self._over:
            self.statuses["closed"] += 1
            if connection in self.free:
                self.free.remove(connection)
            asyncio.ensure_future(self._connect())  # noqa: RUF006 - if it fails, that is counted

    def _send_due(self) -> None:
        while self.sent < self.due and self.free:
            self.sent += 1
            self.free.popleft().send()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _Connection(self), *self._peer, local_addr=(self._flow.source, 0))
        except OSError:
            self.statuses["refused"] += 1


async def _go(plan: Plan) -> Report:
    flows = [_Flow(flow, plan.address, plan.request.encode()) for flow in plan.flows]
    for flow in flows:
        await flow.open()
    began = time.perf_counter()
    await asyncio.gather(*(flow.run(plan.seconds) for flow in flows))
    return Report([flow.end() for flow in flows], time.perf_counter() - began)


if __name__ == "__main__":
    carry_out(Plan, _go)
