"""The HTTP server: uvicorn, with an accept loop of its own, a bound on connections, and a watch over each of them.

Connections are accepted up to a bound that leaves descriptors for our own calls to AWS. Past it the longest idle ones
are closed for new ones; where none is idle, nothing is accepted for a moment, and the kernel's queue holds who waits.

All workers accept from one socket. Whatever waits in its queue is taken by whoever is free: nothing is lost or held up
when a worker dies, is frozen or is busy. (With ``SO_REUSEPORT`` each worker has a queue of its own, chosen by a hash:
what waits in it dies with its worker and waits for it while it is frozen, and two programs could take the port in
silence.)

Left alone, the kernel prefers whoever began to wait last, so one worker can end up with most of the kept-alive
connections and another with none. So each publishes how many it has, and one that has more than the least of its
siblings holds back for a moment. Figures: docs/how-to/use-all-cores.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
from collections.abc import Iterator
from typing import cast

import uvicorn
from fastapi import FastAPI

from dynein.observability.events.api import CONNECTIONS_FULL
from dynein.server.http_protocol import Gate, GuardedProtocol
from dynein.server.listener import LISTEN_BACKLOG
from dynein.server.workers.connections import Connections

HOLD_BACK_S = 0.002
"""An idle sibling takes a connection within microseconds. After this, none was idle: it is ours after all."""
TAKE_AT_ONCE = 4
"""Connections taken after having held back; what is left is offered to the siblings again."""
NO_ROOM_PAUSE_S = 1.0
"""Without descriptors or memory for a connection, trying at once again would do nothing but burn a core."""
FULL_PAUSE_S = 0.1
CHECK_S = 1.0
"""How often each connection is checked for having taken too long."""
IDLE_CLOSED_SHARE = 20
"""At the bound, a twentieth of the idle connections is closed at once: to look for them costs a pass over all."""
RESERVED_DESCRIPTORS = 64
"""For files, the listening socket, the event loop and the log, beside those for AWS."""
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def connections_that_fit(connections_max: int, descriptors_for_aws: int) -> int:
    """``connections_max``, or less where the process may not open as many descriptors and keep its reserve.

    Raises the process's own limit (``ulimit -n``) as far as it may first.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections_max + descriptors_for_aws + RESERVED_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, raised), hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return connections_max
    return max(1, min(connections_max, soft - descriptors_for_aws - RESERVED_DESCRIPTORS))


def http_config(app: FastAPI, *, close_within_s: float) -> uvicorn.Config:
    """How every port of ours serves ``app``. ``close_within_s``: what is under way when it closes has so much time."""
    return uvicorn.Config(
        app,
        http=GuardedProtocol,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who may say whose a request is, `dynein.server.load_gate` knows
        backlog=LISTEN_BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(close_within_s),
    )


class Server(uvicorn.Server):
    """Accepts connections on ``listener``, ``connections_max`` at once at the most.

    Signals are the command line's business, not the HTTP server's.
    """

    def __init__(
        self, config: uvicorn.Config, listener: socket.socket, *, connections_max: int, gate: Gate | None = None
    ) -> None:
        super().__init__(config)
        self._gate = gate
        self._listener = listener
        self._connections_max = connections_max
        self._attaching: dict[asyncio.Task[None], None] = {}
        self._pause: asyncio.TimerHandle | None = None
        self._checking: asyncio.TimerHandle | None = None
        self._accepting = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def publish(self) -> None:
        """Tell sibling processes, if any, how many connections this one has."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - we have ours
        await super().startup(sockets=[])
        self._listener.setblocking(False)
        self._accepting = True
        self.publish()
        asyncio.get_running_loop().add_reader(self._listener, self._on_waiting)
        self._check_all()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - we have ours
        self._accepting = False
        asyncio.get_running_loop().remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()
        self._listener.close()
        if self._attaching:
            await asyncio.wait(list(self._attaching))  # else uvicorn would not know of them, and not close them
        await super().shutdown(sockets=[])
        if self._checking is not None:
            self._checking.cancel()

    def _held(self) -> int:
        return len(self.server_state.connections) + len(self._attaching)

    def _on_waiting(self) -> None:
        self._take()

    def _accept_again_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener)
        self._pause = loop.call_later(seconds, self._after_pause)

    def _after_pause(self) -> None:
        self._pause = None
        asyncio.get_running_loop().add_reader(self._listener, self._on_waiting)
        for _ in range(TAKE_AT_ONCE):
            if not self._take():
                break

    def _take(self) -> bool:
        """Accept one connection. False when a sibling was quicker, its client has gone, or there is no room for it."""
        if self._held() >= self._connections_max and not self._close_idle():
            CONNECTIONS_FULL.log(connections=self._held())
            self._accept_again_in(FULL_PAUSE_S)
            return False
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:
                self._accept_again_in(NO_ROOM_PAUSE_S)
            return False
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = asyncio.get_running_loop().create_task(self._attach(connection))
        self._attaching[task] = None
        task.add_done_callback(self._attached)
        self.publish()
        return True

    def _close_idle(self) -> bool:
        """Close some of the connections that have been idle for longest; False if there is none."""
        idle = sorted((each for each in self._protocols() if each.idle), key=lambda each: each.since)
        chosen = idle[: 1 + len(idle) // IDLE_CLOSED_SHARE]
        for protocol in chosen:
            protocol.transport.abort()
        return bool(chosen)

    def _check_all(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for protocol in self._protocols():
            protocol.check(now)
        self._checking = loop.call_later(CHECK_S, self._check_all)

    def _protocols(self) -> list[GuardedProtocol]:
        return cast("list[GuardedProtocol]", list(self.server_state.connections))

    async def _attach(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client has gone
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    def _attached(self, task: asyncio.Task[None]) -> None:
        del self._attaching[task]
        self.publish()

    def _protocol(self) -> asyncio.Protocol:
        """As uvicorn's own `startup` makes one for each connection."""
        return GuardedProtocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state, gate=self._gate
        )


class SharingServer(Server):
    """Accepts worker number ``worker``'s share of the connections on ``listener``."""

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        connections: Connections,
        worker: int,
        *,
        connections_max: int,
        gate: Gate | None = None,
    ) -> None:
        super().__init__(config, listener, connections_max=connections_max, gate=gate)
        self._connections = connections
        self._worker = worker

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._connections.leave(self._worker)
        await super().shutdown(sockets)

    def publish(self) -> None:
        """Some connections end without a call from here: repeat it now and then."""
        if self._accepting:
            self._connections.publish(self._worker, self._held())

    def _on_waiting(self) -> None:
        self.publish()
        if self._held() > self._connections.least():
            self._accept_again_in(HOLD_BACK_S)
        else:
            self._take()
