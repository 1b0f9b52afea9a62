"""How fast one destination may be tried, and for how long, by how its tries have ended. Pure: ``now`` is monotonic.

One success ends a failure. Until then each failed try lengthens the pause before the next, and the *retry budget* runs:
a job that has only failed for all of it is dead-lettered.
"""

from __future__ import annotations

import random

from dynein.runtime.backoff import pause_s
from dynein.settings import Settings

UNTRIED_MAX_S = 60.0
"""A failing lane that has work is tried every ``backoff_max_s`` or so. One untried for this much longer had none."""


class LanePace:
    """The state of one destination's failures. ``rng`` jitters pauses."""

    def __init__(self, settings: Settings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self.failures = 0
        """Steps of backoff since the last success."""
        self.failing_since: float | None = None
        """When the retry budget began to run; ``None`` if the destination's last response was a success."""
        self._failed_at = 0.0
        self._resume_at = 0.0

    def pause_s(self, now: float) -> float:
        """Seconds to wait before the next try; not positive if it may be made at once."""
        return self._resume_at - now

    def failing_s(self, now: float) -> float:
        """For how long the destination has been failing."""
        return 0.0 if self.failing_since is None else now - self.failing_since

    def is_over_budget(self, now: float) -> bool:
        """Has it been failing for the whole of the retry budget?"""
        return self.failing_since is not None and now - self.failing_since >= self._settings.retry_budget_s

    def is_given_up(self, now: float) -> bool:
        """Over budget, and not to be tried yet: a job that comes now is dead-lettered without a try of its own.

        The destination is still tried at the pace of the backoff, and one success ends this.
        """
        return self.is_over_budget(now) and self.pause_s(now) > 0

    def succeeded(self) -> None:
        """A try went through."""
        self.failures = 0
        self.failing_since = None
        self._resume_at = 0.0

    def failed(self, now: float, *, partly: bool = False) -> None:
        """A try failed. ``partly``: some of its batch went through, so the queue exists, and the budget starts anew."""
        if now - self._failed_at > self._settings.backoff_max_s + UNTRIED_MAX_S:
            self.succeeded()  # as far as anyone knows
        self._failed_at = now
        if self.failing_since is None or partly:
            self.failing_since = now
        if now < self._resume_at:
            return  # another call of this lane has just failed too: one outage, one step of backoff
        self.failures += 1
        first_s, max_s = self._settings.backoff_first_s, self._settings.backoff_max_s
        self._resume_at = now + pause_s(self.failures, first_s=first_s, max_s=max_s, rng=self._rng)
