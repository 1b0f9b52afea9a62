"""One call to an engine, and what becomes of it."""

from __future__ import annotations

from enum import Enum


class Fate(Enum):
    """What becomes of a call; but for the first, kinds of faults."""

    FINE = "fine"
    THROTTLED = "throttled"
    """Refused, without effect."""
    REFUSED = "refused"
    """Failed, without effect."""
    RESET = "reset"
    """It took effect, and the connection was reset."""
    REQUEST_LOST = "request_lost"
    ANSWER_LOST = "answer_lost"
    """It took effect, and nobody heard of it."""
    STRAGGLER = "straggler"
    """It takes effect after its caller gave up."""


_UNANSWERED = (Fate.REQUEST_LOST, Fate.ANSWER_LOST, Fate.STRAGGLER)


class Flight:
    """One call on its way, as drawn."""

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
        """What it is about: a queue, or nothing."""
        self.verb = verb
        self.began_at = began_at
        self.fate = fate
        self.there_s = there_s
        self.back_s = back_s
        self.answered = False
        """The caller got an answer, and it says what happened."""
        self.ended = False
        """The caller has stopped waiting."""

    @property
    def heard(self) -> bool:
        """Will its caller, if it lives, learn what came of it?"""
        return self.fate not in _UNANSWERED and self.fate is not Fate.RESET

    def answered_within(self, timeout_s: float) -> bool:
        """Is it certain that an answer comes in time?"""
        return self.fate not in _UNANSWERED and self.there_s + self.back_s < timeout_s
