"""Chooses the schedule policy: what holds a job until it is due. Pure: request, destination and now in, decision out.

AUTO, where the first row that applies decides:

=============================================  =============
the job                                        policy
=============================================  =============
has a prepared token                           SCHEDULED
is cancellable                                 SCHEDULED: what SQS holds cannot be taken back
is due now                                     IMMEDIATE
is due within 900 s, on a standard queue       SQS_DELAYED
is due later, or on a FIFO queue               SCHEDULED (FIFO queues take no delay for one message)
=============================================  =============

An explicit policy that is impossible for the job is refused; it is never silently replaced by another.
"""

from __future__ import annotations

from typing import NamedTuple

from dynein.api.due_time import MS_PER_DAY, MS_PER_S, format_rfc3339, parse_delay_ms
from dynein.api.moments import parse_run_at_ms
from dynein.core.job import Policy
from dynein.core.job_token import TokenKind
from dynein.core.keys import DUE_MAX_MS
from dynein.core.queues import DELAY_MAX_S
from dynein.errors import InvalidField

KIND_OF = {
    Policy.IMMEDIATE: TokenKind.IMMEDIATE,
    Policy.SQS_DELAYED: TokenKind.SQS_DELAYED,
    Policy.SCHEDULED: TokenKind.SCHEDULED,
}
POLICY_OF = {
    TokenKind.IMMEDIATE: Policy.IMMEDIATE,
    TokenKind.SQS_DELAYED: Policy.SQS_DELAYED,
    TokenKind.SCHEDULED: Policy.SCHEDULED,
    TokenKind.PREPARED: Policy.SCHEDULED,
}


class When(NamedTuple):
    """The due time as a request has it: at most one of ``run_at`` and ``delay``."""

    run_at: float | str | None
    delay: float | str | None
    timezone: str | None = None
    """Of a ``run_at`` without a UTC offset."""

    @property
    def given(self) -> bool:
        """Is there one?"""
        return self.run_at is not None or self.delay is not None


def due_at_ms(when: When, now_ms: int, *, delay_max_days: int) -> int:
    """The due time: as asked for, but never before now, so that lateness counts from when the job was submitted.

    Raises `InvalidField` for ``run_at``, ``delay`` or ``timezone``.
    """
    if when.run_at is not None and when.delay is not None:
        raise InvalidField("delay", "and run_at exclude each other.", "Send one of them, or neither for now.")
    if when.timezone is not None and when.run_at is None:
        raise InvalidField("timezone", "is given without run_at.", "Send run_at with it, or leave it out.")
    if when.run_at is not None:
        field, due = "run_at", max(now_ms, parse_run_at_ms(when.run_at, when.timezone))
    elif when.delay is not None:
        field, due = "delay", now_ms + parse_delay_ms(when.delay)
    else:
        return now_ms
    # The key has room up to the year 10889, RFC 3339 up to 9999.
    if due > min(now_ms + delay_max_days * MS_PER_DAY, DUE_MAX_MS, _YEAR_9999_MS):
        raise InvalidField(
            field,
            f"lies more than {delay_max_days} days ahead.",
            f"Send a time at most {delay_max_days} days from now (setting delay_max_days).",
        )
    return due


def due_by_token_ms(when: When, token_due_at_ms: int) -> int:
    """The due time of a job with a prepared token: the token's. Raises `InvalidField` if the job has another."""
    fix = f"Leave it out: the token fixes the due time at {format_rfc3339(token_due_at_ms)}."
    if when.delay is not None:
        raise InvalidField("delay", "was given with a prepared token.", fix)
    if when.run_at is not None and parse_run_at_ms(when.run_at, when.timezone) != token_due_at_ms:
        raise InvalidField("run_at", "differs from the due time of the prepared token.", fix)
    return token_due_at_ms


def send_at_ms(due_ms: int, now_ms: int, queue_delay_s: int, *, prepared: bool) -> int:
    """When to send a job that is to become visible at ``due_ms`` on a queue that delays every message.

    Never before now. Raises `InvalidField` if its prepared token has fixed the time already.
    """
    if prepared and queue_delay_s:
        raise InvalidField(
            "allow_for_queue_delay",
            "came too late: a prepared token fixes when the job is sent.",
            f"Prepare a token for {queue_delay_s} s before the job is due, and leave this out.",
        )
    return max(min(now_ms, due_ms), due_ms - queue_delay_s * MS_PER_S)


def choose_policy(policy: Policy, due_ms: int, now_ms: int, *, fifo: bool, cancellable: bool, prepared: bool) -> Policy:
    """The policy that the job gets: any but AUTO. Raises `InvalidField` for one that is impossible."""
    wait_ms = due_ms - now_ms
    if policy is Policy.SCHEDULED or (policy is Policy.AUTO and (prepared or cancellable)):
        return Policy.SCHEDULED
    if policy is Policy.AUTO:
        if wait_ms <= 0:
            return Policy.IMMEDIATE
        return Policy.SQS_DELAYED if not fifo and wait_ms <= DELAY_MAX_S * MS_PER_S else Policy.SCHEDULED
    refusal = _refusal(policy, wait_ms, fifo=fifo, cancellable=cancellable, prepared=prepared)
    if refusal is not None:
        raise InvalidField("policy", *refusal)
    return policy


def _refusal(policy: Policy, wait_ms: int, *, fifo: bool, cancellable: bool, prepared: bool) -> tuple[str, str] | None:
    """Why IMMEDIATE or SQS_DELAYED is impossible, and the fix."""
    if prepared:
        return f"is {policy}, but a prepared token is always SCHEDULED.", _AUTO_OR_SCHEDULED
    if cancellable:
        return f"is {policy}, but the job is cancellable: what SQS holds cannot be taken back.", _AUTO_OR_SCHEDULED
    if policy is Policy.IMMEDIATE and wait_ms > 0:
        return "is IMMEDIATE, but the job is due later.", "Leave out the time, or send AUTO."
    if fifo and wait_ms > 0:
        return "is SQS_DELAYED, but a FIFO queue takes no delay for one message.", _AUTO_OR_SCHEDULED
    if wait_ms > DELAY_MAX_S * MS_PER_S:
        return f"is SQS_DELAYED, but SQS delays by {DELAY_MAX_S} s at most.", _AUTO_OR_SCHEDULED
    return None


def delay_s(due_ms: int, now_ms: int) -> int:
    """SQS's DelaySeconds for a message that is sent now: rounded up, so never early. May exceed what SQS takes."""
    return max(0, -((now_ms - due_ms) // MS_PER_S))


_AUTO_OR_SCHEDULED = "Send SCHEDULED, or AUTO."
_YEAR_9999_MS = 253_402_300_799_999
