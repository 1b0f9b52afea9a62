"""The HTTP servers of a process: the API's, as an agent, and beside it that of probes and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from fastapi import FastAPI

from dynein.api.health import Lifecycle
from dynein.runtime.clock import Clock
from dynein.runtime.tasks import cancel_all, first_of
from dynein.server.http_server import Server, SharingServer, connections_that_fit, http_config
from dynein.server.load_gate import LoadGate
from dynein.server.workers.connections import Connections
from dynein.settings import Settings

OPS_CONNECTIONS_MAX = 64
"""Probes and scrapers are few. Whatever the callers of the API do, these connections are not theirs."""
_OPS_CLOSE_WITHIN_S = 1.0
_STARTED_POLL_S = 0.01


class Sharing(NamedTuple):
    """What is known of sibling processes that serve the same ports."""

    connections: Connections
    worker: int
    """Number of this worker."""


class HttpAgent:
    """Serves ``app`` on ``listener``; ``started`` is set once it does.

    When it is stopped, ``/readyz`` fails while requests are still accepted for ``linger_s`` (load balancers need a
    moment to notice); then new submissions are rejected, those under way are finished, and the port is closed.
    """

    def __init__(
        self,
        app: FastAPI,
        lifecycle: Lifecycle,
        listener: socket.socket,
        clock: Clock,
        settings: Settings,
        *,
        sharing: Sharing | None,
        gate: LoadGate,
        started: asyncio.Event,
    ) -> None:
        config = http_config(app, close_within_s=settings.drain_s)
        self._lifecycle = lifecycle
        self._clock = clock
        self._linger_s = settings.linger_s
        self._started = started
        # Two services, each with a pool of connections of its own; and probes.
        others = 2 * settings.connections_max + OPS_CONNECTIONS_MAX
        connections_max = connections_that_fit(settings.http_connections_max, others)
        self.server: Server = (
            Server(config, listener, connections_max=connections_max, gate=gate)
            if sharing is None
            else SharingServer(config, listener, *sharing, connections_max=connections_max, gate=gate)
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """See `dynein.runtime.tasks.Agent`."""
        serving = asyncio.ensure_future(self.server.serve(sockets=[]))
        stopped = asyncio.ensure_future(stopping.wait())
        try:
            await _started(self.server, serving, self._clock)
            self._started.set()
            await first_of(stopped, serving)
            self._lifecycle.linger()
            await self._clock.sleep(self._linger_s)
            self._lifecycle.drain()
        finally:
            await cancel_all([stopped])
            self.server.should_exit = True
            await serving


class WithoutApi:
    """In the place of `HttpAgent` where there is no port but that of probes and metrics: ``/readyz`` fails once this is
    stopped.
    """

    def __init__(self, lifecycle: Lifecycle, started: asyncio.Event) -> None:
        self._lifecycle = lifecycle
        self._started = started

    async def run(self, stopping: asyncio.Event) -> None:
        """See `dynein.runtime.tasks.Agent`."""
        self._started.set()
        await stopping.wait()
        self._lifecycle.drain()


@contextlib.asynccontextmanager
async def serving_ops(
    make_app: Callable[[], FastAPI], listener: socket.socket | None, clock: Clock
) -> AsyncIterator[None]:
    """Serve probes and metrics on ``listener``, if there is one, until this is left, after the process has drained.

    Connections there have a bound of their own, and no request is refused for what the API's callers do.
    """
    if listener is None:
        yield
        return
    config = http_config(make_app(), close_within_s=_OPS_CLOSE_WITHIN_S)
    server = Server(config, listener, connections_max=OPS_CONNECTIONS_MAX)
    serving = asyncio.ensure_future(server.serve(sockets=[]))
    try:
        await _started(server, serving, clock)
        yield
    finally:
        server.should_exit = True
        await serving


async def _started(server: Server, serving: asyncio.Future[None], clock: Clock) -> None:
    while not server.started and not serving.done():
        await clock.sleep(_STARTED_POLL_S)
