"""What a head must keep to beyond what the parser checks. Over sockets: tests/http/test_raw_sockets.py."""

from __future__ import annotations

import httptools
import pytest

from dynein.server.http_head import Head, HeadError, with_host

HOST = (b"host", b"localhost")


def head(*headers: tuple[bytes, bytes], method: bytes = b"GET", target: bytes = b"/", version: str = "1.1") -> Head:
    return Head(method, target, version, list(headers))


@pytest.mark.parametrize(
    "fine",
    [
        head(HOST),
        head(version="1.0"),
        head(HOST, (b"transfer-encoding", b" Chunked ")),
        head(HOST, (b"connection", b"upgrade"), (b"upgrade", b"h2c")),
    ],
)
def test_heads_that_are_answered(fine: Head) -> None:
    fine.check()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (head(), "Host"),
        (head(HOST, HOST), "Host"),
        (head(HOST, HOST, version="1.0"), "Host"),
        (head(HOST, version="0.9"), "HTTP/1.1"),
        (head(HOST, version="2.0"), "HTTP/1.1"),
        (head(HOST, method=b"CONNECT"), "proxy"),
        (head(HOST, (b"transfer-encoding", b"gzip, chunked")), "Transfer-Encoding"),
        (head(HOST, (b"transfer-encoding", b"chunked"), version="1.0"), "Transfer-Encoding"),
    ],
)
def test_heads_that_are_not(wrong: Head, said: str) -> None:
    with pytest.raises(HeadError, match=said):
        wrong.check()


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (b"/", None),
        (b"*", None),
        (b"//evil.example/", None),
        (b"http://evil.example/x", b"evil.example"),
        (b"http://evil.example:8080/x", b"evil.example:8080"),
        (b"HTTP://user@evil.example/", b"evil.example"),
    ],
)
def test_the_host_of_an_absolute_target_counts(target: bytes, host: bytes | None) -> None:
    assert head(HOST, target=target).host_of_target() == host


def test_a_host_is_replaced_where_it_stands() -> None:
    assert with_host([(b"a", b"b"), HOST], b"evil.example") == [(b"a", b"b"), (b"host", b"evil.example")]


def test_without_its_wish_for_another_protocol_it_is_the_same_request() -> None:
    asked = head(
        HOST, (b"connection", b"upgrade"), (b"upgrade", b"h2c"), (b"a", b"\xff"), method=b"POST", target=b"/x?y"
    )
    seen: list[bytes] = []

    class Reader:
        def on_url(self, url: bytes) -> None:
            seen.append(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            seen.extend((name, value))

    parser = httptools.HttpRequestParser(Reader())
    parser.feed_data(asked.without_upgrade())
    assert (parser.get_method(), parser.get_http_version()) == (b"POST", "1.1")
    assert seen == [b"/x?y", b"host", b"localhost", b"connection", b"upgrade", b"a", b"\xff"]
