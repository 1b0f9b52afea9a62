"""A shard by brute force: its store, its writers, its lease and its buffer, as far as a read plan depends on them.

Everything is an entry in a dict, nothing is ordered or paged in advance. The model knows of each trigger why it may not
have been read yet, and of each bucket what reads have shown; it holds the plan to both.
"""

from __future__ import annotations

from typing import NamedTuple

from dynein.core.keys import JOB_ID_BYTES, Kind, TriggerKey, bucket_of, sort_key
from dynein.core.shard_records import new_shard_record
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import Page
from dynein.scheduler.range_scan import PageRequest, first_ms_of, last_ms_of
from dynein.scheduler.read_plan import ReadPlan, ScheduledRead, View
from dynein.scheduler.read_states import State

WIDTH_MS = 10
READ_AHEAD_MS = 30
GRACE_MS = 50
TICK_MS = 10
SEEN_LATE_MS = 2 * TICK_MS
"""A move is visible to every read this long after it was counted, and before its count has settled."""
START_MS = 1_000


class Stored(NamedTuple):
    """A trigger in the store."""

    queue: str
    late: int
    """The number of the late write that counts it; 0: it was stored ahead of the read mark."""
    moved: bool = False


class UnderWay(NamedTuple):
    """A read between `ReadPlan.next` and `ReadPlan.advance`."""

    read: ScheduledRead
    begun_ms: int
    late_writes: int
    page: Page | None = None


class Coverage(NamedTuple):
    """How much of one bucket the pages read so far have shown to be empty."""

    bucket: int
    late_writes: int


