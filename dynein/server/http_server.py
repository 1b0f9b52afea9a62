"""The HTTP server: uvicorn, told to leave signals alone; and one that shares its port with sibling processes evenly.

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
import socket
from collections.abc import Iterator

import uvicorn

from dynein.server.workers.connections import Connections

HOLD_BACK_S = 0.002
"""An idle sibling takes a connection within microseconds. After this, none was idle: it is ours after all."""
TAKE_AT_ONCE = 4
"""Connections taken after having held back; what is left is offered to the siblings again."""
NO_ROOM_PAUSE_S = 1.0
"""Without descriptors or memory for a connection, trying at once again would do nothing but burn a core."""
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Server(uvicorn.Server):
    """Signals are the command line's business, not the HTTP server's."""

    def publish(self) -> None:
        """Tell sibling processes, if any, how many connections this one has."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class SharingServer(Server):
    """Accepts worker number ``worker``'s share of the connections on ``listener``."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket, connections: Connections, worker: int) -> None:
        super().__init__(config)
        self._listener = listener
        self._connections = connections
        self._worker = worker
        self._attaching: dict[asyncio.Task[None], None] = {}
        self._pause: asyncio.TimerHandle | None = None
        self._accepting = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - we have ours
        await super().startup(sockets=[])
        self._listener.setblocking(False)
        self._accepting = True
        self.publish()
        asyncio.get_running_loop().add_reader(self._listener, self._on_waiting)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - we have ours
        self._accepting = False
        self._connections.leave(self._worker)
        asyncio.get_running_loop().remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()
        self._listener.close()
        if self._attaching:
            await asyncio.wait(list(self._attaching))  # else uvicorn would not know of them, and not close them
        await super().shutdown(sockets=[])

    def publish(self) -> None:
        """Some connections end without a call from here: repeat it now and then."""
        if self._accepting:
            self._connections.publish(self._worker, self._held())

    def _held(self) -> int:
        return len(self.server_state.connections) + len(self._attaching)

    def _on_waiting(self) -> None:
        self.publish()
        if self._held() > self._connections.least():
            self._look_again_in(HOLD_BACK_S)
        else:
            self._take()

    def _look_again_in(self, seconds: float) -> None:
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
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:
                self._look_again_in(NO_ROOM_PAUSE_S)
            return False
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = asyncio.get_running_loop().create_task(self._attach(connection))
        self._attaching[task] = None
        task.add_done_callback(self._attached)
        self.publish()
        return True

    async def _attach(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client has gone
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    def _attached(self, task: asyncio.Task[None]) -> None:
        del self._attaching[task]
        self.publish()

    def _protocol(self) -> asyncio.Protocol:
        """As uvicorn's own `startup` makes one for each connection."""
        make = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[call-arg]
