"""``dynein serve --workers N``: the parent of N worker processes that share their ports.

The parent opens the ports, starts the workers, and replaces one that has ended. It serves no requests, makes no calls
and holds no jobs: whatever happens to it, the workers drain (`dynein.server.workers.worker`). One worker is started
first, so that an invalid setting or a missing table is reported once, by one process; the others follow when it is
ready.

=====================================  ===============================================================================
event                                  what the parent does
=====================================  ===============================================================================
SIGTERM, SIGINT                        passes it on, waits until all have drained, exits 0
the same again                         kills them and itself
the first worker ends before it is     exits with its exit code; the worker has logged why
ready
a worker ends                          replaces it: at once if it had run for `SHORT_LIFE_S`, otherwise after a pause
                                       that doubles
`SHORT_LIVES_MAX` short lives in a     drains the others and exits with that worker's code: this will not pass by itself
row under one number
the same, but SQS or DynamoDB do not   keeps trying
respond
no heartbeat for `HUNG_S`              kills that worker, as a failed liveness probe would: a probe cannot detect one of
                                       several workers that hangs
the parent is killed                   (nothing.) The workers notice it at once, drain and exit; then the port is free
=====================================  ===============================================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dynein.errors import Unavailable
from dynein.observability.events.process import (
    WORKER_ENDED,
    WORKER_FAILING,
    WORKER_HUNG,
    WORKER_NOT_STARTED,
    WORKERS_KILLED,
    WORKERS_STARTED,
)
from dynein.runtime.backoff import pause_s
from dynein.runtime.clock import Clock, SystemClock, sleep_unless
from dynein.runtime.tasks import all_ended, any_ended, any_set, cancel_all, within
from dynein.server.listener import open_listeners
from dynein.server.workers.connections import Connections
from dynein.server.workers.directory import WorkersDirectory
from dynein.server.workers.process import WorkerProcess
from dynein.server.workers.protocol import CONNECTIONS_FILE, EX_FATAL, EX_TEMPFAIL, HEARTBEAT_S, OVERTIME_S, Spec
from dynein.settings import Settings

SHORT_LIFE_S = 5.0
SHORT_LIVES_MAX = 5
PAUSE_FIRST_S = 1.0
PAUSE_MAX_S = 15.0
HUNG_S = 30.0


class Pace(NamedTuple):
    """Intervals and time limits, in seconds; tests use shorter ones."""

    short_life_s: float = SHORT_LIFE_S
    pause_first_s: float = PAUSE_FIRST_S
    pause_max_s: float = PAUSE_MAX_S
    heartbeat_s: float = HEARTBEAT_S
    hung_s: float = HUNG_S
    overtime_s: float = OVERTIME_S


DEFAULT_PACE = Pace()


# What all workers share (port, directory, counts) and what is known of each; apart, they would be handed around.
class Workers:
    """Worker processes 0 to ``workers`` - 1 of these roles. ``overrides``: settings from the command line."""

    def __init__(
        self,
        settings: Settings,
        roles: Sequence[str],
        workers: int,
        overrides: Mapping[str, str | int],
        *,
        command: Sequence[str] = (sys.executable, "-m", "dynein.server.workers.worker"),
        pace: Pace = DEFAULT_PACE,
    ) -> None:
        assert workers > 0
        self._settings = settings
        self._roles = roles
        self._workers = workers
        self._overrides = overrides
        self._command = command
        self._pace = pace
        self._clock: Clock = SystemClock()
        self._rng = random.Random()  # noqa: S311 - jitter, not secrecy
        self._processes: dict[int, WorkerProcess] = {}
        self._stopping = asyncio.Event()
        self._up = asyncio.Event()
        """A worker has been ready, so settings, credentials and table are valid."""
        self._exit_code = 0

    def run(self) -> int:
        """Run until stopped; returns the exit code. Raises `FatalError` when port or directory cannot be opened."""
        self._directory = WorkersDirectory()
        try:
            self._listeners = open_listeners(self._settings, self._roles)
            self._connections = Connections(self._directory.path / CONNECTIONS_FILE, self._workers)
            for number in range(self._workers):
                self._connections.leave(number)
            with contextlib.closing(self._listeners):
                asyncio.run(self._run())
        finally:
            self._directory.remove()
        return self._exit_code

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        WORKERS_STARTED.log(workers=self._workers, url=self._listeners.url, ops_url=self._listeners.ops_url)
        watching = asyncio.ensure_future(self._watch())
        keepers = [asyncio.ensure_future(self._keep(number)) for number in range(self._workers)]
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await any_ended(stopped, *keepers)
            self._stopping.set()
            self._listeners.close()  # a port is free when the last worker has closed it too
            await self._drain(keepers)
        finally:
            await cancel_all([watching, stopped, *keepers])
        for keeper in keepers:
            keeper.result()

    async def _drain(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        for process in self._processes.values():
            process.terminate()
        within_s = self._settings.drain_s + self._pace.overtime_s
        try:
            await within(within_s, self._clock, all_ended(keepers))
        except Unavailable:
            WORKERS_KILLED.log(within_s=within_s)
            for process in self._processes.values():
                process.kill()
            await all_ended(keepers)
            self._exit_code = self._exit_code or EX_FATAL

    def _on_signal(self, number: int) -> None:
        if self._stopping.is_set():
            for process in self._processes.values():
                process.kill()
            self._directory.remove()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._stopping.set()

    # --- one worker after the other under one number ----------------------------------------------------------------

    async def _keep(self, number: int) -> None:
        """Keep a worker ``number`` running until we stop."""
        if number > 0:
            await self._first_is_ready()
        short_lives = failures = 0
        while not self._stopping.is_set():
            began = self._clock.monotonic()
            code, ready = await self._live(number)
            if self._stopping.is_set():
                return
            if not self._up.is_set():
                self._give_up(code)
                return
            lived_s = self._clock.monotonic() - began
            wait_s = 0.0
            if ready and lived_s >= self._pace.short_life_s:
                short_lives = failures = 0
            else:
                failures += 1
                short_lives += code != EX_TEMPFAIL
                wait_s = pause_s(
                    failures, first_s=self._pace.pause_first_s, max_s=self._pace.pause_max_s, rng=self._rng
                )
            if short_lives >= SHORT_LIVES_MAX:
                WORKER_FAILING.log(number=number, error=_described(code), failures=short_lives)
                self._give_up(code)
                return
            WORKER_ENDED.log(number=number, error=_described(code), retry_in_s=round(wait_s, 3))
            await sleep_unless(self._stopping, self._clock, wait_s)

    async def _first_is_ready(self) -> None:
        await any_set(self._up, self._stopping)

    async def _live(self, number: int) -> tuple[int, bool]:
        """Run a worker ``number`` from start to end; returns its exit code, and whether it had been ready."""
        try:
            process = WorkerProcess(self._command, self._spec(number), self._listeners, self._directory.lock)
        except OSError as error:
            WORKER_NOT_STARTED.log(number=number, error=error.strerror)
            return EX_TEMPFAIL, False
        self._processes[number] = process
        try:
            while await process.hear():
                if process.ready:
                    self._up.set()
            return await process.exit_code(self._clock, self._pace.overtime_s), process.ready
        finally:
            del self._processes[number]
            process.close()
            if not self._stopping.is_set():
                self._forget(number)

    def _spec(self, number: int) -> Spec:
        return Spec(
            number=number,
            workers=self._workers,
            roles=list(self._roles),
            directory=str(self._directory.path),
            overrides=dict(self._overrides),
        )

    def _forget(self, number: int) -> None:
        """Drop a dead worker's gauges and connections; its counts stay."""
        from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415 - seldom needed

        self._connections.leave(number)
        mark_process_dead(number, str(self._directory.path))  # type: ignore[no-untyped-call]

    def _give_up(self, code: int) -> None:
        if code in {EX_TEMPFAIL, 0}:
            code = EX_FATAL
        self._exit_code = 128 - code if code < 0 else code
        self._stopping.set()

    async def _watch(self) -> None:
        """Kill workers without a heartbeat for too long.

        The time is counted in passes of our own: if the parent itself was frozen, no worker is killed for it.
        """
        while True:
            await self._clock.sleep(self._pace.heartbeat_s)
            for number, process in list(self._processes.items()):
                process.passes_unheard += 1
                if process.passes_unheard * self._pace.heartbeat_s > self._pace.hung_s:
                    WORKER_HUNG.log(number=number, within_s=self._pace.hung_s)
                    process.kill()


def _described(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
