"""The listening socket: opened before anything starts, so that a port in use is reported first."""

from __future__ import annotations

import errno
import socket

from dynein.errors import FatalError

LISTEN_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Open ``port`` (0: any free port). Raises `FatalError` when that fails."""
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
            raise FatalError(f"{where} is in use; choose another with --port or DYNEIN_PORT") from error
        raise FatalError(f"{where} cannot be listened on ({error.strerror}); see --host and --port") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """The URL at which it is reached on this machine."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
