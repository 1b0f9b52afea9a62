"""A token bucket, for the ingest rate. Pure: every method takes ``now``, in monotonic seconds."""

from __future__ import annotations


class TokenBucket:
    """Tokens are added at a rate, up to ``burst_s`` seconds' worth of them (at least one token).

    The balance may become negative, because a message's jobs cannot be split: a message is admitted while the balance
    is positive, and the next one waits until it is positive again. In any interval of ``t`` seconds at most ``rate * (t
    + burst_s)`` tokens are taken, and those of one message more.
    """

    def __init__(self, rate_per_s: float, now: float, *, burst_s: float) -> None:
        assert rate_per_s > 0
        assert burst_s > 0
        self._burst_s = burst_s
        self._rate_per_s = rate_per_s
        self._balance = self._balance_max
        self._as_of = now

    def wait_s(self, now: float) -> float:
        """Seconds until `take` is allowed; 0 when it is."""
        self._drip(now)
        # Waiting for a whole token, not for a fraction of one, so that rounding does not end the wait too early.
        missing = min(1.0, self._balance_max) - self._balance
        return max(0.0, missing / self._rate_per_s)

    def take(self, tokens: float, now: float) -> None:
        """Take ``tokens``; the balance may become negative."""
        self._drip(now)
        self._balance -= tokens

    def set_rate(self, rate_per_s: float, now: float) -> None:
        """Change the rate from ``now`` on; a negative balance stays, one above the new burst is cut to it."""
        assert rate_per_s > 0
        self._drip(now)
        self._rate_per_s = rate_per_s
        self._balance = min(self._balance, self._balance_max)

    @property
    def _balance_max(self) -> float:
        return max(1.0, self._rate_per_s * self._burst_s)

    def _drip(self, now: float) -> None:
        elapsed_s = max(0.0, now - self._as_of)
        self._balance = min(self._balance_max, self._balance + elapsed_s * self._rate_per_s)
        self._as_of = max(self._as_of, now)
