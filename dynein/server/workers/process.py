"""A worker process, as its parent has it: started, heard, ended."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Sequence

import msgspec

from dynein.runtime.clock import Clock
from dynein.server.workers.protocol import READY, Spec

_POLL_S = 0.01


class WorkerProcess:
    """Starts ``command`` with ``spec``. It inherits the ``listener``, the ``lock`` and its end of the lifeline.

    Raises OSError when the system has no room for another process.
    """

    def __init__(self, command: Sequence[str], spec: Spec, listener: socket.socket, lock: int) -> None:
        self.ready = False
        """It has served."""
        self.passes_unheard = 0
        """For its parent to count."""
        ours, theirs = socket.socketpair()
        with theirs:
            told = msgspec.structs.replace(spec, listener=listener.fileno(), lifeline=theirs.fileno())
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own command line
                    [*command, msgspec.json.encode(told).decode()],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(told.listener, told.lifeline, lock),
                    # Ctrl-C at a terminal goes to the whole foreground group: a worker would get two signals.
                    process_group=0,
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        self._lifeline = ours

    async def hear(self) -> bool:
        """Wait for it to say something; False when it has ended, or is ending."""
        try:
            said = await asyncio.get_running_loop().sock_recv(self._lifeline, 64)
        except OSError:
            said = b""
        self.passes_unheard = 0
        self.ready = self.ready or READY in said
        return said != b""

    async def exit_code(self, clock: Clock, patience_s: float) -> int:
        """Once `hear` has said so, it is gone in a moment; minus the signal's number if one ended it."""
        deadline = clock.monotonic() + patience_s
        while (code := self._process.poll()) is None:
            if clock.monotonic() > deadline:
                self.kill()
            await clock.sleep(_POLL_S)
        return code

    def terminate(self) -> None:
        """Ask it to drain."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def close(self) -> None:
        """Let go of it."""
        self._lifeline.close()
