"""What the SDK's errors, and the failed entries of SQS's batches, mean to us. By `dynein.aws.error_codes`."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import aiohttp
from botocore.exceptions import (
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's name
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ProxyConnectionError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from dynein.aws.endpoints import Reach, region_hint, why_unreachable
from dynein.aws.error_codes import (
    CLOCK_CODES,
    CREDENTIALS_CODES,
    EXPIRED_CODES,
    RESULT_CODES,
    bare_code,
    is_about_the_key,
    meaning_of,
)
from dynein.aws.sdk_configuration import credentials_error
from dynein.aws.wire.pool import NOT_SENT
from dynein.core.queues import SendFailure
from dynein.errors import (
    AccessDenied,
    DyneinError,
    NotBootstrapped,
    NotSent,
    Rejected,
    Remedy,
    Throttled,
    Unavailable,
    UnknownQueue,
)

_SERVER_ERROR = 500
_FORBIDDEN = 403


def error_code(error: BaseException) -> str:
    """AWS's error code without prefixes, or the exception's name where AWS did not respond."""
    if isinstance(error, ClientError):
        return bare_code(str(error.response.get("Error", {}).get("Code", "Unknown")))
    return type(error).__name__


def aws_error(operation: str, error: Exception, reach: Reach | None = None) -> DyneinError | None:
    """What ``error`` of the SDK means to us, or ``None`` where that depends on the call.

    ``None`` is for the caller to decide on (`RESULT_CODES`, a queue that does not exist, a message that SQS does not
    take) or a bug of ours (a request that AWS calls malformed). ``reach`` is where the call went.
    """
    where = "AWS" if reach is None else str(reach)
    if isinstance(error, DyneinError):
        return None
    if isinstance(error, ClientError):
        return _refused(error_code(error), f"{operation}: {error_code(error)}: {error}", error, reach)
    about_credentials = credentials_error(error)
    if about_credentials is not None:
        return type(about_credentials)(f"{operation} was not sent: {about_credentials}")
    if was_not_sent(error):
        return NotSent(
            f"{operation} was not sent: {where} cannot be reached: {why_unreachable(error)}{region_hint(error, reach)}"
        )
    match error:
        case HTTPClientError() | ConnectionError() | ResponseParserError() | IncompleteReadError() | OSError():
            what = "did not respond in time" if isinstance(error, TimeoutError) else "did not respond"
            return Unavailable(f"{operation}: {where} {what}: {error_code(error)}{_detail(error)}")
        case _:
            return None


def was_not_sent(error: BaseException) -> bool:
    """Is it certain that no request was sent when ``error`` was raised?

    The SDK calls a lost connection an `EndpointConnectionError` too, as it does one that could not be made.
    """
    if NOT_SENT in getattr(error, "__notes__", ()):
        return True
    if isinstance(error, TimeoutError) and error.__cause__ is not None:  # of `asyncio.timeout`: what it cancelled
        return was_not_sent(error.__cause__)
    if isinstance(error, EndpointConnectionError):
        return isinstance(error.kwargs.get("error"), aiohttp.ClientConnectorError | socket.gaierror)
    return isinstance(error, ConnectTimeoutError | SSLError | ProxyConnectionError)


def queue_error(queue: str, operation: str, error: ClientError) -> DyneinError | None:
    """What a refusal of SQS's that `aws_error` left as it is means; ``None``: ``queue`` refused the call's content."""
    meaning = meaning_of(error_code(error))
    if meaning is UnknownQueue:
        return UnknownQueue(queue)
    if meaning is Rejected:
        return None
    return Unavailable(f"{operation}: {message_of(error)}")  # a code that we do not know may speak of the queue


def entry_failure(entry: Mapping[str, Any]) -> SendFailure:
    """What one of the ``Failed`` of an SQS batch means.

    ===================================  ===============  ==========================
    its code                             ``SenderFault``  remedy
    ===================================  ===============  ==========================
    throttled                            either           ``RETRY``, and `throttled`
    the service failed                   either           ``RETRY``
    not allowed, or the KMS key's        either           ``STOP``
    any other, also one we do not know   true             ``REJECT``
    any other, also one we do not know   false            ``RETRY``
    ===================================  ===============  ==========================

    SQS documents ``SenderFault`` ("whether the error happened due to the caller") and no list of codes. Throttling and
    denials are senders' faults to it, too, so the code comes first.
    """
    code = bare_code(str(entry.get("Code") or "Unknown"))
    meaning = meaning_of(code)
    if meaning is not None and not issubclass(meaning, Rejected):
        remedy = meaning.remedy
    else:
        remedy = Remedy.REJECT if entry.get("SenderFault") else Remedy.RETRY
    return SendFailure(code, str(entry.get("Message") or ""), remedy, throttled=meaning is Throttled)


def content_failure(error: ClientError) -> SendFailure:
    """That of the only entry of a call which was refused for its content (`queue_error`)."""
    return SendFailure(error_code(error), message_of(error), Remedy.REJECT)


def message_of(error: ClientError) -> str:
    """AWS's sentence."""
    return str(error.response.get("Error", {}).get("Message") or error)


def _detail(error: Exception) -> str:
    text = str(error)
    return f": {text}" if text else ""


def _refused(code: str, sentence: str, error: ClientError, reach: Reach | None) -> DyneinError | None:
    if code in RESULT_CODES:
        return None
    meaning = meaning_of(code)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if meaning is Throttled:
        return Throttled(sentence)
    if meaning is NotBootstrapped:
        where = "" if reach is None else f" in {reach}"
        return NotBootstrapped(
            f"{sentence}. The table is missing{where}: run `dynein bootstrap`, or correct DYNEIN_TABLE or the region"
        )
    if meaning is AccessDenied or status == _FORBIDDEN:
        return AccessDenied(f"{sentence}{_hint(code, error, reach)}")
    if meaning is Unavailable or status >= _SERVER_ERROR:
        return Unavailable(sentence)
    return None


def _hint(code: str, error: ClientError, reach: Reach | None) -> str:
    if is_about_the_key(code):
        return ". SQS cannot use the queue's KMS key"
    through = f". The call went through {reach.proxy}" if reach is not None and reach.proxy is not None else ""
    if code in EXPIRED_CODES:
        return (
            f"{through}. The AWS credentials have expired: renew them (`aws sso login`, or new values of "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN)"
        )
    if code in CREDENTIALS_CODES:
        region = f" in the region of {reach.setting}" if reach is not None else ""
        return f"{through}. AWS does not know these credentials{region}: correct AWS_ACCESS_KEY_ID or AWS_PROFILE"
    if code not in CLOCK_CODES:
        return through
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders") or {}
    return (
        f"{through}. If this machine's clock is minutes off (clock skew; AWS's says {headers.get('date', 'nothing')}), "
        "set it: requests are signed with the time, and jobs are sent by it. If not, AWS_SECRET_ACCESS_KEY is wrong"
    )
