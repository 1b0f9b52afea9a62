"""A worker process, seen from its parent: start, heartbeats, end."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Sequence

import msgspec

from dynein.runtime.clock import Clock
from dynein.server.listener import Listeners
from dynein.server.workers.protocol import READY, Spec

_POLL_S = 0.01


class WorkerProcess:
    """Starts ``command`` with ``spec``. It inherits the ``listeners``, the ``lock`` and its end of the lifeline.

    Raises OSError when the operating system cannot start another process.
    """

    def __init__(self, command: Sequence[str], spec: Spec, listeners: Listeners, lock: int) -> None:
        self.ready = False
        """It has begun to serve."""
        self.passes_unheard = 0
        """The parent's checks since the last heartbeat; incremented by the parent."""
        ours, theirs = socket.socketpair()
        with theirs:
            inherited = msgspec.structs.replace(
                spec,
                listener=listeners.api and listeners.api.fileno(),
                ops_listener=listeners.ops and listeners.ops.fileno(),
                lifeline=theirs.fileno(),
            )
            descriptors = [listener.fileno() for listener in listeners.opened]
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own command line
                    [*command, msgspec.json.encode(inherited).decode()],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(*descriptors, inherited.lifeline, lock),
                    # Ctrl-C at a terminal goes to the whole foreground group: a worker would get two signals.
                    process_group=0,
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        self._lifeline = ours

    async def hear(self) -> bool:
        """Wait for a heartbeat or for its readiness; False when it has ended, or is ending."""
        try:
            received = await asyncio.get_running_loop().sock_recv(self._lifeline, 64)
        except OSError:
            received = b""
        self.passes_unheard = 0
        self.ready = self.ready or READY in received
        return received != b""

    async def exit_code(self, clock: Clock, patience_s: float) -> int:
        """Its exit code, or minus the number of the signal that ended it; killed if it takes over ``patience_s`` to
        end.

        To be called once `hear` has returned False.
        """
        deadline = clock.monotonic() + patience_s
        while (code := self._process.poll()) is None:
            if clock.monotonic() > deadline:
                self.kill()
            await clock.sleep(_POLL_S)
        return code

    def terminate(self) -> None:
        """Send SIGTERM: it drains."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def close(self) -> None:
        """Close the lifeline."""
        self._lifeline.close()
