"""Signatures: AWS's own examples, and whatever else botocore signs in the same way."""

from __future__ import annotations

from datetime import UTC, datetime
from unittest import mock

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from dynein.aws.wire.sigv4 import Signer, timestamp

ACCESS_KEY, SECRET_KEY = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
HOST, DATE = ("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")
SESSION_TOKEN = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthA"
    "x7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY"
    "9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)
FORM = "application/x-www-form-urlencoded"


# The aws-sig-v4-test-suite, in so far as it is about POST without a query string.
@pytest.mark.parametrize(
    ("headers", "body", "signature"),
    [
        pytest.param(
            [HOST, DATE],
            b"",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            id="post-vanilla",
        ),
        pytest.param(
            [HOST, ("my-header1", "value1"), DATE],
            b"",
            "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
            id="post-header-key-sort",
        ),
        pytest.param(
            [HOST, ("my-header1", "VALUE1"), DATE],
            b"",
            "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
            id="post-header-value-case",
        ),
        pytest.param(
            [HOST, DATE, ("x-amz-security-token", SESSION_TOKEN)],
            b"",
            "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
            id="post-sts-header-before",
        ),
        pytest.param(
            [("content-type", FORM), HOST, DATE],
            b"Param1=value1",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            id="post-x-www-form-urlencoded",
        ),
        pytest.param(
            [("content-type", f"{FORM}; charset=utf8"), HOST, DATE],
            b"Param1=value1",
            "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe",
            id="post-x-www-form-urlencoded-parameters",
        ),
    ],
)
def test_the_published_examples(headers: list[tuple[str, str]], body: bytes, signature: str) -> None:
    signer = Signer("us-east-1", "service")
    names = ";".join(name for name, _ in headers)
    assert signer.authorization(ACCESS_KEY, SECRET_KEY, DATE[1], "/", headers, body) == (
        f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={names}, Signature={signature}"
    )


printable = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)
seconds = st.integers(0, 4_102_444_800)


@given(
    moments=st.lists(st.tuples(seconds, printable), min_size=1, max_size=4),
    body=st.binary(max_size=2000),
    target=st.from_regex(r"[A-Za-z0-9_]{1,30}\.[A-Za-z]{1,30}", fullmatch=True),
    token=st.none() | printable,
    region=st.sampled_from(["us-east-1", "cn-north-1"]),
    path=st.sampled_from(["/", "/a/b"]),
)
def test_signs_as_botocore_does(
    moments: list[tuple[int, str]], body: bytes, target: str, token: str | None, region: str, path: str
) -> None:
    """One signer over several moments and secrets: the key that it keeps is never one for another day or secret."""
    signer = Signer(region, "sqs")
    for second, secret in moments:
        when = timestamp(second * 1000 + 999)
        headers = [
            ("content-type", "application/x-amz-json-1.0"),
            ("host", "sqs.example:4566"),
            ("x-amz-date", when),
            *([("x-amz-security-token", token)] if token else []),
            ("x-amz-target", target),
        ]
        signed = signer.authorization(ACCESS_KEY, secret, when, path, headers, body)
        assert signed == botocores(second, secret, token, region, path, target, body)


def botocores(
    second: int, secret: str, token: str | None, region: str, path: str, target: str, body: bytes
) -> str | None:
    request = AWSRequest(
        method="POST",
        url=f"http://sqs.example:4566{path}",
        data=body,
        headers={"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": target},
    )
    moment = datetime.fromtimestamp(second, UTC)
    with mock.patch("botocore.auth.get_current_datetime", return_value=moment):
        SigV4Auth(Credentials(ACCESS_KEY, secret, token), "sqs", region).add_auth(request)
    header: str | None = request.headers["Authorization"]
    return header
