"""What the SDK's errors, and the failed entries of SQS's batches, mean to us. By `dynein.aws.error_codes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import (
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's name
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from dynein.aws.error_codes import CLOCK_CODES, RESULT_CODES, bare_code, is_about_the_key, meaning_of
from dynein.core.queues import SendFailure
from dynein.errors import (
    AccessDenied,
    DyneinError,
    NotBootstrapped,
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


def aws_error(operation: str, error: Exception) -> DyneinError | None:
    """What ``error`` of the SDK means to us, or ``None`` where that depends on the call.

    ``None`` is for the caller to decide on (`RESULT_CODES`, a queue that does not exist, a message that SQS does not
    take) or a bug of ours (a request that AWS calls malformed).
    """
    code = error_code(error)
    sentence = f"{operation}: {code}: {error}"
    match error:
        case ClientError():
            return _refused(code, sentence, error)
        case NoCredentialsError() | PartialCredentialsError() | NoAuthTokenError() | TokenRetrievalError() | SSOError():
            return AccessDenied(f"{sentence}. Give the process AWS credentials (environment, profile or role)")
        case HTTPClientError() | ConnectionError() | CredentialRetrievalError() | MetadataRetrievalError():
            return Unavailable(sentence)
        case ResponseParserError() | IncompleteReadError() | TimeoutError() | OSError():
            return Unavailable(sentence)
        case _:
            return None


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


def _refused(code: str, sentence: str, error: ClientError) -> DyneinError | None:
    if code in RESULT_CODES:
        return None
    meaning = meaning_of(code)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if meaning is Throttled:
        return Throttled(sentence)
    if meaning is NotBootstrapped:
        return NotBootstrapped(f"{sentence}. The table is missing: run `dynein bootstrap`, or correct DYNEIN_TABLE")
    if meaning is AccessDenied or status == _FORBIDDEN:
        return AccessDenied(f"{sentence}{_hint(code, error)}")
    if meaning is Unavailable or status >= _SERVER_ERROR:
        return Unavailable(sentence)
    return None


def _hint(code: str, error: ClientError) -> str:
    if is_about_the_key(code):
        return ". SQS cannot use the queue's KMS key"
    if code not in CLOCK_CODES:
        return ""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders") or {}
    return (
        f". If this machine's clock is minutes off (clock skew; AWS's says {headers.get('date', 'nothing')}), set it: "
        "requests are signed with the time, and jobs are sent by it"
    )
