"""What a request's head must keep to, so that all who read it find the same request in it. Pure.

The parser (llhttp) refuses what is ambiguous about lengths, line ends and characters. What it leaves to its user is
here. Any difference between how a proxy reads a request and how we do is a way to slip one past it (RFC 9112, 11.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import httptools

Headers = list[tuple[bytes, bytes]]
_VERSIONS = frozenset({"1.0", "1.1"})


class HeadError(Exception):
    """The head is refused, for this reason."""


class Head(NamedTuple):
    """Method, target and version; header names are in lower case."""

    method: bytes
    target: bytes
    version: str
    headers: Headers

    def check(self) -> None:
        """Raise `HeadError` if this is no request to answer."""
        if self.version not in _VERSIONS:
            raise HeadError("HTTP/1.1 and HTTP/1.0 are spoken here.")
        if self.method == b"CONNECT":
            raise HeadError("This is no proxy.")
        hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" and (value.strip().lower() != b"chunked" or self.version == "1.0"):
                # RFC 9112, 6.1. An encoding of the content has a header of its own, Content-Encoding.
                raise HeadError("The only Transfer-Encoding is chunked, in HTTP/1.1.")
        if hosts > 1 or (not hosts and self.version == "1.1"):
            raise HeadError("A request has one Host header.")

    def host_of_target(self) -> bytes | None:
        """The authority of a target in absolute form, which then counts in place of the header (RFC 9112, 3.2.2)."""
        if self.target.startswith((b"/", b"*")):
            return None
        url = httptools.parse_url(self.target)
        host: bytes = url.host or b""
        return b"%b:%d" % (host, url.port) if url.port else host

    def without_upgrade(self) -> bytes:
        """The same request, by someone who does not ask for another protocol: we speak no other."""
        lines = [b"%b %b HTTP/%b" % (self.method, self.target, self.version.encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])


def with_host(headers: Sequence[tuple[bytes, bytes]], host: bytes) -> Headers:
    """``headers`` with this ``host`` in place of theirs."""
    return [(name, host if name == b"host" else value) for name, value in headers]
