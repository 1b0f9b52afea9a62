"""The load generator: raw HTTP requests, made beforehand, over keep-alive connections; one process, very little CPU.

Reads plans (`Plan` as JSON) from standard input, one a line, and writes the result of each (`Report`) as a line. Each
client sends its next request when it has its response (a closed loop): latencies are those of a service that is not
overloaded, and rates are what that many callers get.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from array import array
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast

import msgspec
import uvloop

_LENGTH = b"\r\ncontent-length: "

PlanT = TypeVar("PlanT", bound=msgspec.Struct)


class Plan(msgspec.Struct):
    """What to send."""

    address: str
    requests: list[str]
    """Whole HTTP requests; client n begins with the n-th, and goes round."""
    clients: int
    count: int
    """Requests in all."""
    pause_s: float = 0.0
    """Before each request of a client: for an idle service."""
    ok: str = "HTTP/1.1 2"
    """How every response begins."""


class Report(msgspec.Struct):
    """The result."""

    count: int
    wall_s: float
    cpu_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all do not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class _Client(asyncio.Protocol):
    def __init__(self, run: _Run, number: int) -> None:
        self._run = run
        self._number = number
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none of asyncio's classes

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.failed(f"a connection was closed: {exc}")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def send(self) -> None:
        run = self._run
        if run.left == 0:
            return
        run.left -= 1
        if run.plan.pause_s:
            asyncio.get_running_loop().call_later(run.plan.pause_s, self._write)
        else:
            self._write()

    def _write(self) -> None:
        assert self._transport is not None
        requests = self._run.requests
        self._number += 1
        self._sent_at = time.perf_counter()
        self._transport.write(requests[self._number % len(requests)])

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end >= 0:
            lowered = buffer[:end].lower() + b"\r\n"
            start = lowered.index(_LENGTH) + len(_LENGTH)
            length = int(lowered[start : lowered.index(b"\r\n", start)])
            if len(buffer) >= end + 4 + length:
                self._buffer = b""
                if buffer.startswith(b"HTTP/1.1 503"):  # shed: sent again at once, and not counted
                    self._write()
                    return
                if not buffer.startswith(self._run.ok):
                    self._run.failed(buffer[:600].decode(errors="replace"))
                    return
                self._run.answered(time.perf_counter() - self._sent_at)
                self.send()
                return
        self._buffer = buffer


class _Run:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.ok = plan.ok.encode()
        self.requests = [request.encode() for request in plan.requests]
        self.left = plan.count
        self._latencies = array("d")
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answered(self, seconds: float) -> None:
        self._latencies.append(seconds)
        if len(self._latencies) == self.plan.count and not self._done.done():
            self._done.set_result(None)

    def failed(self, why: str) -> None:
        if not self._done.done():
            self._done.set_exception(RuntimeError(why))

    async def go(self) -> Report:
        host, _, port = self.plan.address.partition(":")
        loop = asyncio.get_running_loop()
        clients = []
        for number in range(self.plan.clients):
            _, client = await loop.create_connection(lambda n=number: _Client(self, n), host, int(port))  # type: ignore[misc]
            clients.append(client)
        started, cpu_before = time.perf_counter(), time.process_time()
        for client in clients:
            client.send()
        await self._done
        wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_before
        for client in clients:
            client.close()
        ordered = sorted(1000 * latency for latency in self._latencies)
        return Report(
            count=len(ordered),
            wall_s=wall_s,
            cpu_s=cpu_s,
            p50_ms=statistics.median(ordered),
            p99_ms=percentile(ordered, 0.99),
            p999_ms=percentile(ordered, 0.999),
            max_ms=ordered[-1],
        )


async def _go(plan: Plan) -> Report:
    return await _Run(plan).go()


def carry_out(plan: type[PlanT], go: Callable[[PlanT], Coroutine[Any, Any, object]]) -> None:
    """Be a generator: a plan a line comes on standard input, its report goes to standard output. On the core given."""
    if len(sys.argv) > 1:
        os.sched_setaffinity(0, {int(sys.argv[1])})
    for line in sys.stdin.buffer:
        report = uvloop.run(go(msgspec.json.decode(line, type=plan)))
        sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    carry_out(Plan, _go)
