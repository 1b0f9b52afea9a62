"""The listening socket: taken before anything starts, so that a port in use is the first thing said."""

from __future__ import annotations

import errno
import socket

from dynein.errors import FatalError

LISTEN_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Take ``port``; 0 takes a free one. Raises `FatalError` when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # Two may bind with SO_REUSEADDR, but only one may listen. Who connects now waits until we serve.
        listener.listen(LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        where = f"port {port} on {host}"
        if error.errno == errno.EADDRINUSE:
            raise FatalError(f"{where} is in use; choose another with --port or DYNEIN_PORT") from error
        raise FatalError(f"{where} cannot be listened on ({error.strerror}); see --host and --port") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Where it answers, for people and programs on this machine."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
