"""What to read next, when a time bucket is finished with, and what fits in memory. Pure.

Every read of a shard is a `RangeScan`: from one due time to another, bucket by bucket and page by page, in due order.
The *forward* scan reads each due time once, as the read mark rises. Everything else reads again what the forward scan
has passed: after a late write, for jobs that were read and evicted, and to see whether a bucket is empty.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import NamedTuple

from dynein.core.keys import TriggerKey, bucket_of
from dynein.core.trigger_store import Page


def first_ms_of(bucket: int, bucket_width_ms: int) -> int:
    """The earliest due time of a bucket."""
    return bucket * bucket_width_ms


def last_ms_of(bucket: int, bucket_width_ms: int) -> int:
    """The latest due time of a bucket."""
    return (bucket + 1) * bucket_width_ms - 1


class PageRequest(NamedTuple):
    """One call of `dynein.core.trigger_store.TriggerStore.read`, but for the limit."""

    bucket: int
    from_ms: int
    until_ms: int
    resume: bytes | None


class Empty(NamedTuple):
    """A bucket that a read found empty, begun after its grace, when ``late_writes`` was the count already seen."""

    bucket: int
    late_writes: int


class RangeScan:
    """Reads one shard from ``from_ms`` to ``until_ms``, both included. A failed call changes nothing."""

    def __init__(self, from_ms: int, until_ms: int, bucket_width_ms: int) -> None:
        assert from_ms <= until_ms, (from_ms, until_ms)
        self._width_ms = bucket_width_ms
        self._next_ms = from_ms
        self._until_ms = until_ms
        self._resume: bytes | None = None
        self._may_prove = False
        self._late_writes = 0
        self._tombstone: TriggerKey | None = None
        self.passed_ms = from_ms - 1
        """Anything written from now on that is due by this may go unseen by the rest of this walk."""

    @property
    def done(self) -> bool:
        """Nothing is left to read."""
        return self._next_ms > self._until_ms

    def next_request(self) -> PageRequest:
        """What to read now."""
        bucket = bucket_of(self._next_ms, self._width_ms)
        return PageRequest(bucket, self._next_ms, min(self._until_ms, last_ms_of(bucket, self._width_ms)), self._resume)

    def begin(self, *, now_ms: int, late_writes: int, retire_grace_ms: int) -> None:
        """Note, right before a call, what a bucket found empty by it would prove."""
        if self._resume is not None:
            return
        bucket, from_ms, until_ms, _ = self.next_request()
        last_ms = last_ms_of(bucket, self._width_ms)
        whole = from_ms == first_ms_of(bucket, self._width_ms) and until_ms == last_ms
        self._may_prove = whole and last_ms + retire_grace_ms < now_ms
        self._late_writes = late_writes

    def advance(self, page: Page) -> Empty | None:
        """Note a page read. Tombstones do not count: a bucket that holds nothing else is empty."""
        bucket, _, until_ms, _ = self.next_request()
        # Records that cannot be decoded do not count either, or one of them would keep its bucket open for ever.
        self._may_prove = self._may_prove and not page.triggers
        self._tombstone = page.tombstones[-1].key if page.tombstones else None
        self._resume = page.resume
        if page.resume is not None:
            self.passed_ms = max(self.passed_ms, _last_due_ms(page))
            return None
        self.passed_ms = until_ms
        self._next_ms = until_ms + 1
        return Empty(bucket, self._late_writes) if self._may_prove else None

    def cancelled(self, page: Page) -> set[TriggerKey]:
        """Keys with a tombstone, as far as this page needs them. Ask before `advance`.

        A tombstone sorts right before its trigger, so only the last one of a page can belong to the next page.
        """
        keys = {tombstone.key for tombstone in page.tombstones}
        if self._tombstone is not None:
            keys.add(self._tombstone)
        return keys


def _last_due_ms(page: Page) -> int:
    last_ms = -1
    if page.triggers:
        last_ms = page.triggers[-1].key.due_at_ms
    if page.tombstones:
        last_ms = max(last_ms, page.tombstones[-1].key.due_at_ms)
    if page.undecodable:
        last_ms = max(last_ms, page.undecodable[-1].due_at_ms)
    return last_ms


def retire_before(first_open: int, empty: Mapping[int, int], late_writes: int, busy: Container[int] = ()) -> int:
    """The bucket before which all are finished with. ``empty``: late writes seen before each bucket's empty read.

    A count that has moved since voids the finding: the late write may be in that very bucket. ``busy`` are buckets of
    which something is in hand.
    """
    bucket = first_open
    while empty.get(bucket) == late_writes and bucket not in busy:
        bucket += 1
    return bucket