class Shard:
    """One shard and its owner."""

    def __init__(self) -> None:
        self.now_ms = START_MS
        self.behind_ms = 0
        self.record = new_shard_record(0, START_MS + 3_600_000 - 4 * WIDTH_MS, WIDTH_MS)
        """In the store."""
        self.stored: dict[TriggerKey, Stored] = {}
        self.uncounted: dict[TriggerKey, str] = {}
        """Stored behind the read mark; the writer has yet to count it."""
        self.hidden: dict[TriggerKey, tuple[Stored, int, int]] = {}
        """Moved: counted, but not yet shown to reads. With the time, and the ticks that have shown the count."""
        self.full: set[str] = set()
        self._jobs = 0
        self.take_over()

    def take_over(self) -> None:
        """A new owner begins with an empty buffer and what the shard record says."""
        self.seen = self.record
        self.readable_ms = self.stood_ms = self.record.settled_mark_ms
        self.settled_late_writes = self.noted_late_writes = -1
        self.buffered: dict[TriggerKey, str] = {}
        self.evicted: dict[str, int] = {}
        self.under_way: UnderWay | None = None
        self.failed: dict[bool, PageRequest] = {}
        self.shown_empty: dict[bool, Coverage | None] = {}
        self.empty: dict[int, Coverage] = {}
        self.forward_ms = first_ms_of(self.record.retired_before, WIDTH_MS) - 1
        self.reads = 0
        self.plan = ReadPlan(
            self.record,
            self.settled_late_writes,
            bucket_width_ms=WIDTH_MS,
            read_ahead_ms=READ_AHEAD_MS,
            retire_grace_ms=GRACE_MS,
        )

    # --- writers ----------------------------------------------------------------------------------------------------

    def _key(self, due_at_ms: int) -> TriggerKey:
        self._jobs += 1
        # Not in the order of their making: a later one may belong on a page that was read.
        return TriggerKey(due_at_ms, (self._jobs * 7919 % 10_007).to_bytes(JOB_ID_BYTES, "big"), 0)

    def store_ahead(self, after_mark_ms: int, queue: str) -> None:
        self.stored[self._key(self.record.read_mark_ms + 1 + after_mark_ms)] = Stored(queue, 0)

    def store_late(self, before_mark_ms: int, queue: str) -> TriggerKey:
        """Behind the read mark; it may be in a bucket that is being retired or was."""
        key = self._key(self.record.read_mark_ms - before_mark_ms)
        self.uncounted[key] = queue
        return key

    def count_late(self, key: TriggerKey) -> None:
        queue = self.uncounted.pop(key)
        if bucket_of(key.due_at_ms, WIDTH_MS) >= self.record.retired_before:
            self.stored[key] = Stored(queue, self._count())
        # else: its writer learns that the bucket is retired, and sends the job without the store.

    def move(self, before_mark_ms: int, queue: str) -> None:
        """Of a job that is not overdue: nothing is moved into a bucket whose grace is over."""
        due_at_ms = max(self.now_ms, self.record.read_mark_ms - before_mark_ms)
        if due_at_ms > self.record.read_mark_ms:
            self.stored[self._key(due_at_ms)] = Stored(queue, 0)
        else:
            self.hidden[self._key(due_at_ms)] = (Stored(queue, self._count(), moved=True), self.now_ms, 0)

    def show(self, key: TriggerKey) -> None:
        self.stored[key] = self.hidden.pop(key)[0]

    def _count(self) -> int:
        self.record = self.record._replace(late_writes=self.record.late_writes + 1)
        return self.record.late_writes

    # --- time and the lease -----------------------------------------------------------------------------------------

    def pass_time(self, ms: int) -> None:
        self.now_ms += ms
        for key, (_, since_ms, _) in list(self.hidden.items()):
            if self.now_ms - since_ms >= SEEN_LATE_MS:
                self.show(key)

    def set_clock(self, behind_ms: int) -> None:
        """The next owner's clock is that far behind, or right. Marks only rise all the same."""
        ms, self.behind_ms = behind_ms - self.behind_ms, behind_ms
        self.now_ms -= ms
        self.hidden = {key: (moved, since_ms - ms, ticks) for key, (moved, since_ms, ticks) in self.hidden.items()}

    def tick(self, ms: int, *, answered: bool = True) -> None:
        self.pass_time(ms)
        if not answered:
            self.plan.retire_before(self.seen, self.buckets)
            return
        for key, (trigger, since_ms, ticks) in list(self.hidden.items()):
            if ticks:
                self.show(key)
            else:
                self.hidden[key] = (trigger, since_ms, ticks + 1)
        self._renew(max(self.record.read_mark_ms, self.now_ms + READ_AHEAD_MS), self.stood_ms)
        self.readable_ms, self.stood_ms = self.stood_ms, self.record.read_mark_ms
        self.settled_late_writes, self.noted_late_writes = self.noted_late_writes, self.record.late_writes
        self.plan.renewed(self.seen)

    def _renew(self, read_mark_ms: int, settled_mark_ms: int) -> None:
        before = self.plan.retire_before(self.seen, self.buckets)
        self.record = self.record._replace(read_mark_ms=read_mark_ms, settled_mark_ms=settled_mark_ms)
        if before > self.record.retired_before and self.seen.late_writes == self.record.late_writes:
            self._check_retirement(range(self.record.retired_before, before))
            self.record = self.record._replace(retired_before=before)
        self.seen = self.record

    def retire_at_once(self) -> None:
        """What a dispatcher does after each step."""
        if self.plan.should_retire_at_once(self.seen, self.buckets):
            self._renew(self.record.read_mark_ms, self.readable_ms)
            self.plan.renewed(self.seen)

    def _check_retirement(self, buckets: range) -> None:
        for bucket in buckets:
            assert bucket in self.empty, f"bucket {bucket} is retired though no read has shown it empty"
            assert self.empty[bucket].late_writes == self.record.late_writes, "a late write was counted since"
            assert bucket not in self.buckets, "a bucket is retired of which triggers are buffered"
            left = [key for key in [*self.stored, *self.hidden] if bucket_of(key.due_at_ms, WIDTH_MS) == bucket]
            assert not left, f"bucket {bucket} is retired with {left} in it"

    # --- the buffer -------------------------------------------------------------------------------------------------

    @property
    def buckets(self) -> set[int]:
        return {bucket_of(key.due_at_ms, WIDTH_MS) for key in self.buffered}

    def evict(self, key: TriggerKey) -> None:
        self._note_evicted(self.buffered.pop(key), key.due_at_ms)

    def _note_evicted(self, queue: str, from_ms: int) -> None:
        self.evicted[queue] = min(from_ms, self.evicted.get(queue, from_ms))

    def remove(self, key: TriggerKey) -> None:
        """It was sent."""
        del self.buffered[key]
        self.stored.pop(key, None)
        self.uncounted.pop(key, None)

    def drain(self, queue: str) -> None:
        """A destination takes jobs again."""
        self.full.discard(queue)
        if queue in self.evicted:
            self.plan.room_may_have_come()

    # --- reading ----------------------------------------------------------------------------------------------------

    @property
    def view(self) -> View:
        return View(
            now_ms=self.now_ms,
            record=self.seen,
            readable_ms=self.readable_ms,
            settled_late_writes=self.settled_late_writes,
            buffered=self.buckets,
            evicted=self.evicted,
            has_room=lambda queue: queue not in self.full,
        )

    def begin(self) -> bool:
        """Ask the plan; whether there is something to read."""
        read = self.plan.next(self.view)
        if read is None:
            self._check_idle()
            self.retire_at_once()
            return False
        for queue in read.taken_back:
            assert queue not in self.full
            del self.evicted[queue]
        forward, request = read.state is State.FORWARD, read.scan.request
        assert request.from_ms <= request.until_ms <= self.readable_ms, "read before its mark had stood a tick"
        assert request.until_ms <= self.now_ms + READ_AHEAD_MS or not forward
        assert bucket_of(request.from_ms, WIDTH_MS) == bucket_of(request.until_ms, WIDTH_MS) == request.bucket
        assert self.failed.pop(forward, request) == request, "a read that failed is to be made again"
        if forward and request.resume is None:
            assert request.from_ms == self.forward_ms + 1, "each due time is read forward once"
        self.under_way = UnderWay(read, self.now_ms, self.seen.late_writes)
        self.reads += 1
        return True

    def read(self, limit: int) -> None:
        """The call reaches the store."""
        assert self.under_way is not None
        _, from_ms, until_ms, resume = self.under_way.read.scan.request
        keys = sorted(
            key
            for key in [*self.stored, *self.uncounted]
            if from_ms <= key.due_at_ms <= until_ms and (resume is None or sort_key(key, Kind.TRIGGER) > resume)
        )
        more = sort_key(keys[limit - 1], Kind.TRIGGER) if len(keys) >= limit else None
        page = Page([Trigger(key, "token", b"record") for key in keys[:limit]], [], [], more)
        self.under_way = self.under_way._replace(page=page)

    def fail(self) -> None:
        """The call raises, whether it reached the store or not."""
        assert self.under_way is not None
        read = self.under_way.read
        self.failed[read.state is State.FORWARD] = read.scan.request
        self.under_way = None

    def finish(self) -> None:
        """The page is taken in, as a reader and a sender do it."""
        assert self.under_way is not None
        read, begun_ms, late_writes, page = self.under_way
        assert page is not None
        for key in [trigger.key for trigger in page.triggers]:
            known = self.stored.get(key)
            queue = known.queue if known is not None else self.uncounted.get(key)
            if queue is None or key in self.buffered:
                continue  # removed since, or read before
            self.buffered[key] = queue
            if key.due_at_ms <= self.now_ms and (queue in self.evicted or queue in self.full):
                self.evict(key)
        for queue, from_ms in self.plan.advance(read, page, self.evicted).items():
            assert queue in self.evicted, "a destination with room is given up"
            self._note_evicted(queue, from_ms)
        self._note_coverage(read, begun_ms, late_writes, page)
        self.under_way = None
        self.retire_at_once()

    def _note_coverage(self, read: ScheduledRead, begun_ms: int, late_writes: int, page: Page) -> None:
        bucket, from_ms, until_ms, resume = read.scan.request
        forward, last_ms = read.state is State.FORWARD, last_ms_of(bucket, WIDTH_MS)
        if resume is None:
            whole = (from_ms, until_ms) == (first_ms_of(bucket, WIDTH_MS), last_ms)
            counts = whole and begun_ms > last_ms + GRACE_MS
            self.shown_empty[forward] = Coverage(bucket, late_writes) if counts else None
        if page.triggers:
            self.shown_empty[forward] = None
        if page.resume is None:
            if forward:
                self.forward_ms = until_ms
            shown = self.shown_empty.get(forward)
            if shown is not None:
                assert shown.bucket == bucket
                self.empty[bucket] = shown

    def _check_idle(self) -> None:
        """There is nothing to read, so that all triggers are buffered but for those that have a reason not to be."""
        readable_ms = min(self.readable_ms, self.now_ms + READ_AHEAD_MS)
        for key, trigger in self.stored.items():
            seen = self.settled_late_writes if trigger.moved else self.seen.late_writes
            assert (
                key in self.buffered
                or key.due_at_ms > readable_ms
                or trigger.late > seen
                or self.evicted.get(trigger.queue, key.due_at_ms + 1) <= key.due_at_ms
            ), f"{key} is not read, and nothing is left to read"

    def read_on(self, pages: int, limit: int) -> bool:
        """Read that many pages, with nothing in between; whether there were as many."""
        for _ in range(pages):
            if not self.begin():
                return False
            self.read(limit)
            self.finish()
        return True

    def read_all(self, limit: int) -> None:
        """Read until the plan has nothing to read."""
        assert not self.read_on(1_000, limit), "reading without end"
