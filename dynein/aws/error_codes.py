"""AWS's error codes: one table of what each means to us, for whole calls and for the entries of a batch.

A code stands for one of our errors, and that for a remedy (`dynein.errors`). Nothing is read out of the text of a
message.
"""

from __future__ import annotations

from collections.abc import Mapping

from dynein.errors import AccessDenied, DyneinError, NotBootstrapped, Rejected, Throttled, Unavailable, UnknownQueue

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
CLOCK_CODES = frozenset(
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
EXPIRED_CODES = frozenset({"ExpiredToken", "ExpiredTokenException"})
"""Credentials that were valid once."""
CREDENTIALS_CODES = frozenset({"InvalidClientTokenId", "InvalidSecurity", "UnrecognizedClientException"})
"""Credentials that AWS does not know, or not in this region."""

_ERRORS: Mapping[str, type[DyneinError]] = {
    **dict.fromkeys(_THROTTLED, Throttled),
    **dict.fromkeys(_UNAVAILABLE, Unavailable),
    **dict.fromkeys(_DENIED | _KEY_UNUSABLE, AccessDenied),
    "ResourceNotFoundException": NotBootstrapped,  # DynamoDB: no such table
    **dict.fromkeys(_QUEUE_MISSING, UnknownQueue),
    **dict.fromkeys(_CONTENT, Rejected),
}
"""The table: what a code means, whichever service it comes from."""

RESULT_CODES = frozenset(
    {"ConditionalCheckFailedException", "TransactionCanceledException", "TransactionConflictException"}
)
"""DynamoDB's ways to say that a race was lost: a result, which `aws_error` leaves as it is for the store to read."""
FORBIDDEN_CODES = frozenset({"AccessDenied", "AccessDeniedException"})
"""What a policy forbids. (Broken credentials have other codes.)"""


def bare_code(code: str) -> str:
    """A code without namespace (``com.amazonaws.sqs#``) and without SQS's prefix."""
    return code.rsplit("#", 1)[-1].removeprefix(_SQS_PREFIX)


def meaning_of(code: str) -> type[DyneinError] | None:
    """The kind of error that a code without prefixes stands for; ``None`` for one that we do not know."""
    known = _ERRORS.get(code)
    return AccessDenied if known is None and code.startswith(_KMS_PREFIX) else known


def is_about_the_key(code: str) -> bool:
    """Cannot SQS use the queue's KMS key?"""
    return code in _KEY_UNUSABLE or code.startswith(_KMS_PREFIX)
