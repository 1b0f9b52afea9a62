"""The thin client beside the SDK's own: same requests, responses and errors; and what only it has to take care of."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast
from unittest import mock

import pytest
from aiobotocore.credentials import AioRefreshableCredentials
from aiobotocore.session import AioSession, get_session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import ClientError
from prometheus_client import Gauge

from dynein.aws.calls import AwsCalls
from dynein.aws.clients import dynamodb_client, sqs_client
from dynein.aws.clock_offset import ClockOffset
from dynein.aws.wire.client import CREDENTIALS_CHECKED_S, CredentialsSource, Endpoint, WireClient, wire_client
from dynein.aws.wire.responses import DYNAMODB, SQS
from dynein.aws.wire.sigv4 import timestamp
from dynein.errors import AccessDenied, Unavailable
from dynein.observability.telemetry import Telemetry
from dynein.settings import load_settings
from dynein.testing import ManualClock
from tests.unit.certificates import make_certificate

Client = Literal["wire", "aiobotocore"]
CLIENTS: tuple[Client, ...] = ("wire", "aiobotocore")

ACCESS_KEY, SECRET_KEY = "AKIDTEST", "secret"
T0_MS = 1_764_000_000_000
URL = "http://127.0.0.1/000000000000/a"
KEY: Any = {"pk": {"S": "p"}, "sk": {"B": b"\0\xff"}}
ITEM: Any = {**KEY, "tk": {"S": "é"}, "n": {"N": "7"}}
ITEM_JSON: Any = {"pk": {"S": "p"}, "sk": {"B": "AP8="}, "tk": {"S": "é"}, "n": {"N": "7"}}
KEY_JSON: Any = {"pk": {"S": "p"}, "sk": {"B": "AP8="}}


class Case(NamedTuple):
    """One call, and a full response to it."""

    method: str
    request: dict[str, Any]
    response: dict[str, Any]


ENTRY = {
    "Id": "0",
    "MessageBody": 'é "\U0001f409"',
    "DelaySeconds": 3,
    "MessageAttributes": {
        "s": {"DataType": "String", "StringValue": "x"},
        "b": {"DataType": "Binary", "BinaryValue": b"\0\xff"},
    },
}
BATCH_RESPONSE = {
    "Successful": [{"Id": "0"}],
    "Failed": [{"Id": "1", "Code": "c", "Message": "m", "SenderFault": True}],
}
SQS_CASES = [
    Case("send_message_batch", {"QueueUrl": URL, "Entries": [ENTRY]}, BATCH_RESPONSE),
    Case("delete_message_batch", {"QueueUrl": URL, "Entries": [{"Id": "0", "ReceiptHandle": "r"}]}, BATCH_RESPONSE),
    Case(
        "change_message_visibility_batch",
        {"QueueUrl": URL, "Entries": [{"Id": "0", "ReceiptHandle": "r", "VisibilityTimeout": 1}]},
        BATCH_RESPONSE,
    ),
    Case(
        "receive_message",
        {"QueueUrl": URL, "MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"]},
        {
            "Messages": [
                {
                    "MessageId": "m",
                    "ReceiptHandle": "r",
                    "Body": "é",
                    "Attributes": {"ApproximateReceiveCount": "2"},
                    "MessageAttributes": {
                        "s": {"DataType": "String", "StringValue": "x"},
                        "b": {"DataType": "Binary", "BinaryValue": "AP8="},
                    },
                }
            ]
        },
    ),
    Case("receive_message", {"QueueUrl": URL}, {}),
    Case("get_queue_url", {"QueueName": "a"}, {"QueueUrl": URL}),
    Case(
        "get_queue_attributes",
        {"QueueUrl": URL, "AttributeNames": ["QueueArn"]},
        {"Attributes": {"QueueArn": "arn"}},
    ),
]
DYNAMODB_CASES = [
    Case(
        "query",
        {"TableName": "t", "Limit": 2},
        {"Items": [ITEM_JSON, ITEM_JSON], "Count": 2, "LastEvaluatedKey": KEY_JSON},
    ),
    Case("query", {"TableName": "t", "ExpressionAttributeValues": {":x": {"B": b"\1"}}}, {"Items": [], "Count": 0}),
    Case("get_item", {"TableName": "t", "Key": KEY, "ConsistentRead": True}, {"Item": ITEM_JSON}),
    Case("get_item", {"TableName": "t", "Key": KEY}, {}),
    Case("put_item", {"TableName": "t", "Item": ITEM}, {"ConsumedCapacity": {"TableName": "t", "CapacityUnits": 1.0}}),
    Case("update_item", {"TableName": "t", "Key": KEY, "ReturnValues": "ALL_NEW"}, {"Attributes": ITEM_JSON}),
    Case("delete_item", {"TableName": "t", "Key": KEY}, {}),
    Case(
        "batch_get_item",
        {"RequestItems": {"t": {"Keys": [KEY], "ConsistentRead": True}}},
        {"Responses": {"t": [ITEM_JSON]}, "UnprocessedKeys": {"t": {"Keys": [KEY_JSON]}}},
    ),
    Case(
        "batch_write_item",
        {"RequestItems": {"t": [{"PutRequest": {"Item": ITEM}}, {"DeleteRequest": {"Key": KEY}}]}},
        {"UnprocessedItems": {"t": [{"PutRequest": {"Item": ITEM_JSON}}, {"DeleteRequest": {"Key": KEY_JSON}}]}},
    ),
    Case("batch_write_item", {"RequestItems": {"t": [{"PutRequest": {"Item": ITEM}}]}}, {"UnprocessedItems": {}}),
    Case("transact_write_items", {"TransactItems": [{"Put": {"TableName": "t", "Item": ITEM}}]}, {}),
]
CASES = [*(("sqs", case) for case in SQS_CASES), *(("dynamodb", case) for case in DYNAMODB_CASES)]


class Asked(NamedTuple):
    line: str
    headers: dict[str, str]
    body: bytes


class Server:
    """Gives every request the same response, and keeps it. ``tls`` makes it HTTPS."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = b"{}"
        self.asked: list[Asked] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                line, *lines = head.split("\r\n")[:-2]
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                self.asked.append(Asked(line, headers, body))
                extra = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
                response = f"HTTP/1.1 {self.status} x\r\n{extra}content-length: {len(self.body)}\r\n\r\n"
                writer.write(response.encode("latin-1") + self.body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def says(self, body: Any, status: int = 200, **headers: str) -> None:
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")


@pytest.fixture(scope="module")
def loader() -> Any:
    """Reads the service models once."""
    return get_session().get_component("data_loader")


@pytest.fixture
def session(loader: Any) -> AioSession:
    session = get_session()
    session.register_component("data_loader", loader)
    return session


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    serving = Server()
    listening = await asyncio.start_server(serving.serve, "127.0.0.1", 0)
    serving.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield serving


@contextlib.asynccontextmanager
async def opened(
    service: str, server: Server | str | None, session: AioSession, client: Client = "wire", **settings: Any
) -> AsyncIterator[Any]:
    """``server``: the one to ask, the URL of one, or the SDK's choice."""
    url = f"http://127.0.0.1:{server.port}" if isinstance(server, Server) else server
    overrides = {"region": "us-east-1", "endpoint_url": url, "aws_client": client, **settings}
    opening = sqs_client if service == "sqs" else dynamodb_client
    async with opening(load_settings(overrides), session, ManualClock(T0_MS)) as it:
        yield it


async def both(service: str, server: Server, session: AioSession, call: Callable[[Any], Awaitable[Any]]) -> list[Any]:
    """What ``call`` comes to with either client: its response or error."""
    results = []
    for kind in CLIENTS:
        async with opened(service, server, session, kind) as client:
            try:
                results.append(await call(client))
            except ClientError as error:
                results.append(error)
    return results


def by_method(cases: list[tuple[str, Case]]) -> list[Any]:
    return [pytest.param(service, case, id=f"{case.method}-{i}") for i, (service, case) in enumerate(cases)]


# --- the same as the SDK --------------------------------------------------------------------------------------------


def test_every_operation_has_a_case() -> None:
    assert {case.method for case in SQS_CASES} == set(SQS)
    assert {case.method for case in DYNAMODB_CASES} == set(DYNAMODB)


@pytest.mark.parametrize(("service", "case"), by_method(CASES))
async def test_the_same_request_and_response(service: str, case: Case, server: Server, session: AioSession) -> None:
    server.says(case.response)
    ours, theirs = await both(service, server, session, lambda client: getattr(client, case.method)(**case.request))
    theirs.pop("ResponseMetadata")
    assert ours == theirs
    mine, sdks = server.asked
    assert mine.line == sdks.line
    sdks_body = json.loads(sdks.body)
    sdks_body.pop("ClientRequestToken", None)  # tells the SDK's own retries from new calls, and it makes none
    assert json.loads(mine.body) == sdks_body
    for header in ("host", "content-type", "x-amz-target", "x-amzn-query-mode", "accept-encoding"):
        assert mine.headers.get(header) == sdks.headers.get(header), header
    assert mine.headers["user-agent"].startswith("dynein/")


@pytest.mark.parametrize(("service", "case"), by_method([("sqs", SQS_CASES[0]), ("dynamodb", DYNAMODB_CASES[0])]))
@pytest.mark.parametrize("token", [None, "IQoJb3JpZ2luX2VjE//+=="])
async def test_the_signature(
    service: str,
    case: Case,
    token: str | None,
    server: Server,
    session: AioSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """botocore signs the request that came in once more, and it comes to the same."""
    if token is not None:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    server.says(case.response)
    async with opened(service, server, session) as client:
        await getattr(client, case.method)(**case.request)
    (asked,) = server.asked
    assert asked.headers["x-amz-date"] == "20251124T160000Z", "by the clock that was given"
    assert asked.headers.get("x-amz-security-token") == token
    names = asked.headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    assert {"host", "x-amz-date", "x-amz-target"} <= set(names)
    request = AWSRequest(
        "POST",
        f"http://127.0.0.1:{server.port}/",
        {name: asked.headers[name] for name in names if name != "x-amz-date"},
        asked.body,
    )
    now = datetime.fromtimestamp(T0_MS // 1000, UTC)
    with mock.patch("botocore.auth.get_current_datetime", return_value=now):
        SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY, token), service, "us-east-1").add_auth(request)
    assert asked.headers["authorization"] == request.headers["Authorization"]


def refusal(code: str, **more: Any) -> dict[str, Any]:
    return {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "why", **more}


REASONS = [{"Code": "None"}, {"Code": "ConditionalCheckFailed", "Message": "no"}]


@pytest.mark.parametrize(
    ("service", "body", "status", "headers"),
    [
        ("dynamodb", refusal("ConditionalCheckFailedException"), 400, {"x_amzn_RequestId": "R"}),
        ("dynamodb", refusal("ThrottlingException", Message="not this"), 503, {}),
        ("dynamodb", {"__type": "ResourceNotFoundException", "Message": "capital"}, 400, {}),
        ("dynamodb", {"__type": "a#InternalServerError:http://internal.amazon.com/"}, 500, {}),
        ("dynamodb", refusal("TransactionCanceledException", CancellationReasons=REASONS), 400, {}),
        ("sqs", refusal("QueueDoesNotExist"), 400, {"x_amzn_query_error": "AWS.SimpleQueueService.Gone;Sender"}),
        ("sqs", refusal("QueueDoesNotExist"), 400, {"x_amzn_query_error": ";Sender"}),
        ("sqs", refusal("QueueDoesNotExist"), 400, {"x_amzn_query_error": "half"}),
        ("sqs", refusal("AccessDenied", message=None), 403, {}),
    ],
)
async def test_the_same_errors(
    service: str, body: dict[str, Any], status: int, headers: dict[str, str], server: Server, session: AioSession
) -> None:
    server.says(body, status, **headers)
    method, request, _ = SQS_CASES[0] if service == "sqs" else DYNAMODB_CASES[-1]
    ours, theirs = await both(service, server, session, lambda client: getattr(client, method)(**request))
    assert isinstance(ours, ClientError)
    assert ours.operation_name == theirs.operation_name
    assert ours.response["Error"]["Code"] == theirs.response["Error"]["Code"]
    assert (ours.response["Error"].get("Message") or "") == (theirs.response["Error"].get("Message") or "")
    assert ours.response["Error"].get("QueryErrorCode") == theirs.response["Error"].get("QueryErrorCode")
    metadata, sdks = ours.response["ResponseMetadata"], theirs.response["ResponseMetadata"]
    assert metadata["HTTPStatusCode"] == sdks["HTTPStatusCode"] == status
    assert metadata["HTTPHeaders"] == sdks["HTTPHeaders"]
    assert metadata.get("RequestId", "") == sdks.get("RequestId", "")
    assert cast("Any", ours.response).get("CancellationReasons") == theirs.response.get("CancellationReasons")


class _Empty(AWSResponse):
    def __init__(self, url: str) -> None:
        super().__init__(url, 200, HTTPHeaders(), None)

    @property
    async def content(self) -> bytes:  # type: ignore[override]  # aiobotocore's is to be awaited
        return b"{}"


@pytest.mark.parametrize(
    ("region", "variables"),
    [
        ("eu-west-3", {}),
        ("cn-north-1", {}),
        ("us-east-1", {"AWS_USE_FIPS_ENDPOINT": "true"}),
        ("us-east-1", {"AWS_USE_DUALSTACK_ENDPOINT": "true"}),
        ("us-east-1", {"AWS_ENDPOINT_URL": "http://one.example:4566"}),
        ("us-east-1", {"AWS_ENDPOINT_URL_SQS": "https://a/b/c", "AWS_ENDPOINT_URL_DYNAMODB": "http://[::1]:800"}),
    ],
)
@pytest.mark.parametrize("service", ["sqs", "dynamodb"])
async def test_the_same_endpoint(
    service: str, region: str, variables: dict[str, str], session: AioSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    urls = []

    def instead_of_sending(request: Any, **_: Any) -> AWSResponse:
        urls.append(request.url)
        return _Empty(request.url)

    async with opened(service, None, session, region=region) as client:
        assert isinstance(client, WireClient)
        ours = Endpoint(client.meta.endpoint_url)
        client.meta.events.register("before-send", instead_of_sending)
        await (client.list_queues() if service == "sqs" else client.list_tables())
    (theirs,) = urls
    assert f"{'https' if ours.tls else 'http'}://{ours.host_header}{ours.path}" == theirs


async def test_a_path_in_the_endpoint_is_kept_and_signed(server: Server, session: AioSession) -> None:
    async with opened("sqs", f"http://127.0.0.1:{server.port}/some/path", session) as client:
        await client.receive_message(QueueUrl=URL)
    (asked,) = server.asked
    assert asked.line == "POST /some/path HTTP/1.1"


@pytest.mark.parametrize("kind", ["wire", "aiobotocore"])
async def test_every_other_call_is_the_sdks(kind: Client, server: Server, session: AioSession) -> None:
    async with opened("sqs", server, session, kind) as client:
        assert isinstance(client, WireClient) == (kind == "wire")
        assert client.meta.config.max_pool_connections == 64
        server.says({"QueueUrl": URL})
        assert (await client.create_queue(QueueName="a"))["QueueUrl"] == URL
        server.says(refusal("QueueDoesNotExist"), 400)
        with pytest.raises(client.exceptions.QueueDoesNotExist):
            await client.delete_queue(QueueUrl=URL)
        with pytest.raises(AttributeError):
            await client.make_coffee()
    assert all(asked.headers["user-agent"].startswith("aiobotocore/") for asked in server.asked)


# --- credentials ----------------------------------------------------------------------------------------------------


class Source:
    """Hands out credentials, new ones each time it is asked."""

    def __init__(self, **fixed: str | None) -> None:
        self.fixed = fixed
        self.times = 0

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        self.times += 1
        fields = {"access_key": f"AKID{self.times}", "secret_key": "s", "token": f"token{self.times}"} | self.fixed
        return ReadOnlyCredentials(**fields)


@contextlib.asynccontextmanager
async def signing_with(
    source: CredentialsSource | None, server: Server, session: AioSession, clock: ManualClock
) -> AsyncIterator[Any]:
    async with (
        opened("sqs", server, session, "aiobotocore") as sdk,
        wire_client(sdk, source, clock, connections_max=2) as client,
    ):
        yield client


async def test_credentials_are_asked_for_again_once_in_a_while(server: Server, session: AioSession) -> None:
    source, clock = Source(), ManualClock(T0_MS)
    async with signing_with(source, server, session, clock) as client:
        for pause_s, times in ((0.0, 1), (CREDENTIALS_CHECKED_S / 2, 1), (CREDENTIALS_CHECKED_S, 2)):
            await clock.advance(pause_s)
            await client.receive_message(QueueUrl=URL)
            assert source.times == times
            assert server.asked[-1].headers["x-amz-security-token"] == f"token{times}"
            assert f"Credential=AKID{times}/" in server.asked[-1].headers["authorization"]
            assert server.asked[-1].headers["x-amz-date"] == timestamp(clock.now_ms()), "time goes on meanwhile"


@pytest.mark.parametrize("kind", CLIENTS)
async def test_either_client_tells_how_far_the_clock_is_off(server: Server, session: AioSession, kind: Client) -> None:
    server.says({}, date=formatdate(T0_MS / 1000 + 75, usegmt=True))
    clock, gauge = ManualClock(T0_MS), Gauge("offset", "", registry=None)
    url = f"http://127.0.0.1:{server.port}"
    settings = load_settings({"region": "us-east-1", "endpoint_url": url, "aws_client": kind})
    async with sqs_client(settings, session, clock, ClockOffset(clock, gauge)) as client:
        await client.receive_message(QueueUrl=URL)
    assert gauge._value.get() == -75.0


async def test_credentials_that_expire_are_renewed_by_the_sdk(server: Server, session: AioSession) -> None:
    renewals = 0

    async def renew() -> dict[str, str]:
        nonlocal renewals
        renewals += 1
        expiry = datetime.now(UTC) + timedelta(minutes=1 if renewals == 1 else 60)  # noqa: TID251 - the SDK's own clock
        fields = {"access_key": f"AKID{renewals}", "secret_key": "s", "token": "t"}
        return {**fields, "expiry_time": expiry.isoformat()}

    clock = ManualClock(T0_MS)
    source: Any = AioRefreshableCredentials.create_from_metadata(await renew(), renew, "test")
    async with signing_with(source, server, session, clock) as client:
        await asyncio.gather(*(client.receive_message(QueueUrl=URL) for _ in range(5)))
    assert renewals == 2
    assert all("Credential=AKID2/" in asked.headers["authorization"] for asked in server.asked)


@pytest.mark.parametrize(
    "source",
    [
        None,
        Source(access_key=None),
        Source(secret_key=""),
        Source(token="a\r\nx-amz-target: b"),
        Source(access_key="\xc3\xa4"),
    ],
    ids=["none", "no access key", "no secret key", "line break", "not ASCII"],
)
async def test_credentials_that_cannot_sign(source: Source | None, server: Server, session: AioSession) -> None:
    async with signing_with(source, server, session, ManualClock(T0_MS)) as client:
        with pytest.raises(AccessDenied):
            await AwsCalls(client, Telemetry()).run("ReceiveMessage", client.receive_message(QueueUrl=URL))
    assert server.asked == []


async def test_no_session_token_no_header(server: Server, session: AioSession) -> None:
    async with signing_with(Source(token=None), server, session, ManualClock(T0_MS)) as client:
        await client.receive_message(QueueUrl=URL)
    assert "x-amz-security-token" not in server.asked[0].headers


# --- what else may come ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"<html>502 Bad Gateway</html>", 502),
        (b"", 503),
        (b"<html>Sign in to this network</html>", 200),
        (b"<html>moved</html>", 302),
        (b"not found", 404),
        (b"<html>blocked</html>", 403),
        (b'{"message": "no type"}', 400),
        (b"", 200),
        (b"[]", 200),
        (b'{"Items": 1}', 200),
        (b'{"Items": [{"pk": {"B": "*"}}], "Count": 1}', 200),
        (b'{"Items": [', 200),
        (b'{"Items": [], "Count": 0}', 204),
    ],
)
async def test_what_is_no_response_of_aws_is_unavailable(
    body: bytes, status: int, server: Server, session: AioSession
) -> None:
    server.says(body, status, location="http://127.0.0.1:1/")
    async with opened("dynamodb", server, session) as client:
        with pytest.raises(Unavailable) as caught:
            await AwsCalls(client, Telemetry()).run("Query", client.query(TableName="t"))
    assert len(server.asked) == 1, "not sent again, nor where it is redirected to"
    assert len(str(caught.value)) < 1000


