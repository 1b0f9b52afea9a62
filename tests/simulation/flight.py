"""One call to an engine, and its outcome."""

from __future__ import annotations

from enum import Enum

from dynein.server.assembly import LEDGER, OBSERVER

OUTSIDE_OF_JOBS = (OBSERVER, LEDGER)
"""Parts of a process whose calls no job depends on: they measure and count. Each makes one call of a kind at a time."""


class Fate(Enum):
    """The outcome of a call; all but the first are kinds of faults."""

    FINE = "fine"
    THROTTLED = "throttled"
    """Refused, without effect."""
    REFUSED = "refused"
    """Failed, without effect."""
    RESET = "reset"
    """It took effect, and the connection was reset."""
    REQUEST_LOST = "request_lost"
    RESPONSE_LOST = "response_lost"
    """It took effect, and its response was lost."""
    STRAGGLER = "straggler"
    """It takes effect after its caller gave up."""
    UNEXPECTED = "unexpected"
    """Failed, without effect, with an error of no kind that is known."""


class UnexpectedError(Exception):
    """Simulated: a bug of the SDK, say."""


_UNANSWERED = (Fate.REQUEST_LOST, Fate.RESPONSE_LOST, Fate.STRAGGLER)


class Flight:
    """One call, as drawn from the seed when it begins."""

    __slots__ = ("answered", "back_s", "began_at", "ended", "fate", "process", "role", "target", "there_s", "verb")

    def __init__(
        self,
        process: str,
        role: str,
        verb: str,
        target: str,
        began_at: float,
        fate: Fate,
        there_s: float,
        back_s: float,
    ) -> None:
        self.process = process
        self.role = role
        self.target = target
        """The queue it is about, if any."""
        self.verb = verb
        self.began_at = began_at
        self.fate = fate
        self.there_s = there_s
        self.back_s = back_s
        self.answered = False
        """The caller got a response that says what happened."""
        self.ended = False
        """The caller has stopped waiting."""

    @property
    def will_be_answered(self) -> bool:
        """Will its caller, if it lives, learn the outcome?"""
        return self.fate not in _UNANSWERED and self.fate is not Fate.RESET

    def answered_within(self, timeout_s: float) -> bool:
        """Is it certain that a response comes in time?"""
        return self.fate not in _UNANSWERED and self.there_s + self.back_s < timeout_s
