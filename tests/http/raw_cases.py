"""Requests that are not quite requests, and what is to become of each: the statuses of the responses, in order.

``SMUGGLED`` in a body must never be answered as a request of its own.
"""

from __future__ import annotations

from typing import NamedTuple

JOB = b'{"queue":"demo","body":"x"}'
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n"
LENGTH = b"content-length: %d\r\n" % len(JOB)
CHUNKED = b"transfer-encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(JOB), JOB)
PROBE = b"GET /healthz HTTP/1.1"


class Case(NamedTuple):
    """What is sent, and the statuses it gets. ``closed``: then the connection ends."""

    sent: bytes
    statuses: list[int]
    closed: bool = False


def request(headers: bytes = b"", body: bytes = b"", line: bytes = b"POST /v1/jobs HTTP/1.1") -> bytes:
    return line + b"\r\nhost: localhost\r\n" + headers + b"\r\n" + body


def refused(headers: bytes = b"", body: bytes = b"", line: bytes = b"POST /v1/jobs HTTP/1.1") -> Case:
    return Case(request(headers, body, line) + SMUGGLED, [400], closed=True)


def accepted(headers: bytes = b"", body: bytes = b"") -> Case:
    return Case(request(headers, body), [202])


def chunks(text: bytes) -> Case:
    return refused(CHUNKED, text % JOB)