async def test_a_checksum(server: Server, session: AioSession) -> None:
    async with opened("dynamodb", server, session) as client:
        call = AwsCalls(client, Telemetry()).run
        body = b'{"Items": [], "Count": 0}'
        server.says(body, x_amz_crc32=str(zlib.crc32(body)))
        assert await call("Query", client.query(TableName="t")) == {"Items": [], "Count": 0}
        for wrong in (str(zlib.crc32(body) ^ 1), "", "x"):
            server.says(body, x_amz_crc32=wrong)
            with pytest.raises(Unavailable, match="checksum"):
                await call("Query", client.query(TableName="t"))


async def test_a_wrong_clock_is_named(server: Server, session: AioSession) -> None:
    server.says(refusal("InvalidSignatureException"), 400, date="Tue, 25 Nov 2025 16:00:00 GMT")
    for kind in CLIENTS:
        async with opened("dynamodb", server, session, kind) as client:
            with pytest.raises(AccessDenied, match="clock skew; AWS's says Tue, 25 Nov 2025 16:00:00 GMT"):
                await AwsCalls(client, Telemetry()).run("Query", client.query(TableName="t"))


async def test_a_text_that_has_no_utf8_form_is_left_to_aws(server: Server, session: AioSession) -> None:
    """Its entry fails there, and its neighbours do not."""
    entries = [{**ENTRY, "MessageBody": "\ud800"}]
    async with opened("sqs", server, session) as client:
        await client.send_message_batch(QueueUrl=URL, Entries=entries)
    (asked,) = server.asked
    (entry,) = json.loads(asked.body)["Entries"]
    assert entry["MessageBody"] == "\ud800"
    assert entry["MessageAttributes"]["b"]["BinaryValue"] == "AP8="


