"""What AWS's errors mean to us: one table of error codes, for whole calls and for the entries of a batch.

A code stands for one of our errors, and that for a remedy (`dynein.errors`). Nothing is read out of the text of a
message.
"""

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
_SQS_PREFIX = "AWS.SimpleQueueService."
"""Of SQS's codes in its older protocol, which both clients ask for. Some codes come with it, some without."""
_KMS_PREFIX = "KMS."
"""SQS passes on whatever KMS says of a queue's key, under KMS's own name for it."""

_THROTTLED = frozenset(
    {
        "KMS.ThrottlingException",
        "KmsThrottled",
        "LimitExceededException",
        "OverLimit",
        "ProvisionedThroughputExceeded",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingError",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
"""botocore's list (``botocore/retries/standard.py``), and what SQS, KMS and a cancelled transaction's reasons add to
it."""
_UNAVAILABLE = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "TransactionInProgressException",
    }
)
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_KEY_UNUSABLE = frozenset(
    {
        "KmsAccessDenied",
        "KmsDisabled",
        "KmsInvalidKeyUsage",
        "KmsInvalidState",
        "KmsNotFound",
        "KmsOptInRequired",
    }
)
"""SQS cannot use the queue's KMS key. In its older protocol these begin with `_KMS_PREFIX`."""
_QUEUE_MISSING = frozenset({"InvalidAddress", "NonExistentQueue", "QueueDoesNotExist"})
_CONTENT = frozenset(
    {
        "BatchRequestTooLong",
        "InvalidAttributeValue",
        "InvalidMessageContents",
        "InvalidParameterCombination",
        "InvalidParameterValue",
        "MessageAttributesInvalid",
        "MissingParameter",
        "SerializationException",
        "UnsupportedOperation",
        "ValidationError",
        "ValidationException",
    }
)
"""A call refused with one of these was refused for what is in it."""
_CLOCK = frozenset(
    {
        "InvalidSignatureException",
        "RequestExpired",
        "RequestInTheFuture",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
"""Those that a wrong clock can cause. We do not go by AWS's clock instead, as some SDKs do: a process whose clock is
minutes off would send jobs minutes early or late, and must not go on."""

_ERRORS: Mapping[str, type[DyneinError]] = {
    **dict.fromkeys(_THROTTLED, Throttled),
    **dict.fromkeys(_UNAVAILABLE, Unavailable),
    **dict.fromkeys(_DENIED | _KEY_UNUSABLE, AccessDenied),
    "ResourceNotFoundException": NotBootstrapped,  # DynamoDB: no such table
    **dict.fromkeys(_QUEUE_MISSING, UnknownQueue),
    **dict.fromkeys(_CONTENT, Rejected),
}
"""The table: what a code means, whoever it comes from."""

RESULT_CODES = frozenset(
    {"ConditionalCheckFailedException", "TransactionCanceledException", "TransactionConflictException"}
)
"""DynamoDB's ways to say that a race was lost: a result, which `aws_error` leaves as it is for the store to read."""
FORBIDDEN_CODES = frozenset({"AccessDenied", "AccessDeniedException"})
"""What a policy forbids. (Broken credentials have other codes.)"""


def error_code(error: BaseException) -> str:
    """AWS's error code without prefixes, or the exception's name where AWS did not respond."""
    if isinstance(error, ClientError):
        return bare_code(str(error.response.get("Error", {}).get("Code", "Unknown")))
    return type(error).__name__


def bare_code(code: str) -> str:
    """A code without namespace (``com.amazonaws.sqs#``) and without SQS's prefix."""
    return code.rsplit("#", 1)[-1].removeprefix(_SQS_PREFIX)


def meaning_of(code: str) -> type[DyneinError] | None:
    """The kind of error that a code without prefixes stands for; ``None`` for one that we do not know."""
    known = _ERRORS.get(code)
    return AccessDenied if known is None and code.startswith(_KMS_PREFIX) else known


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
    if code in _KEY_UNUSABLE or code.startswith(_KMS_PREFIX):
        return ". SQS cannot use the queue's KMS key"
    if code not in _CLOCK:
        return ""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders") or {}
    return (
        f". If this machine's clock is minutes off (clock skew; AWS's says {headers.get('date', 'nothing')}), set it: "
        "requests are signed with the time, and jobs are sent by it"
    )
