"""The table of AWS's error codes. What a call or an entry makes of it: `test_calls`, `test_sqs`."""

from __future__ import annotations

import asyncio
import socket
import ssl
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.session import get_session

from dynein.aws.endpoints import Reach
from dynein.aws.error_codes import meaning_of
from dynein.aws.errors import aws_error, error_code
from dynein.aws.wire.pool import NOT_SENT
from dynein.errors import (
    AccessDenied,
    DyneinError,
    NotBootstrapped,
    NotSent,
    Remedy,
    Throttled,
    Unavailable,
    UnknownQueue,
)
from dynein.runtime.proxies import Proxy


def noted(error: Exception) -> Exception:
    error.add_note(NOT_SENT)
    return error


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def cancelled_in_line() -> asyncio.CancelledError:
    error = asyncio.CancelledError()
    error.add_note(NOT_SENT)
    return error


HOST: Any = SimpleNamespace(host="x", port=80, ssl=True, is_ssl=False)


def refused(code: str, status: int = 400, date: str | None = None) -> ClientError:
    headers = {} if date is None else {"date": date}
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    return ClientError({"Error": {"Code": code, "Message": "why"}, "ResponseMetadata": metadata}, "Operation")  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("code", "meaning", "remedy"),
    [
        ("RequestThrottled", Throttled, Remedy.RETRY),
        ("KMS.ThrottlingException", Throttled, Remedy.RETRY),
        ("InternalError", Unavailable, Remedy.RETRY),
        ("ExpiredTokenException", AccessDenied, Remedy.STOP),
        ("KMS.WhateverItIs", AccessDenied, Remedy.STOP),
        ("ResourceNotFoundException", NotBootstrapped, Remedy.STOP),
        ("QueueDoesNotExist", UnknownQueue, Remedy.REJECT),
    ],
)
def test_a_code_stands_for_an_error_and_that_for_a_remedy(
    code: str, meaning: type[DyneinError], remedy: Remedy
) -> None:
    assert meaning_of(code) is meaning
    assert meaning.remedy is remedy


@pytest.mark.parametrize("code", ["SomethingNew", "NotThrottled", "throttling"])
def test_a_code_that_is_not_in_the_table_is_not_guessed(code: str) -> None:
    assert meaning_of(code) is None


OURS_TO_GET_RIGHT = {
    "BatchEntryIdsNotDistinct",
    "EmptyBatchRequest",
    "InvalidAttributeName",
    "InvalidBatchEntryId",
    "InvalidIdFormat",
    "MessageNotInflight",
    "ReceiptHandleIsInvalid",
    "TooManyEntriesInBatchRequest",
}
"""Of a whole call, a bug of ours: it is retried, and seen as such. Of one entry, ``SenderFault`` decides."""
NEVER_CAUSED = {"PurgeQueueInProgress", "QueueDeletedRecently", "QueueNameExists"}
"""By calls that a running service does not make."""


