"""For how long a shard's marks have stood, as one process has seen them. Pure: ``now`` is monotonic seconds."""

from __future__ import annotations

from collections import deque


class Standing:
    """Of one shard. The marks are cancel marks: jobs due at or before one can no longer be cancelled.

    A cancel is a transaction: it checks the marks and writes a tombstone. DynamoDB does not promise that both show at
    one moment: reads that are no transaction may find the new state of some items and the old state of others, until
    the transaction's response has come (Developer Guide, "DynamoDB transactions: how it works", "read-committed
    isolation level"). So when a mark has just been raised, the tombstone of a cancel that came before it may not show
    yet; once the mark has stood for a while it does.
    """

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._settled_ms = -1
        """A mark that has stood for ``settle_s``."""
        self._seen: deque[tuple[int, float]] = deque()
        """Higher ones, rising, each with the time at which it was first seen: no more than fit into ``settle_s``."""

    def see(self, mark_ms: int, now: float, *, settled_mark_ms: int = -1) -> None:
        """A response that came at ``now`` has shown ``mark_ms``, and ``settled_mark_ms`` as one that has stood."""
        self._settle(now)
        self._settled_ms = max(self._settled_ms, settled_mark_ms)
        if mark_ms > self._highest():
            self._seen.append((mark_ms, now))

    def wait_s(self, due_at_ms: int, now: float) -> float:
        """In how many seconds a mark at or past ``due_at_ms`` will have stood; such a mark must have been seen."""
        self._settle(now)
        if due_at_ms <= self._settled_ms:
            return 0.0
        since = next(seen_at for mark_ms, seen_at in self._seen if mark_ms >= due_at_ms)
        return since + self._settle_s - now

    def _highest(self) -> int:
        return self._seen[-1][0] if self._seen else self._settled_ms

    def _settle(self, now: float) -> None:
        while self._seen and now - self._seen[0][1] >= self._settle_s:
            self._settled_ms = max(self._settled_ms, self._seen.popleft()[0])
