"""A range of due times of one shard, as it is read: bucket by bucket and page by page, in due order. Pure."""

from __future__ import annotations

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
    """One call of `dynein.core.trigger_store.TriggerStore.read`, but for the shard and the limit."""

    bucket: int
    from_ms: int
    until_ms: int
    resume: bytes | None


class Empty(NamedTuple):
    """A bucket that a read begun after its grace found empty, when ``late_writes`` was the count already seen."""

    bucket: int
    late_writes: int


class RangeScan(NamedTuple):
    """How far the reading of a range has come. Immutable: a read that fails leaves the scan from which it was begun."""

    bucket_width_ms: int
    next_ms: int
    """The earliest due time of the part of a bucket that is read now."""
    until_ms: int
    """The latest due time of the range."""
    passed_ms: int
    """Anything written from now on that is due by this may go unseen by the rest of this scan."""
    resume: bytes | None = None
    """Where the next page begins in what is read now; ``None``: at its beginning."""
    last_tombstone: TriggerKey | None = None
    """The key of the last tombstone on the page before."""
    would_prove: Empty | None = None
    """What is proven if the rest of the bucket holds no trigger either. See `begin`."""

    @classmethod
    def over(cls, from_ms: int, until_ms: int, bucket_width_ms: int) -> RangeScan:
        """Nothing is read yet from ``from_ms`` to ``until_ms``, both included. The range may be empty: `done`."""
        assert from_ms <= until_ms + 1, (from_ms, until_ms)
        return cls(bucket_width_ms, from_ms, until_ms, passed_ms=from_ms - 1)

    @property
    def done(self) -> bool:
        """Nothing is left to read."""
        return self.next_ms > self.until_ms

    @property
    def request(self) -> PageRequest:
        """What to read now."""
        bucket = bucket_of(self.next_ms, self.bucket_width_ms)
        until_ms = min(self.until_ms, last_ms_of(bucket, self.bucket_width_ms))
        return PageRequest(bucket, self.next_ms, until_ms, self.resume)

    def begin(self, *, now_ms: int, late_writes: int, retire_grace_ms: int) -> RangeScan:
        """Note, right before a call, what a bucket found empty would prove. Of a bucket's pages, the first counts."""
        if self.resume is not None:
            return self
        bucket, from_ms, until_ms, _ = self.request
        last_ms = last_ms_of(bucket, self.bucket_width_ms)
        whole = from_ms == first_ms_of(bucket, self.bucket_width_ms) and until_ms == last_ms
        grace_is_over = last_ms + retire_grace_ms < now_ms
        return self._replace(would_prove=Empty(bucket, late_writes) if whole and grace_is_over else None)

    def proven_by(self, page: Page) -> Empty | None:
        """The bucket that is known to be empty now that this page was read. Ask before `after`.

        Tombstones do not count: a bucket that holds nothing else is empty. Records that cannot be decoded do not count
        either, or one of them would keep its bucket open for ever.
        """
        return self.would_prove if page.resume is None and not page.triggers else None

    def after(self, page: Page) -> RangeScan:
        """The scan once this page has been taken in."""
        last_tombstone = page.tombstones[-1].key if page.tombstones else None
        if page.resume is not None:
            return self._replace(
                passed_ms=max(self.passed_ms, _last_due_ms(page)),
                resume=page.resume,
                last_tombstone=last_tombstone,
                would_prove=None if page.triggers else self.would_prove,
            )
        until_ms = self.request.until_ms
        return self._replace(
            next_ms=until_ms + 1, passed_ms=until_ms, resume=None, last_tombstone=last_tombstone, would_prove=None
        )

    def cancelled(self, page: Page) -> set[TriggerKey]:
        """Keys with a tombstone, as far as this page needs them. Ask before `after`.

        A tombstone sorts right before its trigger, so only the last one of a page can belong to the next page.
        """
        keys = {tombstone.key for tombstone in page.tombstones}
        if self.last_tombstone is not None:
            keys.add(self.last_tombstone)
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
