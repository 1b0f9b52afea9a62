"""Run the endpoint: ``python -m benchmarks.stub --core 1``. Prints its URL, and ends when its standard input does."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import traceback
from typing import cast

import msgspec
import uvloop

from benchmarks.stub.control import Control
from benchmarks.stub.meter import Meter
from benchmarks.stub.queues import Queues
from benchmarks.stub.table import ConditionFailed, Table

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nx-amzn-RequestId: 00000000\r\nContent-Length: %d"
    b"\r\n\r\n"
)
_REFUSED = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: %d\r\n\r\n"
_SQS = b"AmazonSQS"


class Stub:
    """What all connections share."""

    def __init__(self, kept: list[str]) -> None:
        self.meter = Meter()
        self.queues = Queues(self.meter, kept)
        self.table = Table(self.meter)
        self.control = Control(self.meter, self.queues, self.table)


class Connection(asyncio.Protocol):
    """HTTP/1.1, parsed by hand: of a request only target, length and body matter."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none of asyncio's classes

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        while True:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                break
            head = buffer[:end]
            lowered = head.lower()
            body_from = end + 4
            body_to = body_from + int(_header(lowered, lowered, b"\r\ncontent-length:") or 0)
            if len(buffer) < body_to:
                break
            body = buffer[body_from:body_to]
            buffer = buffer[body_to:]
            self._stub.meter.bytes_in += body_to
            self._request(_header(head, lowered, b"\r\nx-amz-target:"), head, body)
        self._buffer = buffer

    def _request(self, target: bytes, head: bytes, body: bytes) -> None:
        try:
            service, _, operation = target.partition(b".")
            if service == _SQS:
                self._stub.queues.handle(operation, body, self._reply)
            elif target:
                self._reply(self._stub.table.handle(operation, body))
            else:
                name = head.split(b" ", 2)[1].decode().removeprefix("/stub/")
                request = msgspec.json.decode(body) if body else {}
                self._reply(msgspec.json.encode(self._stub.control.handle(name, request)))
        except ConditionFailed as failed:
            self._reply(failed.body, _REFUSED)
        except Exception as error:  # noqa: BLE001 - a benchmark must see what the stub cannot serve
            traceback.print_exc()
            said = {"__type": "StubError", "message": f"{type(error).__name__}: {error}"}
            self._reply(msgspec.json.encode(said), _REFUSED)

    def _reply(self, body: bytes, head: bytes = _HEAD) -> None:
        if self._transport is not None:
            self._transport.write(head % len(body) + body)


def _header(head: bytes, lowered: bytes, name: bytes) -> bytes:
    start = lowered.find(name)
    if start < 0:
        return b""
    start += len(name)
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()


async def serve(kept: list[str]) -> None:
    """Serve until standard input ends: the stub ends with the process that started it."""
    loop = asyncio.get_running_loop()
    stub = Stub(kept)
    server = await loop.create_server(lambda: Connection(stub), "127.0.0.1", 0, backlog=2048)
    stub.queues.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    sys.stdout.write(f"{stub.queues.base_url}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", type=int, help="pin to this core")
    parser.add_argument("--keep", nargs="*", default=["dynein-inbound", "dynein-dead-letter"], help="queues to receive")
    given = parser.parse_args()
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})
    # Garbage collection over a million stored triggers would stop the stub for a second, repeatedly.
    gc.disable()
    uvloop.run(serve(given.keep))


if __name__ == "__main__":
    main()
