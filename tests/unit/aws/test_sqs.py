"""What SQS may respond, and no engine does on request: throttling, denials, half a batch. From a scripted server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from dynein.aws.clients import sqs_client
from dynein.aws.sqs import SqsQueues
from dynein.core.job import Attribute
from dynein.core.queues import Destination, OutgoingMessage, SendFailure
from dynein.errors import AccessDenied, DyneinError, Remedy, Throttled, Unavailable, UnknownQueue
from dynein.observability.telemetry import Telemetry
from dynein.settings import load_settings

URL = "http://127.0.0.1/000000000000/a"
HANG_S = 240.0


class Response(NamedTuple):
    status: int
    body: dict[str, Any]
    query_code: str = ""


class Silence(NamedTuple):
    """No response, until the client gives up."""


def ok(**body: Any) -> Response:
    return Response(200, body)


def error(code: str, *, status: int = 400, query_code: str = "") -> Response:
    return Response(status, {"__type": f"com.amazonaws.sqs#{code}", "message": f"it is {code}"}, query_code)


class Server:
    """Takes its responses from a script, in order; keeps the requests."""

    def __init__(self) -> None:
        self.script: list[Response | Silence] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.silent: set[str] = set()
        """URLs of queues that never respond; their requests take nothing from the script."""
        self._heard = asyncio.Condition()

    async def hears_of(self, *urls: str) -> None:
        """Return once a request for each of them has come."""
        async with self._heard:
            await self._heard.wait_for(lambda: {body["QueueUrl"] for _, body in self.asked} >= set(urls))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                headers = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:-2])
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                self.asked.append((headers["x-amz-target"].removeprefix("amazonsqs."), body))
                async with self._heard:
                    self._heard.notify_all()
                response = Silence() if body.get("QueueUrl") in self.silent else self.script.pop(0)
                if isinstance(response, Silence):
                    await reader.read()
                    return
                payload = json.dumps(response.body).encode()
                extra = f"x-amzn-query-error: {response.query_code};Sender\r\n" if response.query_code else ""
                writer.write(
                    f"HTTP/1.1 {response.status} x\r\ncontent-type: application/x-amz-json-1.0\r\n{extra}"
                    f"content-length: {len(payload)}\r\n\r\n".encode()
                    + payload
                )
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    def sent(self) -> list[list[str]]:
        """The bodies of each send."""
        return [[e["MessageBody"] for e in body["Entries"]] for verb, body in self.asked if verb == "sendmessagebatch"]


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@contextlib.asynccontextmanager
async def opened(server: Server, **settings: Any) -> AsyncIterator[SqsQueues]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    endpoint = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with listening, sqs_client(load_settings({"region": "us-east-1", "endpoint_url": endpoint, **settings})) as c:
        yield SqsQueues(c, Telemetry())
        assert server.script == [], "every scripted response was asked for"


@pytest.fixture
async def queues(server: Server) -> AsyncIterator[SqsQueues]:
    async with opened(server, call_timeout_s=0.5) as queues:
        yield queues


def messages(*bodies: str) -> list[OutgoingMessage]:
    return [OutgoingMessage(body, {}) for body in bodies]


def done(*ids: str) -> dict[str, Any]:
    return {"Successful": [{"Id": i, "MessageId": f"m{i}", "MD5OfMessageBody": "x"} for i in ids]}


def failed(entry_id: str, code: str, *, sender_fault: bool) -> dict[str, Any]:
    return {"Id": entry_id, "Code": code, "Message": "why", "SenderFault": sender_fault}


# --- responses to entries ---------------------------------------------------------------------------------------------


RETRY, THROTTLED = (Remedy.RETRY, False), (Remedy.RETRY, True)
STOP, REJECT = (Remedy.STOP, False), (Remedy.REJECT, False)


@pytest.mark.parametrize(
    ("code", "sender_fault", "meaning"),
    [
        ("InvalidMessageContents", True, REJECT),
        ("InvalidParameterValue", True, REJECT),
        ("AWS.SimpleQueueService.BatchRequestTooLong", True, REJECT),
        ("SomethingNew", True, REJECT),
        ("SomethingNew", False, RETRY),
        ("InternalError", False, RETRY),
        ("ServiceUnavailable", True, RETRY),
        ("RequestThrottled", True, THROTTLED),
        ("ThrottlingException", True, THROTTLED),
        ("KMS.ThrottlingException", True, THROTTLED),
        ("KmsThrottled", True, THROTTLED),
        ("OverLimit", True, THROTTLED),
        ("AWS.SimpleQueueService.RequestThrottled", False, THROTTLED),
        ("KMS.DisabledException", True, STOP),
        ("KMS.SomethingNew", True, STOP),
        ("KmsAccessDenied", True, STOP),
        ("AccessDenied", True, STOP),
    ],
)
async def test_a_failed_entry_is_rejected_only_if_its_content_is_at_fault(
    server: Server, queues: SqsQueues, code: str, meaning: tuple[Remedy, bool], *, sender_fault: bool
) -> None:
    server.script = [ok(**done("0", "2"), Failed=[failed("1", code, sender_fault=sender_fault)])]
    responses = await queues.send(URL, messages("a", "b", "c"))
    assert responses == [None, SendFailure(code.removeprefix("AWS.SimpleQueueService."), "why", *meaning), None]


async def test_an_entry_that_says_nothing_of_its_fault_is_retried(server: Server, queues: SqsQueues) -> None:
    server.script = [ok(Failed=[{"Id": "0"}])]
    assert await queues.send(URL, messages("a")) == [SendFailure("Unknown", "", Remedy.RETRY)]


async def test_an_entry_that_the_response_leaves_out_has_failed_for_now(server: Server, queues: SqsQueues) -> None:
    server.script = [ok(**done("1"))]
    first, second = await queues.send(URL, messages("a", "b"))
    assert first is not None
    assert first.remedy is Remedy.RETRY
    assert second is None
    for verb in (queues.delete(URL, ["r"]), queues.extend(URL, ["r"], 1)):
        server.script = [ok()]
        (response,) = await verb
        assert response is not None
        assert response.remedy is Remedy.RETRY


async def test_an_entry_both_acknowledged_and_failed_has_failed(server: Server, queues: SqsQueues) -> None:
    server.script = [ok(**done("0"), Failed=[failed("0", "InternalError", sender_fault=False)])]
    (response,) = await queues.send(URL, messages("a"))
    assert response is not None


# --- whole calls ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "raised"),
    [
        (error("QueueDoesNotExist", query_code="AWS.SimpleQueueService.NonExistentQueue"), UnknownQueue),
        (error("QueueDoesNotExist"), UnknownQueue),
        (error("InvalidAddress"), UnknownQueue),
        (error("RequestThrottled", status=403), Throttled),
        (error("ThrottlingException"), Throttled),
        (error("OverLimit", query_code="AWS.SimpleQueueService.OverLimit"), Throttled),
        (error("KmsThrottled", query_code="KMS.ThrottlingException"), Throttled),
        (error("KmsDisabled", query_code="KMS.DisabledException"), AccessDenied),
        (error("KmsAccessDenied"), AccessDenied),
        (error("AccessDeniedException", status=403, query_code="AccessDenied"), AccessDenied),
        (error("InvalidClientTokenId", status=403), AccessDenied),
        (error("InternalFailure", status=500), Unavailable),
        (error("ServiceUnavailable", status=503), Unavailable),
        (error("SomethingNew"), Unavailable),
        (Silence(), Unavailable),
    ],
    ids=lambda value: (value.query_code or value.body.get("__type", "")) if isinstance(value, Response) else None,
)
async def test_a_failed_call_is_an_error_of_its_kind_and_is_not_repeated(
    server: Server, queues: SqsQueues, response: Response | Silence, raised: type[DyneinError]
) -> None:
    server.script = [response]
    with pytest.raises(raised):
        await queues.send(URL, messages("a", "b"))
    assert len(server.asked) == 1


async def test_a_lost_connection_is_unavailable(server: Server, queues: SqsQueues) -> None:
    server.script = [Response(200, {}), Silence()]
    await queues.receive(URL, entries_max=1, wait_s=0, visibility_timeout_s=1)
    with pytest.raises(Unavailable):
        await queues.delete(URL, ["r"])


async def test_a_batch_refused_for_content_is_sent_entry_by_entry_in_order(server: Server, queues: SqsQueues) -> None:
    server.script = [error("InvalidParameterValue"), ok(**done("0")), error("InvalidParameterValue"), ok(**done("2"))]
    responses = await queues.send(URL, messages("a", "b", "c"))
    assert responses == [None, SendFailure("InvalidParameterValue", "it is InvalidParameterValue", Remedy.REJECT), None]
    assert server.sent() == [["a", "b", "c"], ["a"], ["b"], ["c"]]


async def test_entry_by_entry_ends_where_the_queue_itself_fails(server: Server, queues: SqsQueues) -> None:
    """What was acknowledged by then is reported; what follows is not sent, so that order holds on a FIFO queue."""
    server.script = [
        error("BatchRequestTooLong", query_code="AWS.SimpleQueueService.BatchRequestTooLong"),
        ok(**done("0")),
        error("RequestThrottled", status=403),
    ]
    first, second, third = await queues.send(URL, messages("a", "b", "c"))
    assert first is None
    assert second is not None
    assert third is not None
    assert (second.code, second.remedy, second.throttled) == ("Throttled", Remedy.RETRY, True)
    assert third == second
    assert server.sent() == [["a", "b", "c"], ["a"], ["b"]]


async def test_a_binary_value_that_is_not_base64_costs_no_call_and_no_neighbour(
    server: Server, queues: SqsQueues
) -> None:
    bad = OutgoingMessage("bad", {"b": Attribute("Binary", "*")})
    (alone,) = await queues.send(URL, [bad])
    assert alone is not None
    assert alone.remedy is Remedy.REJECT
    server.script = [ok(**done("1"))]
    responses = await queues.send(URL, [bad, *messages("good")])
    assert responses == [alone, None]


async def test_optional_parameters_are_sent_only_when_given(server: Server, queues: SqsQueues) -> None:
    server.script = [ok(**done("0", "1"))]
    await queues.send(URL, [*messages("a"), OutgoingMessage("b", {}, 5, "g", "d")])
    (_, body), *_ = server.asked
    assert body["Entries"] == [
        {"Id": "0", "MessageBody": "a", "DelaySeconds": 0},
        {"Id": "1", "MessageBody": "b", "DelaySeconds": 5, "MessageGroupId": "g", "MessageDeduplicationId": "d"},
    ]


async def test_a_fifo_queue_which_takes_no_delay_is_sent_none(server: Server, queues: SqsQueues) -> None:
    server.script = [ok(**done("0"))]
    await queues.send(URL + ".fifo", messages("a"))
    (_, body), *_ = server.asked
    assert body["Entries"] == [{"Id": "0", "MessageBody": "a"}]


# --- look-ups -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue", ["a", URL])
@pytest.mark.parametrize(
    ("response", "raised"),
    [
        (error("QueueDoesNotExist", query_code="AWS.SimpleQueueService.NonExistentQueue"), UnknownQueue),
        (error("AccessDenied", status=403), UnknownQueue),
        (error("AccessDeniedException"), UnknownQueue),
        (error("InvalidClientTokenId", status=403), AccessDenied),
        (error("RequestThrottled", status=403), Throttled),
        (error("InternalFailure", status=500), Unavailable),
    ],
    ids=["missing", "denied", "denied-exception", "bad-credentials", "throttled", "failed"],
)
async def test_a_look_up_tells_a_hidden_queue_from_broken_credentials(
    server: Server, queues: SqsQueues, queue: str, response: Response, raised: type[DyneinError]
) -> None:
    server.script = [response]
    with pytest.raises(raised):
        await queues.resolve(queue)


ATTRIBUTES = {"DelaySeconds": "7", "MaximumMessageSize": "2048", "MessageRetentionPeriod": "60", "Policy": "{}"}


async def test_a_look_up_by_name_brings_the_attributes(server: Server, queues: SqsQueues) -> None:
    server.script = [ok(QueueUrl=URL), ok(Attributes=ATTRIBUTES)]
    assert await queues.resolve("a") == Destination(URL, False, delay_s=7, message_bytes_max=2048, retention_s=60)
    assert [verb for verb, _ in server.asked] == ["getqueueurl", "getqueueattributes"]


async def test_a_look_up_by_url_takes_one_call(server: Server, queues: SqsQueues) -> None:
    server.script = [ok(Attributes=ATTRIBUTES)]
    assert (await queues.resolve(URL)).delay_s == 7
    assert [verb for verb, _ in server.asked] == ["getqueueattributes"]


@pytest.mark.parametrize(
    "response", [ok(), ok(Attributes={}), ok(Attributes={"DelaySeconds": "", "MaximumMessageSize": "many"})]
)
async def test_an_engine_that_tells_no_attributes_has_default_ones(
    server: Server, queues: SqsQueues, response: Response
) -> None:
    server.script = [ok(QueueUrl=URL), response]
    assert await queues.resolve("a") == Destination(URL, False)


@pytest.mark.parametrize("denied", [error("AccessDenied", status=403), error("AccessDeniedException")])
async def test_a_queue_whose_attributes_may_not_be_read_is_found_with_a_warning(
    server: Server, queues: SqsQueues, caplog: pytest.LogCaptureFixture, denied: Response
) -> None:
    server.script = [ok(QueueUrl=URL), denied]
    assert await queues.resolve("a") == Destination(URL, False)
    (record,) = caplog.records
    assert "the attributes of a queue may not be read" in record.getMessage()


async def test_credentials_that_cease_to_be_valid_between_the_two_calls_are_no_missing_permission(
    server: Server, queues: SqsQueues
) -> None:
    server.script = [ok(QueueUrl=URL), error("InvalidClientTokenId", status=403)]
    with pytest.raises(AccessDenied):
        await queues.resolve("a")


async def test_a_queue_that_is_deleted_between_the_two_calls_is_unknown(server: Server, queues: SqsQueues) -> None:
    missing = error("QueueDoesNotExist", query_code="AWS.SimpleQueueService.NonExistentQueue")
    server.script = [ok(QueueUrl=URL), missing]
    with pytest.raises(UnknownQueue):
        await queues.resolve("a")


async def test_what_cannot_be_a_queue_of_ours_costs_no_call(server: Server, queues: SqsQueues) -> None:
    for queue in ("a b", "https://evil.example/000000000000/a"):
        with pytest.raises(UnknownQueue):
            await queues.resolve(queue)
    assert server.asked == []


# --- queues that do not respond -------------------------------------------------------------------------------------


async def test_queues_that_do_not_respond_leave_connections_to_those_that_do(server: Server) -> None:
    """More calls to them than there are connections, and none of them ends."""
    silent = [f"http://127.0.0.1/000000000000/silent-{number}" for number in range(30)]
    server.silent = set(silent)
    server.script = [ok(**done("0"))] * 3
    patient = dict.fromkeys(("lease_ttl_s", "member_ttl_s", "visibility_timeout_s"), 500) | {"retire_grace_s": 2000}
    async with opened(server, call_timeout_s=HANG_S, **patient) as queues:
        sending = [asyncio.ensure_future(queues.send(url, messages("s"))) for url in silent for _ in range(8)]
        await server.hears_of(*silent)
        try:
            async with asyncio.timeout(HANG_S / 2):
                for _ in range(3):
                    assert await queues.send(URL, messages("a")) == [None]
        finally:
            for task in sending:
                task.cancel()
            await asyncio.wait(sending)
        assert all(task.cancelled() for task in sending)


# --- receive --------------------------------------------------------------------------------------------------------


async def test_a_receive_may_take_its_long_poll_and_a_call_on_top(server: Server, queues: SqsQueues) -> None:
    """The read timeout here is 0.5 s and 5 s of long poll: a wait past it is cut, not run into the timeout."""
    server.script = [ok()]
    assert await queues.receive(URL, entries_max=1, wait_s=20, visibility_timeout_s=1) == []
    (_, body), *_ = server.asked
    assert body["WaitTimeSeconds"] == 4