CASES: dict[str, Case] = {
    "a request": accepted(LENGTH, JOB),
    "chunks": accepted(CHUNKED, CHUNKS),
    # --- lengths
    "length and chunks": refused(LENGTH + CHUNKED, CHUNKS),
    "chunks and a short length": refused(CHUNKED + b"content-length: 4\r\n", CHUNKS),
    "two lengths": refused(LENGTH + b"content-length: 3\r\n", JOB),
    "the same length twice": refused(LENGTH + LENGTH, JOB),
    "a list of lengths": refused(b"content-length: 27, 27\r\n", JOB),
    "a length with a sign": refused(b"content-length: +27\r\n", JOB),
    "a negative length": refused(b"content-length: -1\r\n", JOB),
    "a hexadecimal length": refused(b"content-length: 0x1b\r\n", JOB),
    "a length beyond 64 bits": refused(b"content-length: 99999999999999999999999\r\n", JOB),
    "a length without digits": refused(b"content-length: \r\n", JOB),
    "a length of 2^63 - 1": Case(request(b"content-length: 9223372036854775807\r\n", JOB), [413], closed=True),
    "a space before the colon": refused(b"content-length : 27\r\n", JOB),
    # --- transfer encodings
    "identity": refused(b"transfer-encoding: identity\r\n" + LENGTH, JOB),
    "an unknown one": refused(b"transfer-encoding: xchunked\r\n", CHUNKS),
    "gzip before chunked": refused(b"transfer-encoding: gzip, chunked\r\n", CHUNKS),
    "gzip after chunked": refused(b"transfer-encoding: chunked, gzip\r\n", CHUNKS),
    "chunked twice": refused(CHUNKED + CHUNKED, CHUNKS),
    "a vertical tab before it": refused(b"transfer-encoding: \x0bchunked\r\n", CHUNKS),
    "a null byte after it": refused(b"transfer-encoding: chunked\0\r\n", CHUNKS),
    "on a folded line": refused(b"transfer-encoding:\r\n chunked\r\n", CHUNKS),
    "in HTTP/1.0": refused(CHUNKED, CHUNKS, b"POST /v1/jobs HTTP/1.0"),
    # --- chunks
    "a size beyond 64 bits": refused(CHUNKED, b"fffffffffffffffff\r\nabc"),
    "a negative size": refused(CHUNKED, b"-1\r\nabc"),
    "a size with 0x": chunks(b"0x1b\r\n%b\r\n0\r\n\r\n"),
    "a size with a space": chunks(b"1b \r\n%b\r\n0\r\n\r\n"),
    "chunks with bare line feeds": chunks(b"1b\n%b\n0\n\n"),
    "more than the size says": chunks(b"1b\r\n%bXX\r\n0\r\n\r\n"),
    "an extension": accepted(CHUNKED, b'1b;a=b;c="d"\r\n%b\r\n0\r\n\r\n' % JOB),
    "an extension with a line feed": chunks(b"1b;a\n%b\r\n0\r\n\r\n"),
    "an extension without end": chunks(b"1b;" + b"a" * 70_000 + b"\r\n%b\r\n0\r\n\r\n"),
    "trailers that change the length": chunks(b"1b\r\n%b\r\n0\r\ncontent-length: 3\r\n\r\n"),
    # --- lines and characters
    "a folded header": refused(b"x-a: b\r\n c\r\n" + LENGTH, JOB),
    "bare line feeds": Case(request(LENGTH).replace(b"\r\n", b"\n") + JOB, [400], closed=True),
    "a bare carriage return": refused(b"x-a: b\rx-b: c\r\n" + LENGTH, JOB),
    "a null byte in a header": refused(b"x-a: b\0c\r\n" + LENGTH, JOB),
    "a header without a name": refused(b": c\r\n" + LENGTH, JOB),
    "a header without a colon": refused(b"xyz\r\n" + LENGTH, JOB),
    "a name that is not ASCII": refused(b"x-\xff: a\r\n" + LENGTH, JOB),
    "a value that is not ASCII": accepted(b"x-a: \xff\xfe\r\n" + LENGTH, JOB),
    "empty lines first": Case(b"\r\n\r\n" + request(LENGTH, JOB), [202]),
    # --- targets and hosts
    "absolute form": Case(request(LENGTH, JOB, b"POST http://localhost/v1/jobs HTTP/1.1"), [202]),
    "absolute form of another host": Case(request(LENGTH, JOB, b"POST http://evil.example/v1/jobs HTTP/1.1"), [421]),
    "absolute form with a port too large": refused(line=b"GET http://localhost:999999/ HTTP/1.1"),
    "absolute form cut off": refused(line=b"GET http://[::1/ HTTP/1.1"),
    "authority form": refused(line=b"CONNECT localhost:80 HTTP/1.1"),
    "CONNECT with a path": refused(line=b"CONNECT /healthz HTTP/1.1"),
    "asterisk form": Case(request(line=b"OPTIONS * HTTP/1.1"), [404]),
    "no target": refused(line=b"GET  HTTP/1.1"),
    "a target without a slash": refused(line=b"GET healthz HTTP/1.1"),
    "a target that is not ASCII": refused(line=b"GET /\xff\xfe HTTP/1.1"),
    "bad escapes": Case(request(line=b"GET /%zz%u1234%00%ff HTTP/1.1"), [404]),
    "dots": Case(request(line=b"GET /v1/../healthz HTTP/1.1"), [404]),
    "two slashes": Case(request(line=b"GET //healthz HTTP/1.1"), [404]),
    "a long query": Case(request(line=b"GET /healthz?" + b"a=b&" * 5_000 + b" HTTP/1.1"), [200]),
    "no host": Case(b"GET /healthz HTTP/1.1\r\n\r\n" + SMUGGLED, [400], closed=True),
    "two hosts": refused(b"host: localhost\r\n", line=PROBE),
    "another host": Case(b"GET /healthz HTTP/1.1\r\nhost: evil.example\r\n\r\n", [421]),
    # --- versions, upgrades, expectations
    "HTTP/1.0": Case(b"GET /healthz HTTP/1.0\r\n\r\n", [200], closed=True),
    "HTTP/1.0 with a body": Case(request(LENGTH, JOB, b"POST /v1/jobs HTTP/1.0"), [202], closed=True),
    "HTTP/0.9": Case(b"GET /healthz\r\n\r\n", [400], closed=True),
    "HTTP/2 at once": Case(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400], closed=True),
    "HTTP/1.2": refused(line=b"GET /healthz HTTP/1.2"),
    "TLS": Case(bytes.fromhex("1603010200010001fc0303") + bytes(200), [400], closed=True),
    "h2c": Case(
        request(b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n", line=PROBE),
        [200],
    ),
    "h2c with a body": accepted(b"connection: upgrade\r\nupgrade: h2c\r\n" + LENGTH, JOB),
    "h2c with chunks": accepted(b"connection: upgrade\r\nupgrade: h2c\r\n" + CHUNKED, CHUNKS),
    "h2c with a request as its body": Case(
        request(b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: %d\r\n" % len(SMUGGLED), SMUGGLED), [400]
    ),
    "a WebSocket": Case(
        request(
            b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            line=PROBE,
        ),
        [200],
    ),
    "100-continue": Case(request(b"expect: 100-continue\r\n" + LENGTH, JOB), [100, 202]),
    "another expectation": accepted(b"expect: 200-maybe\r\n" + LENGTH, JOB),
    # --- methods and bodies
    "an unknown method": refused(line=b"FOO /healthz HTTP/1.1"),
    "a GET with a request as its body": Case(
        request(b"content-length: %d\r\n" % len(SMUGGLED), SMUGGLED, PROBE), [200]
    ),
    "a POST with a request as its body": Case(request(b"content-length: %d\r\n" % len(SMUGGLED), SMUGGLED), [400]),
    "both kinds of connection": Case(
        request(b"connection: close\r\nconnection: keep-alive\r\n" + LENGTH, JOB), [202], closed=True
    ),
    "three at once": Case(request(LENGTH, JOB) * 3, [202, 202, 202]),
}
