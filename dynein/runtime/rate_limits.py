"""A rate for each of many: callers, destinations. Pure: ``now`` in monotonic seconds."""

from __future__ import annotations

from collections import OrderedDict

from dynein.runtime.token_bucket import TokenBucket

NAMES_MAX = 10_000
"""Names whose bucket is remembered; the one that was not heard of for longest is forgotten first."""


class RateLimits:
    """One token bucket a name. ``rate_per_s`` 0: no limit. ``burst_s``: how far a name may be ahead of its rate."""

    def __init__(self, rate_per_s: float, burst_s: float) -> None:
        self.rate_per_s = rate_per_s
        self._burst_s = burst_s
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, name: str, cost: float, now: float) -> float:
        """Seconds until the name may take again; 0 if it may now, and then ``cost`` is taken."""
        if not self.rate_per_s:
            return 0.0
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = TokenBucket(self.rate_per_s, now, burst_s=self._burst_s)
            if len(self._buckets) > NAMES_MAX:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(name)
        wait_s = bucket.wait_s(now)
        if wait_s <= 0:
            bucket.take(cost, now)
        return wait_s
