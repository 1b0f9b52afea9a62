"""The listening sockets: opened before anything starts, so that a port in use is reported first."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection
from typing import NamedTuple

from dynein.errors import FatalError
from dynein.settings import Settings

LISTEN_BACKLOG = 2048


class Listeners(NamedTuple):
    """A process's ports; at least one is open."""

    api: socket.socket | None
    """``None`` in a process without the role, if probes and metrics have a port of their own."""
    ops: socket.socket | None
    """Of probes and metrics; ``None`` if the API's port serves them too."""

    @property
    def url(self) -> str:
        """The URL of the API, or of probes and metrics where there is no API."""
        listener = self.api or self.ops
        assert listener is not None
        return url_of(listener)

    @property
    def ops_url(self) -> str:
        """The URL of probes and metrics."""
        return url_of(self.ops) if self.ops is not None else self.url

    @property
    def opened(self) -> list[socket.socket]:
        """Those that are open."""
        return [listener for listener in self if listener is not None]

    def close(self) -> None:
        """Close all. Another process that has inherited one keeps it open."""
        for listener in self.opened:
            listener.close()


def open_listeners(settings: Settings, roles: Collection[str]) -> Listeners:
    """The ports of a process with these roles. Raises `FatalError` when one is in use."""
    if settings.ops_port is None:
        return Listeners(listen(settings.host, settings.port), None)
    ops = listen(settings.host, settings.ops_port, option="--ops-port")
    try:
        return Listeners(listen(settings.host, settings.port) if "api" in roles else None, ops)
    except BaseException:
        ops.close()
        raise


def listen(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """Open ``port`` (0: any free port), which ``option`` sets. Raises `FatalError` when that fails."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # Two processes may bind with SO_REUSEADDR, but only one may listen. A client that connects now waits until we
        # serve.
        listener.listen(LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        where = f"port {port} on {host}"
        if error.errno == errno.EADDRINUSE:
            variable = "DYNEIN_" + option.removeprefix("--").replace("-", "_").upper()
            raise FatalError(f"{where} is in use; choose another with {option} or {variable}") from error
        raise FatalError(f"{where} cannot be listened on ({error.strerror}); see --host and {option}") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """The URL at which it is reached on this machine."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
