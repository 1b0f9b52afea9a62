"""How the sending of one job ended, for both senders: acknowledged by SQS, or the error that its caller gets."""

from __future__ import annotations

from collections.abc import Sequence

from dynein.api.problems import SendRefused
from dynein.core.queues import SendFailure
from dynein.errors import DyneinError, NotSent, Remedy, Throttled, Unavailable

SendResult = DyneinError | None
"""``None`` once SQS has acknowledged the job. A batch never raises as a whole: jobs of other callers are in it."""


def results_of(failures: Sequence[SendFailure | None]) -> list[SendResult]:
    """The result of each entry of a batch that SQS has responded to."""
    return [None if failure is None else _error_of(failure) for failure in failures]


def _error_of(failure: SendFailure) -> DyneinError:
    detail = f"SQS did not accept the job: {failure.code} {failure.message}".rstrip()
    if failure.remedy is Remedy.REJECT:
        return SendRefused(detail)
    if failure.throttled:
        return Throttled(detail)
    certain = failure.remedy is Remedy.STOP or failure.code == NotSent.__name__  # as `call_failure` names it
    return NotSent(detail) if certain else Unavailable(detail)
