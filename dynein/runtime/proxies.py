"""The proxy that the environment puts before a URL, by the rules that most programs share.

``http_proxy``, ``https_proxy`` and ``all_proxy``, in either case; ``no_proxy`` lists what needs none. What is on this
machine never needs one: no proxy could reach it.
"""

from __future__ import annotations

import os
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from dynein.core.loopback import is_loopback


class Proxy(NamedTuple):
    """A proxy, and the environment variable that names it. As text it has no password."""

    url: str
    variable: str

    def __str__(self) -> str:
        return f"the proxy {without_password(self.url)} (from {self.variable})"


def proxy_of(url: str, *, all_proxy: bool = True) -> Proxy | None:
    """The proxy for ``url``, if it has one. ``all_proxy``: whether ``ALL_PROXY`` counts (the AWS SDK ignores it)."""
    parts = urlsplit(url)
    if is_loopback(parts.hostname) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies_environment()
    for scheme in (parts.scheme, "all")[: 1 + all_proxy]:
        if scheme in proxies:
            return Proxy(proxies[scheme], _variable(scheme))
    return None


def without_password(url: str) -> str:
    """``url`` with its user and password replaced, if it has any."""
    parts: SplitResult = urlsplit(url if "://" in url else f"http://{url}")
    if "@" not in parts.netloc:
        return url
    return parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}").geturl()


def _variable(scheme: str) -> str:
    """As it is written in the environment; lower case takes precedence."""
    lower = f"{scheme}_proxy"
    return lower if lower in os.environ else lower.upper()
