"""URLs of HTTP servers, and what is wrong with the others."""

from __future__ import annotations

import pytest

from dynein.core.http_url import http_url_problem


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://127.0.0.1:4566",
            "https://sqs.eu-west-1.amazonaws.com",
            "http://[::1]:4566",
            "http://[fe80::1%eth0]:1",
        ),
        *("HTTP://localhost", "http://elastic_mq:9324/", "http://x/path"),
    ],
)
def test_a_url(url: str) -> None:
    assert http_url_problem(url) is None


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "has no scheme"),
        ("localhost:4566", "has no scheme; write http://localhost:4566, or https://"),
        ("//localhost:4566", "has no scheme; write http://localhost:4566"),
        ("4566", "has no scheme"),
        ("ftp://x", "has the scheme ftp"),
        ("tcp://x:1", "has the scheme tcp"),
        ("http://", "has no host"),
        ("http://:4566", "has no host"),
        ("http://h:abc", "a port is a number up to 65535"),
        ("http://h:99999", "a port is a number up to 65535"),
        ("http://h:-1", "a port is a number up to 65535"),
        ("http://h:", "has no port after the colon"),
        ("http://h:0", "has no port after the colon"),
        ("http://[::1", "cannot be read"),
        ("http://a b", "has a space"),
        ("http://x\n", "has a space or a character"),
        ("http://münchen", "has a space or a character"),
        ("http://user:password@h", "has a user name"),
        ("http://h?x=1", "has a query"),
        ("http://h#x", "has a query or a fragment"),
        ("http://{host}", "has no host"),
    ],
)
def test_no_url(url: str, problem: str) -> None:
    found = http_url_problem(url)
    assert found is not None
    assert problem in found
    assert "password" not in found
