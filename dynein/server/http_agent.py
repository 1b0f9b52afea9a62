"""The HTTP server as an agent of the process: it serves until it is stopped, lingers, drains, and closes the port."""

from __future__ import annotations

import asyncio
import socket
from typing import NamedTuple

import uvicorn
from fastapi import FastAPI

from dynein.api.health import Lifecycle
from dynein.runtime.clock import Clock
from dynein.runtime.tasks import cancel_all, first_of
from dynein.server.http_protocol import GuardedProtocol
from dynein.server.http_server import Server, SharingServer, connections_that_fit
from dynein.server.listener import LISTEN_BACKLOG
from dynein.server.load_gate import LoadGate
from dynein.server.workers.connections import Connections
from dynein.settings import Settings

_STARTED_POLL_S = 0.01


class Sharing(NamedTuple):
    """A port that sibling processes serve too."""

    listener: socket.socket
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
        config = uvicorn.Config(
            app,
            http=GuardedProtocol,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # who may say whose a request is, `LoadGate` knows
            backlog=LISTEN_BACKLOG,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=int(settings.drain_s),
        )
        self._lifecycle = lifecycle
        self._clock = clock
        self._linger_s = settings.linger_s
        self._started = started
        # Two services, each with a pool of connections of its own.
        connections_max = connections_that_fit(settings.http_connections_max, 2 * settings.connections_max)
        self.server: Server = (
            Server(config, listener, connections_max=connections_max, gate=gate)
            if sharing is None
            else SharingServer(config, *sharing, connections_max=connections_max, gate=gate)
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """See `dynein.runtime.tasks.Agent`."""
        serving = asyncio.ensure_future(self.server.serve(sockets=[]))
        stopped = asyncio.ensure_future(stopping.wait())
        try:
            while not self.server.started and not serving.done():
                await self._clock.sleep(_STARTED_POLL_S)
            self._started.set()
            await first_of(stopped, serving)
            self._lifecycle.linger()
            await self._clock.sleep(self._linger_s)
            self._lifecycle.drain()
        finally:
            await cancel_all([stopped])
            self.server.should_exit = True
            await serving
