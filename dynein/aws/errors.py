"""What AWS's errors mean to us: the one mapping from the SDK's errors to `dynein.errors`."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

from dynein.errors import AccessDenied, DyneinError, NotBootstrapped, Throttled, Unavailable

if TYPE_CHECKING:
    pass


_SERVER_ERROR = 500


_FORBIDDEN = 403


SQS_CODE_PREFIX = "AWS.SimpleQueueService."


THROTTLING_CODES = frozenset(
    {
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
"""botocore's list (``botocore/retries/standard.py``), and what SQS and a cancelled transaction's reasons add to it."""


_UNAVAILABLE_CODES = frozenset(
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


_DENIED_CODES = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "InvalidSignatureException",
        "KMS.AccessDeniedException",
        "KmsAccessDenied",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)


_CLOCK_CODES = frozenset(
    {
        "InvalidSignatureException",
        "RequestExpired",
        "RequestInTheFuture",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
"""Those that a wrong clock is a cause of. We do not go by AWS's clock instead, as some SDKs do: whoever is minutes off
would send jobs minutes early or late, and must not go on."""


RESULT_CODES = frozenset(
    {"ConditionalCheckFailedException", "TransactionCanceledException", "TransactionConflictException"}
)
"""DynamoDB's ways to say that a race was lost: a result, which `aws_error` leaves as it is for the store to read."""


def error_code(error: BaseException) -> str:
    """AWS's error code, or the exception's name where AWS did not answer."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "Unknown")).rsplit("#", 1)[-1]
    return type(error).__name__


def is_throttling(code: str) -> bool:
    """Whether AWS's error code says that we ask for too much. SQS's own may have a prefix."""
    return code.removeprefix(SQS_CODE_PREFIX) in THROTTLING_CODES or "throttl" in code.lower()


def aws_error(operation: str, error: Exception) -> DyneinError | None:
    """What ``error`` of the SDK means to us, or ``None`` where it means nothing in general.

    ``None`` is for the caller to judge (`RESULT_CODES`, a queue that does not exist) or a bug of ours (a request that
    AWS calls malformed).
    """
    code = error_code(error)
    sentence = f"{operation}: {code}: {error}"
    match error:
        case ClientError():
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return _answered(code, status, sentence, error)
        case NoCredentialsError() | PartialCredentialsError() | NoAuthTokenError() | TokenRetrievalError() | SSOError():
            return AccessDenied(f"{sentence}. Give the process AWS credentials (environment, profile or role)")
        case HTTPClientError() | ConnectionError() | CredentialRetrievalError() | MetadataRetrievalError():
            return Unavailable(sentence)
        case ResponseParserError() | IncompleteReadError() | TimeoutError() | OSError():
            return Unavailable(sentence)
        case _:
            return None


def _answered(code: str, status: int, sentence: str, error: ClientError) -> DyneinError | None:
    if code in RESULT_CODES:
        return None
    if code in THROTTLING_CODES:
        return Throttled(sentence)
    if code == "ResourceNotFoundException":
        return NotBootstrapped(f"{sentence}. The table is missing: run `dynein bootstrap`, or correct DYNEIN_TABLE")
    if code in _DENIED_CODES or status == _FORBIDDEN:
        return AccessDenied(f"{sentence}{_about_the_clock(code, error)}")
    if code in _UNAVAILABLE_CODES or status >= _SERVER_ERROR:
        return Unavailable(sentence)
    return None


def _about_the_clock(code: str, error: ClientError) -> str:
    if code not in _CLOCK_CODES:
        return ""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders") or {}
    return (
        f". If this machine's clock is minutes off (clock skew; AWS's says {headers.get('date', 'nothing')}), set it: "
        "requests are signed with the time, and jobs are sent by it"
    )
