"""One service's client: the calls that the running service makes, on the wire; every other one, by the SDK.

The SDK's client still says where the service is, which region it is in and whose credentials to use, so profiles,
roles, endpoint variables, FIPS and dual-stack settings mean what they always mean. (One exception: DynamoDB's endpoints
for a single AWS account, which the SDK prefers when it knows the account, are not used; the regional one serves all.)
"""

from __future__ import annotations

import json
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, urlsplit

import msgspec
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import (
    ConnectionError,  # noqa: A004 - botocore's name
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
)
from botocore.httpsession import create_urllib3_context, get_cert_path
from botocore.utils import normalize_url_path

from dynein import __version__
from dynein.aws.clock_offset import ClockOffset
from dynein.aws.wire.pool import NOT_SENT, Pool
from dynein.aws.wire.responses import DYNAMODB, SQS, Operation
from dynein.aws.wire.sigv4 import Signer, timestamp
from dynein.errors import AccessDenied
from dynein.runtime.clock import Clock

USER_AGENT = f"dynein/{__version__}"
CREDENTIALS_CHECKED_S = 1.0
"""How long credentials are used before the SDK is asked again whether they want renewing: that takes a lock and two
clocks, more than the rest of a request costs. It renews them ten minutes and more before they expire."""

_CONTENT_TYPE = "application/x-amz-json-1.0"
_QUERY_MODE = ("x-amzn-query-mode", "true")
"""Asks SQS for the error codes of its older protocol too, which are the ones that its documentation names."""
_PORTS = {"http": 80, "https": 443}
_encode = msgspec.json.Encoder().encode


class CredentialsSource(Protocol):
    """Any of the SDK's asynchronous credentials. It renews those that expire."""

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Those of this moment."""


class _Credentials(NamedTuple):
    access_key: str
    secret_key: str
    token: str | None


class Endpoint:
    """Where a service is reached."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.scheme in _PORTS, url
        assert parts.hostname is not None, url
        self.tls = parts.scheme == "https"
        self.host = parts.hostname
        self.port = parts.port or _PORTS[parts.scheme]
        self.path = parts.path or "/"
        name = f"[{self.host}]" if ":" in self.host else self.host
        self.host_header = name if self.port == _PORTS[parts.scheme] else f"{name}:{self.port}"


