"""``dynein serve --workers``: how connections spread, the effect of a dead worker, the cost of shared metrics.

Three ways for processes to share a port, side by side:

* *one socket*: all accept from it (uvicorn's own ``--workers``);
* *a socket each*: ``SO_REUSEPORT``, the kernel chooses by a hash of the addresses;
* *one socket, evenly*: `dynein.server.http_server.SharingServer`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import uvicorn
import uvloop

from benchmarks.results import Report, Table, median, options, spread
from benchmarks.wall import pause
from dynein.server.http_server import Server, SharingServer
from dynein.server.workers.connections import Connections

Way = Literal["one socket", "a socket each", "one socket, evenly"]
WAYS: tuple[Way, ...] = ("one socket", "a socket each", "one socket, evenly")
WORKERS = 4
CONNECTIONS = 64
CONNECTIONS_MAX = 1_000
PATIENCE_S = 1.0
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def _listener(way: Way, port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if way == "a socket each":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(2048)
    return listener


def _serve(way: Way, listener: socket.socket, connections: Connections, number: int) -> None:
    async def app(scope: object, receive: object, send: Callable[..., Any]) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": str(number).encode()})

    config = uvicorn.Config(app, http="httptools", lifespan="off", ws="none", log_config=None, access_log=False)
    if way == "one socket, evenly":
        uvloop.run(SharingServer(config, listener, connections, number, connections_max=CONNECTIONS_MAX).serve())
    else:
        uvloop.run(Server(config, listener, connections_max=CONNECTIONS_MAX).serve())


@contextlib.contextmanager
def _workers(way: Way) -> Iterator[tuple[int, list[int]]]:
    """Port and process ids of `WORKERS` servers that respond with their number."""
    first = _listener(way, 0)
    port = first.getsockname()[1]
    listeners = [first if way != "a socket each" or not n else _listener(way, port) for n in range(WORKERS)]
    with tempfile.TemporaryDirectory() as directory:
        connections = Connections(Path(directory) / "connections", WORKERS)
        pids = []
        for number, listener in enumerate(listeners):
            connections.leave(number)
            pid = os.fork()
            if pid == 0:
                for other in listeners:
                    if other is not listener:
                        other.close()
                with contextlib.suppress(KeyboardInterrupt):
                    _serve(way, listener, connections, number)
                os._exit(0)
            pids.append(pid)
        for listener in listeners:
            listener.close()
        try:
            pause(1.5)  # all have loaded
            yield port, pids
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


async def _ask(port: int, opened: list[asyncio.StreamWriter]) -> str:
    """The worker that responds over a new connection, which stays open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    opened.append(writer)
    writer.write(REQUEST)
    await reader.readuntil(b"\r\n\r\n")
    return (await reader.readexactly(1)).decode()


def spread_over_workers(way: Way) -> list[int]:
    """Connections of each worker, the most first; opened one after the other, as a client's pool grows."""

    async def go(port: int) -> list[int]:
        opened: list[asyncio.StreamWriter] = []
        answers = Counter([await _ask(port, opened) for _ in range(CONNECTIONS)])
        return sorted((answers[str(number)] for number in range(WORKERS)), reverse=True)

    with _workers(way) as (port, _):
        return asyncio.run(go(port))


def while_one_is_frozen(way: Way) -> dict[str, int]:
    """Of connections opened while a worker is frozen and then killed: how many got a response, waited, broke."""

    async def go(port: int, pid: int) -> dict[str, int]:
        opened: list[asyncio.StreamWriter] = []
        os.kill(pid, signal.SIGSTOP)
        asking = [asyncio.ensure_future(_ask(port, opened)) for _ in range(CONNECTIONS)]
        answered, waiting = await asyncio.wait(asking, timeout=PATIENCE_S)
        os.kill(pid, signal.SIGKILL)
        broken: set[asyncio.Future[str]] = set()
        if waiting:
            ended, _ = await asyncio.wait(waiting, timeout=PATIENCE_S)
            broken = {one for one in ended if one.exception() is not None}
        for one in waiting:
            one.cancel()
        return {"answered": len(answered), "waited": len(waiting), "broken": len(broken)}

    with _workers(way) as (port, pids):
        return asyncio.run(go(port, pids[0]))


# In a process of its own: the kind of metrics is chosen once, on import. Prints microseconds and milliseconds.
_METRICS = """
import json, os, sys, time
from pathlib import Path
workers = int(sys.argv[1])
if workers:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = sys.argv[2]
from prometheus_client import values
from dynein.observability.telemetry import Telemetry
directory = Path(sys.argv[2]) if workers else None
for number in range(max(1, workers)):
    if workers:
        values.ValueClass = values.MultiProcessValue(lambda number=number: number)
    telemetry = Telemetry(workers_directory=directory)
    for queue in range(20):
        for role in ("ingester", "dispatcher"):
            telemetry.delivered.labels(role, f"queue-{queue}").inc()
    for operation in range(20):
        telemetry.aws_calls.labels(f"Operation{operation}", "ok").inc()
labels = "dispatcher", "queue-1"
counter, histogram = telemetry.delivered.labels(*labels), telemetry.lateness.labels(*labels)
def cost(times, what):
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        for _ in range(times):
            what()
        best = min(best, (time.process_time() - began) / times)
    return best
print(json.dumps({
    "inc_us": cost(100_000, counter.inc) * 1e6,
    "observe_us": cost(100_000, lambda: histogram.observe(0.004)) * 1e6,
    "scrape_ms": cost(20, telemetry.exposition) * 1e3,
}))
"""


def metrics_cost(workers: int) -> dict[str, float]:
    """CPU for one count, one observation, one scrape; ``workers`` 0: the metrics of a single process."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as directory:
        command = [sys.executable, "-c", _METRICS, str(workers), directory]
        found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return found


def run(arguments: Sequence[str] | None = None) -> None:
    given = options(__doc__, arguments)
    report = Report("workers", given)

    table = Table("spread", f"{CONNECTIONS} kept connections over {WORKERS} workers: those of each, the most first")
    for way in WAYS:
        runs = [spread_over_workers(way) for _ in range(given.repeats)]
        each = {f"worker {place + 1}": median(run[place] for run in runs) for place in range(WORKERS)}
        table.add(way=way, **each, busiest_over_fair_share=spread(run[0] * WORKERS / CONNECTIONS for run in runs))
    report.add(table)

    table = Table("frozen", f"{CONNECTIONS} connections while one of {WORKERS} workers is frozen, and then killed")
    table.notes = f"waited: no response within {PATIENCE_S:.0f} s; broken: of those, ended with an error at the kill."
    for way in WAYS:
        counts = [while_one_is_frozen(way) for _ in range(given.repeats)]
        table.add(way=way, **{name: spread(count[name] for count in counts) for name in counts[0]})
    report.add(table)

    table = Table("metrics", "CPU of metrics: of one process, and shared by several")
    for workers in (0, 2, 8):
        costs = [metrics_cost(workers) for _ in range(given.repeats)]
        name = f"{workers} workers" if workers else "one process"
        table.add(metrics=name, **{name: spread(cost[name] for cost in costs) for name in costs[0]})
    report.add(table)
    report.write()


if __name__ == "__main__":
    run()
