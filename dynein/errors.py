"""Every error that Dynein raises on purpose, by its remedy: what its receiver should do.

::

    DyneinError
    ├── Rejected                 the caller's input is wrong: change it, then ask again
    │   ├── InvalidField         one field of a job, with its name and the fix
    │   ├── InvalidToken         not a token this deployment signed
    │   ├── UnknownQueue         the destination does not exist, or we may not see it
    │   └── Conflict             a well-formed request that comes too late, or to a job that moved
    ├── Retryable                nothing is wrong with the input: ask again later
    │   ├── Overloaded           a bound of this process is reached
    │   ├── RateLimited          faster than a setting allows
    │   ├── Throttled            AWS asks us to slow down
    │   └── Unavailable          AWS did not respond, or not in time; the call may have taken effect
    │       └── NotSent          AWS could not be reached; the call has certainly not taken effect
    └── FatalError               the program cannot go on: operator action required
        ├── InvalidSettings      a setting is wrong, or two contradict each other
        ├── LayoutMismatch       the table was made with another layout than the settings say
        ├── NotBootstrapped      the inbound queue, a dead-letter queue or the table is missing
        └── AccessDenied         the credentials do not allow the call
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, TypeVar

ErrorT = TypeVar("ErrorT", bound=Exception)
_SHOWN_CHARS_MAX = 600


class Remedy(Enum):
    """What to do about an error: the branches of the tree above."""

    REJECT = "reject"
    """Sending the same again fails again."""
    RETRY = "retry"
    """It passes by itself: send the same again later."""
    STOP = "stop"
    """Operator action required: permissions or set-up are wrong. Then the same will do."""


class DyneinError(Exception):
    """Root of the tree above."""

    remedy: ClassVar[Remedy] = Remedy.RETRY


class Rejected(DyneinError):
    """The input is wrong and stays wrong however often it is sent."""

    remedy = Remedy.REJECT


class InvalidField(Rejected):
    """``field`` of a submitted job is wrong.

    ``field`` is a JSON path as the caller wrote it (``attributes.trace``); ``fix`` is one sentence that says what to
    send in its place.
    """

    def __init__(self, field: str, problem: str, fix: str) -> None:
        super().__init__(f"{field}: {problem} {fix}")
        self.field = field
        self.problem = problem
        self.fix = fix


class InvalidToken(Rejected):
    """The string is not a job token that this deployment signed."""


class UnknownQueue(Rejected):
    """No such destination queue, or the credentials may not see it (SQS does not say which).

    ``detail`` is what AWS says. ``problem``: why ``queue`` cannot name one at all, as the end of a sentence; ``fix``
    is then a sentence that says what to send in its place.
    """

    def __init__(self, queue: str, detail: str = "", *, problem: str | None = None, fix: str | None = None) -> None:
        shown = queue if len(queue) <= _SHOWN_CHARS_MAX else f"{queue[:_SHOWN_CHARS_MAX]}..."
        said = problem or "does not exist or is not visible to Dynein's credentials."
        look_up = "GetQueueAttributes" if "://" in queue else "GetQueueUrl"
        self.queue = queue
        self.detail = f"queue {shown!r} {said} {detail}".rstrip()
        self.fix = fix or (
            f"Create the queue, correct the name, or grant Dynein's role sqs:{look_up} and sqs:SendMessage on it."
        )
        super().__init__(f"{self.detail} {fix}" if fix else self.detail)


class Conflict(Rejected):
    """The job is past the point where this can be done. ``code`` is stable, for programs."""

    def __init__(self, code: str, detail: str, *, moved_to: str | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.moved_to = moved_to


class Retryable(DyneinError):
    """Nothing is wrong with the input. ``retry_after_s`` is a hint in seconds."""

    def __init__(self, detail: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Overloaded(Retryable):
    """A queue or set inside this process is at its bound."""


class RateLimited(Retryable):
    """More is asked for than a setting allows."""


class Throttled(Retryable):
    """SQS or DynamoDB refused a call for their rate."""


class Unavailable(Retryable):
    """SQS or DynamoDB did not respond in time, or failed on its side. The call may have taken effect."""


class NotSent(Unavailable):
    """SQS or DynamoDB could not be reached, so nothing was sent. The call has certainly not taken effect."""


class FatalError(DyneinError):
    """The program stops with this sentence, which says what the operator has to do."""

    remedy = Remedy.STOP


class InvalidSettings(FatalError):
    """A setting is wrong, or two settings contradict each other."""


class LayoutMismatch(FatalError):
    """The table's recorded layout is not the one the settings ask for."""


class NotBootstrapped(FatalError):
    """Something that ``dynein bootstrap`` creates is missing."""


class AccessDenied(FatalError):
    """AWS refused the credentials for a call this role cannot do without."""


def remedy_of(error: Exception) -> Remedy:
    """The remedy of any error. An unexpected one is retried."""
    return error.remedy if isinstance(error, DyneinError) else Remedy.RETRY


def as_result(error: ErrorT) -> ErrorT:
    """``error`` without its traceback and causes, to be kept as a result beside others.

    A traceback holds the frames it went through, and these whatever they have at hand: a request's body, the very list
    of results. Such a circle stays in memory until the garbage collector comes by, which here is seldom.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