class RenewedCredentials:
    """``source``'s, asked for again each `CREDENTIALS_CHECKED_S`."""

    def __init__(self, source: CredentialsSource | None, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._credentials: _Credentials | None = None
        self._checked_until_s = 0.0

    def fresh(self) -> _Credentials | None:
        """Those of the last `renew`, while they need not be checked."""
        return self._credentials if self._clock.monotonic() < self._checked_until_s else None

    async def renew(self) -> _Credentials:
        """Those of now. Raises `NoCredentialsError`, `AccessDenied`, and what finding them raises."""
        if self._source is None:
            raise NoCredentialsError
        checked_at_s = self._clock.monotonic()
        try:
            frozen = await self._source.get_frozen_credentials()
        except (ConnectionError, HTTPClientError, OSError, ValueError, KeyError, RuntimeError) as error:
            # Its own service is not reachable, or a token file is gone.
            raise CredentialRetrievalError(provider="the SDK", error_msg=str(error)) from error
        if not frozen.access_key or not frozen.secret_key:
            raise NoCredentialsError
        credentials = _Credentials(frozen.access_key, frozen.secret_key, frozen.token)
        for value in (credentials.access_key, credentials.token or ""):
            if not (value.isascii() and value.isprintable()):  # a line break would start a header of its own
                raise AccessDenied("the AWS access key or session token has characters that none has: correct it")
        self._credentials = credentials
        self._checked_until_s = checked_at_s + CREDENTIALS_CHECKED_S
        return credentials


class RequestWriter:
    """Writes one service's signed requests."""

    def __init__(self, service: str, endpoint: Endpoint, signer: Signer, clock: Clock) -> None:
        self._host = endpoint.host_header
        self._path = endpoint.path
        self._signed_path = quote(normalize_url_path(endpoint.path), safe="/~")
        self._extra = (_QUERY_MODE,) if service == "sqs" else ()
        self._signer = signer
        self._clock = clock
        self._second = -1
        self._timestamp = ""

    def write(self, target: str, credentials: _Credentials, body: bytes) -> bytes:
        """Head and body of a request for the operation ``target``."""
        when = self._now()
        token = credentials.token
        signed = (
            ("content-type", _CONTENT_TYPE),
            ("host", self._host),
            ("x-amz-date", when),
            *((("x-amz-security-token", token),) if token else ()),
            ("x-amz-target", target),
            *self._extra,
        )
        authorization = self._signer.authorization(
            credentials.access_key, credentials.secret_key, when, self._signed_path, signed, body
        )
        lines = "".join([f"{name}: {value}\r\n" for name, value in signed])
        head = (
            f"POST {self._path} HTTP/1.1\r\n{lines}authorization: {authorization}\r\nuser-agent: {USER_AGENT}\r\n"
            f"accept-encoding: identity\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode("ascii") + body

    def _now(self) -> str:
        now_ms = self._clock.now_ms()
        second = now_ms // 1000
        if second != self._second:
            self._second, self._timestamp = second, timestamp(now_ms)
        return self._timestamp


class WireClient:
    """Has the methods of ``sdk``, an open client of SQS or DynamoDB; those in `dynein.aws.wire.responses` cost less.

    The SDK's client has to stay open as long as this one is used. Nothing here is bounded in time:
    `dynein.aws.calls.AwsCalls` does that. Errors are the SDK's (`ClientError` for what AWS refuses,
    `ResponseParserError`, what finding credentials raises), and `OSError` for what becomes of the connection.
    """

    def __init__(
        self,
        sdk: Any,  # noqa: ANN401 - the SDK makes its clients' classes at run time
        credentials: CredentialsSource | None,
        pool: Pool,
        clock: Clock,
        offset: ClockOffset | None = None,
    ) -> None:
        model = sdk.meta.service_model
        service: str = model.service_name
        signer = Signer(sdk.meta.region_name, model.signing_name)
        self._sdk = sdk
        self._pool = pool
        self._offset = offset
        self._credentials = RenewedCredentials(credentials, clock)
        self._requests = RequestWriter(service, Endpoint(sdk.meta.endpoint_url), signer, clock)
        for method, operation in (SQS if service == "sqs" else DYNAMODB).items():
            target = f"{model.metadata['targetPrefix']}.{operation.name}"
            setattr(self, method, partial(self._call, operation, target))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of the SDK's client
        return getattr(self._sdk, name)

    async def _call(self, operation: Operation, target: str, /, **request: Any) -> Any:  # noqa: ANN401 - see Operation
        credentials = self._credentials.fresh()
        renewed = credentials is None
        if credentials is None:
            try:
                credentials = await self._credentials.renew()
            except BaseException as error:
                error.add_note(NOT_SENT)
                raise
        response = await self._pool.ask(self._requests.write(target, credentials, _encoded(request)))
        if renewed and self._offset is not None:  # often enough for it
            self._offset.observe(response.headers.get(b"date", b"").decode("latin-1"))
        return operation.read(response)


@asynccontextmanager
async def wire_client(
    sdk: Any,  # noqa: ANN401 - the SDK makes its clients' classes at run time
    credentials: CredentialsSource | None,
    clock: Clock,
    *,
    connections_max: int,
    ca_bundle: str | None = None,
    offset: ClockOffset | None = None,
) -> AsyncIterator[WireClient]:
    """A client on the wire beside the open client ``sdk``.

    ``ca_bundle``: a file with the certificate authorities to trust; unset, certifi's.
    """
    endpoint = Endpoint(sdk.meta.endpoint_url)
    tls = _tls_context(ca_bundle) if endpoint.tls else None
    pool = Pool(endpoint.host, endpoint.port, tls, connections_max, clock)
    try:
        yield WireClient(sdk, credentials, pool, clock, offset)
    finally:
        await pool.close()


def _tls_context(ca_bundle: str | None) -> ssl.SSLContext:
    """By the SDK's rules: its protocol versions and ciphers; certificates and names are checked."""
    context: ssl.SSLContext = create_urllib3_context()
    context.check_hostname = True
    context.load_verify_locations(ca_bundle or get_cert_path(verify=True))
    return context


def _encoded(request: Mapping[str, Any]) -> bytes:
    try:
        return _encode(request)  # bytes become base64, which is how AWS's JSON protocol writes them
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8 form, but JSON can spell it. Let AWS refuse it, for that entry alone.
        return json.dumps(request, default=lambda raw: b64encode(raw).decode("ascii")).encode("ascii")