def test_every_error_that_the_sdk_knows_of_sqs_is_in_the_table_or_here() -> None:
    model = get_session().get_service_model("sqs")
    errors = {shape.name for shape in model.error_shapes}
    assert {name for name in errors if meaning_of(name) is None} == OURS_TO_GET_RIGHT | NEVER_CAUSED


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (refused("ThrottlingException"), Throttled),
        (refused("ProvisionedThroughputExceededException"), Throttled),
        (refused("RequestLimitExceeded"), Throttled),
        (refused("ThrottlingException", 503), Throttled),
        (refused("InternalServerError", 500), Unavailable),
        (refused("NeverSeenBefore", 503), Unavailable),
        (refused("TransactionInProgressException"), Unavailable),
        (refused("ResourceNotFoundException"), NotBootstrapped),
        (refused("AccessDeniedException"), AccessDenied),
        (refused("ExpiredTokenException"), AccessDenied),
        (refused("NeverSeenBefore", 403), AccessDenied),
        (NoCredentialsError(), AccessDenied),
        (EndpointConnectionError(endpoint_url="http://x"), Unavailable),
        (EndpointConnectionError(endpoint_url="http://x", error=aiohttp.ClientOSError("reset")), Unavailable),
        (
            EndpointConnectionError(
                endpoint_url="http://x", error=aiohttp.ClientConnectorError(HOST, ConnectionRefusedError())
            ),
            NotSent,
        ),
        (SSLError(endpoint_url="http://x", error=ssl.SSLError("handshake")), NotSent),
        (ProxyConnectionError(proxy_url="http://p", error=OSError("gone")), NotSent),
        (CredentialRetrievalError(provider="iam-role", error_msg="no route"), NotSent),
        (noted(ConnectionRefusedError()), NotSent),
        (noted(socket.gaierror(socket.EAI_NONAME, "Name or service not known")), NotSent),
        (caused(TimeoutError(), cancelled_in_line()), NotSent),
        (caused(TimeoutError(), asyncio.CancelledError()), Unavailable),
        (ConnectTimeoutError(endpoint_url="http://x"), NotSent),
        (ReadTimeoutError(endpoint_url="http://x"), Unavailable),
        (ConnectionClosedError(endpoint_url="http://x"), Unavailable),
        (TimeoutError(), Unavailable),
        (ConnectionResetError(), Unavailable),
    ],
)
def test_what_an_error_means(error: Exception, meant: type[Exception]) -> None:
    ours = aws_error("PutItem", error)
    assert type(ours) is meant
    assert "PutItem" in str(ours)


@pytest.mark.parametrize(
    "error",
    [
        refused("ConditionalCheckFailedException"),
        refused("TransactionCanceledException"),
        refused("TransactionConflictException"),
        refused("ValidationException"),
        refused("AWS.SimpleQueueService.NonExistentQueue"),
        KeyError("a bug of ours"),
    ],
)
def test_what_is_for_the_caller_to_decide(error: Exception) -> None:
    assert aws_error("PutItem", error) is None


def test_codes_come_without_their_namespace() -> None:
    assert error_code(refused("com.amazonaws.dynamodb.v20120810#ThrottlingException")) == "ThrottlingException"
    assert error_code(refused("AWS.SimpleQueueService.RequestThrottled")) == "RequestThrottled"
    assert error_code(TimeoutError()) == "TimeoutError"


def test_a_wrong_clock_is_named_as_a_cause() -> None:
    error = aws_error("Query", refused("SignatureDoesNotMatch", 403, "Tue, 01 Jan 2030 00:00:00 GMT"))
    assert "clock skew; AWS's says Tue, 01 Jan 2030" in str(error)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (refused("ExpiredTokenException", 400), "have expired: renew them"),
        (refused("UnrecognizedClientException", 400), "in the region of DYNEIN_REGION=eu-west-3"),
        (refused("InvalidClientTokenId", 403), "does not know these credentials"),
        (refused("SignatureDoesNotMatch", 403), "AWS_SECRET_ACCESS_KEY is wrong"),
        (refused("AccessDeniedException", 400), "through the proxy http://p:1 (from HTTPS_PROXY)"),
        (refused("ResourceNotFoundException", 400), "correct DYNEIN_TABLE or the region"),
        (ReadTimeoutError(endpoint_url="http://x"), "did not respond"),
        (noted(ConnectionRefusedError()), "was not sent: DynamoDB at https://d (from DYNEIN_REGION=eu-west-3) through"),
    ],
)
def test_what_to_correct_is_said(error: Exception, said: str) -> None:
    reach = Reach("dynamodb", "https://d", "DYNEIN_REGION=eu-west-3", Proxy("http://p:1", "HTTPS_PROXY"))
    assert said in str(aws_error("Query", error, reach))
    assert "http://p:1" in str(aws_error("Query", error, reach))


def test_a_key_that_cannot_be_used_is_named_as_such() -> None:
    assert "KMS key" in str(aws_error("SendMessageBatch", refused("KMS.DisabledException")))
