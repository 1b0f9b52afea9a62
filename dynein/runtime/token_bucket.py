"""The ingestion rate. Pure: every verb takes ``now``, in monotonic seconds."""

from __future__ import annotations


class TokenBucket:
    """Tokens drip in at a rate, up to ``burst_s`` seconds' worth of them (at least one token).

    One taker may go into debt, since a message's jobs cannot be split: it is let in while the balance is positive, and
    the next one waits until the debt is paid. Over any stretch of ``t`` seconds at most ``rate * (t + burst_s)`` tokens
    and one taker's more are given out.
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
        # Waiting for a whole token, not for the first sliver of one, keeps rounding from waking us too soon.
        missing = min(1.0, self._balance_max) - self._balance
        return max(0.0, missing / self._rate_per_s)

    def take(self, tokens: float, now: float) -> None:
        """Take ``tokens``, which may leave a debt."""
        self._drip(now)
        self._balance -= tokens

    def set_rate(self, rate_per_s: float, now: float) -> None:
        """Change the rate from ``now`` on; a debt stays, a balance beyond the new burst does not."""
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
