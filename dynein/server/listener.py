"""The listening sockets: opened before anything starts, so that a port in use is reported first."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Collection
from typing import NamedTuple

from dynein.errors import FatalError
from dynein.settings import Settings

LISTEN_BACKLOG = 2048


class Address(NamedTuple):
    """Where to listen: an IP address, without brackets."""

    family: socket.AddressFamily
    ip: str

    @property
    def reached_at(self) -> str:
        """The IP address by which this machine reaches it: the loopback one where it listens on all."""
        address = ipaddress.ip_address(self.ip.partition("%")[0])
        if not address.is_unspecified:
            return self.ip
        return "127.0.0.1" if address.version == 4 else "::1"  # noqa: PLR2004 - IP's

    def url(self, port: int) -> str:
        """The URL by which this machine reaches it."""
        return f"http://{in_url(self.reached_at)}:{port}"


def address_of(host: str) -> Address:
    """The address that ``host`` means: an IP address (IPv6 with or without brackets), or a name of this machine's.

    A name that has addresses of both kinds means the IPv4 one, as `socket.create_server` takes it. Raises `FatalError`.
    """
    bare = host.removeprefix("[").removesuffix("]")
    try:
        found = socket.getaddrinfo(bare, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        raise FatalError(
            f"--host (or DYNEIN_HOST) {host!r} is no address of this machine ({reason}): write 127.0.0.1, ::1, or "
            "0.0.0.0 for all"
        ) from error
    family, _, _, _, name = min(found, key=lambda each: each[0] != socket.AF_INET)
    return Address(family, str(name[0]))


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
    address = address_of(host)
    listener = socket.socket(address.family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.ip, port))
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
    return Address(listener.family, host).url(port)


def in_url(host: str) -> str:
    """``host`` as a URL has it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host
