"""Under which names this API may be addressed.

A web page can have its own name resolve to 127.0.0.1 (DNS rebinding). What it then sends to a Dynein on a developer's
machine is same-origin for the browser, so no rule about origins or content types applies: only the ``Host`` header
still has the page's name. So on loopback only loopback names are accepted, and those that the settings add.

Elsewhere every name is accepted unless the settings list some. An address is accepted then too: it cannot be made to
lead elsewhere, and it is what probes and Prometheus use.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from starlette.types import Scope

from dynein.api.problems import Misdirected
from dynein.core.loopback import is_address, is_loopback_name
from dynein.settings import ANY_HOST, Settings

_CACHED_MAX = 1_000
_SHOWN_CHARS_MAX = 100


class AllowedHosts:
    """Checks the ``Host`` of requests. ``listening_on``: the setting ``host``."""

    def __init__(self, listening_on: str, names: Iterable[str] = ()) -> None:
        self._names = frozenset(_canonical(name) for name in names)
        self._only_loopback = is_loopback_only(listening_on)
        self._any = ANY_HOST in self._names or not (self._only_loopback or self._names)
        self._checked: dict[bytes, bool] = {}

    @classmethod
    def of(cls, settings: Settings) -> AllowedHosts:
        """As the settings say."""
        return cls(settings.host, settings.allowed_host_names)

    def check(self, scope: Scope) -> None:
        """Raise `Misdirected` for a request to another name. A client of HTTP/1.0 may send none: no browser does."""
        if self._any:
            return
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) > 1 or (hosts and not self._allows(hosts[0])):
            raise Misdirected(f"This API is not served as {hosts[0][:_SHOWN_CHARS_MAX].decode('latin-1')!r}.")

    def _allows(self, host: bytes) -> bool:
        allowed = self._checked.get(host)
        if allowed is None:
            if len(self._checked) >= _CACHED_MAX:
                self._checked.clear()
            allowed = self._checked[host] = self._decide(_canonical(_without_port(host.decode("latin-1"))))
        return allowed

    def _decide(self, name: str) -> bool:
        if name in self._names or is_loopback_only(name):
            return True
        return not self._only_loopback and is_address(name)


def is_loopback_only(host: str) -> bool:
    """Whether a server that listens on it can be reached from this machine only: not so on ``0.0.0.0``."""
    return ipaddress.ip_address(host).is_loopback if is_address(host) else is_loopback_name(host)


def _canonical(name: str) -> str:
    return name.lower().removesuffix(".").removeprefix("[").removesuffix("]")


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0]
    return host.partition(":")[0]