async def test_a_proxy_is_left_to_the_sdk(server: Server, session: AioSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
    async with opened("sqs", "http://sqs.example", session) as client:
        assert not isinstance(client, WireClient)
        await client.receive_message(QueueUrl=URL)
    (asked,) = server.asked
    assert asked.line == "POST http://sqs.example/ HTTP/1.1"
    monkeypatch.setenv("NO_PROXY", ".example")
    async with opened("sqs", "http://sqs.example", session) as client:
        assert isinstance(client, WireClient)


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return make_certificate(tmp_path / "certificate.pem")


@pytest.mark.parametrize("kind", ["wire", "aiobotocore"])
@pytest.mark.parametrize(
    ("host", "trusted"), [("127.0.0.1", True), ("127.0.0.1", False), ("localhost", True)], ids=["", "CA", "name"]
)
async def test_a_certificate_is_checked(
    kind: Client, host: str, *, trusted: bool, certificate: Path, session: AioSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trusted:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    serving = Server()
    async with await asyncio.start_server(serving.serve, "127.0.0.1", 0, ssl=tls) as listening:
        url = f"https://{host}:{listening.sockets[0].getsockname()[1]}"
        async with opened("sqs", url, session, kind) as client:
            call = AwsCalls(client, Telemetry()).run
            if trusted and host == "127.0.0.1":
                assert await call("ReceiveMessage", client.receive_message(QueueUrl=URL)) is not None
                assert len(serving.asked) == 1
            else:
                with pytest.raises(Unavailable, match="certificate"):
                    await call("ReceiveMessage", client.receive_message(QueueUrl=URL))
                assert serving.asked == []
