"""One of several worker processes: what the supervisor starts, as ``python -m dynein.server.workers.worker``.

It inherits the listening sockets and a *lifeline* from its parent: a socket pair, whose other end only the parent
holds. Over it the worker reports when it is ready, and sends a heartbeat each second. When the parent is gone, even by
SIGKILL, the worker reads end of file, drains, and exits. (The kernel's parent-death signal would do that too, but only
on Linux.)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dynein.errors import DyneinError, FatalError
from dynein.observability.events.process import WORKER_ORPHANED
from dynein.observability.logs import configure_logging
from dynein.runtime.clock import SystemClock, sleep_unless
from dynein.server.failure import print_failure
from dynein.server.listener import Listeners
from dynein.server.workers.connections import Connections
from dynein.server.workers.protocol import (
    CONNECTIONS_FILE,
    EX_FATAL,
    EX_TEMPFAIL,
    HEARTBEAT,
    HEARTBEAT_S,
    OVERTIME_S,
    READY,
    Spec,
)
from dynein.settings import Settings, load_settings

if TYPE_CHECKING:
    from dynein.server.service import Service


def main(argument: str) -> int:
    """Run as a worker; the exit code."""
    spec = msgspec.json.decode(argument, type=Spec)
    _share_metrics(spec)
    lifeline = socket.socket(fileno=spec.lifeline)
    listeners = Listeners(_inherited(spec.listener), _inherited(spec.ops_listener))
    for inherited in (lifeline, *listeners.opened):
        inherited.set_inheritable(False)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_Worker(spec, listeners, lifeline).run())
    except DyneinError as error:
        print_failure(error)
        return EX_FATAL if isinstance(error, FatalError) else EX_TEMPFAIL
    return 0


def _inherited(descriptor: int | None) -> socket.socket | None:
    return None if descriptor is None else socket.socket(fileno=descriptor)


def _share_metrics(spec: Spec) -> None:
    """Keep the values of metrics in files that all workers read (prometheus_client's multiprocess mode).

    Files are named by a worker's number, not by its process id: the replacement of a dead worker continues from its
    counts, so that sums never go backwards, and there are only as many files as workers.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = spec.directory
    from prometheus_client import values  # noqa: PLC0415 - reads the environment on import

    values.ValueClass = values.MultiProcessValue(lambda: spec.number)  # type: ignore[no-untyped-call]


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return None
    return uvloop.new_event_loop


class _Worker:
    def __init__(self, spec: Spec, listeners: Listeners, lifeline: socket.socket) -> None:
        self._spec = spec
        self._listeners = listeners
        self._lifeline = lifeline
        self._clock = SystemClock()
        self._directory = Path(spec.directory)
        self._stopping = asyncio.Event()
        self._orphaned = False

    async def run(self) -> None:
        settings = load_settings(self._spec.overrides)
        configure_logging(settings.log_format, settings.log_level, worker=f"worker {self._spec.number}")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        self._lifeline.setblocking(False)
        loop.add_reader(self._lifeline, self._on_lifeline, settings.drain_s)
        service = self._service(settings)
        heartbeat = asyncio.ensure_future(self._heartbeat(service))
        try:
            await service.run(self._stopping)
        finally:
            heartbeat.cancel()
            if self._orphaned:
                self._tidy()

    def _service(self, settings: Settings) -> Service:
        from dynein.observability.telemetry import Telemetry  # noqa: PLC0415
        from dynein.server.http_agent import Sharing  # noqa: PLC0415 - after `_share_metrics`
        from dynein.server.service import Service  # noqa: PLC0415

        connections = Connections(self._directory / CONNECTIONS_FILE, self._spec.workers)
        return Service(
            settings,
            self._spec.roles,
            clock=self._clock,
            telemetry=Telemetry(workers_directory=self._directory),
            listeners=self._listeners,
            sharing=Sharing(connections, self._spec.number),
        )

    def _stop(self, number: int) -> None:
        """The first signal asks to drain, the second ends the process at once."""
        if self._stopping.is_set():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._stopping.set()

    def _on_lifeline(self, drain_s: float) -> None:
        """The parent never writes to it, so the only thing to read is end of file."""
        with contextlib.suppress(BlockingIOError):
            if not self._lifeline.recv(1):
                WORKER_ORPHANED.log()
                asyncio.get_running_loop().remove_reader(self._lifeline)
                self._orphaned = True
                self._stopping.set()
                # No parent is left to end this process if it hangs.
                signal.setitimer(signal.ITIMER_REAL, drain_s + OVERTIME_S)

    async def _heartbeat(self, service: Service) -> None:
        telemetry, label = service.telemetry, str(self._spec.number)
        ready, requests, cpu_s = False, 0, 0.0
        while True:
            self._send(HEARTBEAT)
            if service.started.is_set() and not ready:
                ready = True
                telemetry.worker_starts.labels(label).inc()
                self._send(READY)
            used_s = time.process_time()
            telemetry.worker_cpu.labels(label).inc(used_s - cpu_s)
            cpu_s = used_s
            connections = telemetry.worker_connections.labels(label)
            if service.http is not None:
                server = service.http.server
                state = server.server_state
                telemetry.worker_requests.labels(label).inc(state.total_requests - requests)
                requests = state.total_requests
                connections.set(len(state.connections))
                server.publish()
            elif ready:  # it has none to the API, and is alive
                connections.set(0)
            if ready:
                await self._clock.sleep(HEARTBEAT_S)
            else:
                await sleep_unless(service.started, self._clock, HEARTBEAT_S)

    def _send(self, what: bytes) -> None:
        with contextlib.suppress(OSError):  # the parent is frozen and the buffer full, or it is dead
            self._lifeline.send(what)

    def _tidy(self) -> None:
        """Remove this worker's files; the last of the orphaned workers removes the directory."""
        for file in self._directory.glob(f"*_{self._spec.number}.db"):
            file.unlink(missing_ok=True)
        if not any(self._directory.glob("*.db")):
            shutil.rmtree(self._directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
