"""The address that a host means, and the URL by which it is reached."""

from __future__ import annotations

import socket

import pytest

from dynein.errors import FatalError
from dynein.server.listener import address_of, listen, url_of


@pytest.mark.parametrize(
    ("host", "ip", "url"),
    [
        ("127.0.0.1", "127.0.0.1", "http://127.0.0.1:1"),
        ("localhost", "127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "0.0.0.0", "http://127.0.0.1:1"),
        ("::1", "::1", "http://[::1]:1"),
        ("[::1]", "::1", "http://[::1]:1"),
        ("::", "::", "http://[::1]:1"),
        ("[::]", "::", "http://[::1]:1"),
    ],
)
def test_a_host(host: str, ip: str, url: str) -> None:
    address = address_of(host)
    assert address.ip == ip
    assert address.family == (socket.AF_INET6 if ":" in ip else socket.AF_INET)
    assert address.url(1) == url


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a b", "x" * 300, "300.1.1.1"])
def test_what_is_no_address_of_this_machine(host: str) -> None:
    with pytest.raises(FatalError, match="--host") as caught:
        address_of(host)
    assert repr(host) in str(caught.value)


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "::1", "::"])
def test_what_listens_is_reached_at_its_url(host: str) -> None:
    with listen(host, 0) as listener:
        url = url_of(listener)
        name, _, port = url.removeprefix("http://").rpartition(":")
        socket.create_connection((name.strip("[]"), int(port)), timeout=10).close()
