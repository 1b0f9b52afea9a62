"""Which hosts are this machine."""

from __future__ import annotations

import pytest

from dynein.core.loopback import is_loopback


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST", "localhost.", "sqs.localhost", "127.0.0.1", "127.9.8.7", "0.0.0.0", "::1", "::"),
        *("::ffff:127.0.0.1", "::1%lo"),
    ],
)
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", [None, "", "localhost.example", "notlocalhost", "10.0.0.1", "fe80::1", "example", "128.0.0.1", "1"]
)
def test_another_machine(host: str | None) -> None:
    assert not is_loopback(host)
