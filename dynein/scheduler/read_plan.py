"""What to read next of one shard, what to read again, and which buckets may be retired. Pure.

A plan is a state machine: `ReadPlan.next` says which page to read, and `ReadPlan.advance` takes note of that page.
Between the two lies the call to the store. Everything that a decision depends on is handed in as a `View`.

Two scans are under way at most, one forward and one reread. They take turns page by page, so that neither holds up the
other. The table in `dynein.scheduler.read_states` holds what is drawn here, and anything else raises::

    forward   CAUGHT_UP ──the read mark rose──▶ FORWARD ──its end was read──▶ CAUGHT_UP

    reread    NO_REREAD ─┬─late writes were counted, or have settled──▶ LATE_WRITES ───its end was read──────▶ NO_REREAD
                         ├─a destination has room for what was evicted─▶ EVICTED ──────its end was read──────▶ NO_REREAD
                         │                                                        └────all are full again────▶ NO_REREAD
                         └─the oldest bucket could be retired if empty─▶ OLDEST_BUCKET─its end was read──────▶ NO_REREAD

    room      ROOM_ASKED ──a tick, or a lane has drained──▶ ROOM_UNKNOWN ──the destinations were asked──▶ ROOM_ASKED

    retiring  RETIRED, REFUSED, AT_ONCE: see `dynein.scheduler.retirement`

The forward scan reads each due time once, as the read mark rises: normally nothing else is needed. A reread covers what
the forward scan has passed. If there are several reasons for one, the first of these is taken:

``LATE_WRITES``
    A trigger stored behind the read mark is not met by the forward scan. Whoever stores one counts it on the shard
    record, without saying where it is; so all open buckets are read again. It is done as soon as the count is seen to
    have changed, for the trigger may be due now, and once more when that count has settled for a tick: a job that was
    moved is counted by the transaction that moves it, and a read may see the count before it sees the trigger.
``EVICTED``
    Memory for a destination that takes nothing is bounded, so triggers that were read are evicted from it. They are
    still stored. When the destination has room again, one scan from the earliest of them finds them all. It ends early
    once all destinations that it is for are full again; they are read from there on next time. Destinations are asked
    for room once a tick and whenever one of their lanes has drained, not at every step: reading for a full one would
    cost a read for nothing each time.
``OLDEST_BUCKET``
    The forward scan proves few buckets empty: it reads a bucket while that is current, not after its grace. So the
    oldest bucket that is not known to be empty is read again once that could let it be retired: its grace is over, all
    of it was read, nothing of it is buffered or evicted. Once a tick at most if it turns out not to be empty.

A read that fails changes nothing: it has had its turn, and is repeated from the same page.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import NamedTuple

from dynein.core.shard_records import ShardRecord
from dynein.core.trigger_store import Page
from dynein.scheduler.range_scan import RangeScan, first_ms_of, last_ms_of
from dynein.scheduler.read_states import Event, IllegalTransition, State, after
from dynein.scheduler.retirement import Retirement


class View(NamedTuple):
    """What is known of a shard at one moment."""

    now_ms: int
    record: ShardRecord
    """As of the last renewal."""
    readable_ms: int
    """Triggers due up to this may be read; see `dynein.scheduler.lease.Lease`."""
    settled_late_writes: int
    """A count of late writes that has stood for a tick."""
    buffered: Container[int]
    """Buckets of which triggers are in memory."""
    evicted: Mapping[str, int]
    """By destination: the earliest due time of a trigger that was evicted and has to be read again."""
    has_room: Callable[[str], bool]
    """Does a destination have room? Called for evicted ones only, and only when a reread of them could begin: one that
    has none is asked to report when it has."""


class ScheduledRead(NamedTuple):
    """One page to read."""

    state: State
    """Which scan it belongs to, and so why it is read."""
    scan: RangeScan
    queues: frozenset[str] = frozenset()
    """The destinations that an ``EVICTED`` scan is for."""
    taken_back: frozenset[str] = frozenset()
    """Destinations whose evicted triggers are all within a reread that begins now: they no longer count as evicted."""


class _Track(NamedTuple):
    """One of the two scans. In ``CAUGHT_UP`` and ``NO_REREAD`` it is the last one that was made."""

    state: State
    scan: RangeScan
    queues: frozenset[str] = frozenset()


class ReadPlan:
    """The plan of one shard, from when its lease was taken. Times are in milliseconds."""

    def __init__(
        self,
        record: ShardRecord,
        settled_late_writes: int,
        *,
        bucket_width_ms: int,
        read_ahead_ms: int,
        retire_grace_ms: int,
    ) -> None:
        self.bucket_width_ms = bucket_width_ms
        self._read_ahead_ms = read_ahead_ms
        self._retire_grace_ms = retire_grace_ms
        first_ms = first_ms_of(record.retired_before, bucket_width_ms)
        nothing = RangeScan.over(first_ms, first_ms - 1, bucket_width_ms)
        self._forward = _Track(State.CAUGHT_UP, nothing)
        self._reread = _Track(State.NO_REREAD, nothing)
        self._room = State.ROOM_ASKED
        self._retirement = Retirement(record.retired_before)
        self._looked_for = (record.late_writes, settled_late_writes)
        """These counts of late writes have been read for, or are being read for: at first, by the forward scan."""
        self._unchecked_from = record.retired_before
        """Buckets before this have been the oldest one, and were read for it, since the last renewal."""
        self.last_read: ScheduledRead | None = None
        """What `next` returned last."""

    # --- reading ----------------------------------------------------------------------------------------------------

    def next(self, view: View) -> ScheduledRead | None:
        """The page to read now; ``None`` if there is nothing to read."""
        self._start_forward(view)
        taken_back = self._start_reread(view)
        track = self._choose()
        if track is None:
            self.last_read = None
            return None
        scan = track.scan.begin(
            now_ms=view.now_ms, late_writes=view.record.late_writes, retire_grace_ms=self._retire_grace_ms
        )
        self._put(track._replace(scan=scan))
        self.last_read = ScheduledRead(track.state, scan, track.queues, taken_back)
        return self.last_read

    def advance(self, read: ScheduledRead, page: Page, evicted: Container[str]) -> dict[str, int]:
        """A page was read and taken in.

        ``evicted``: the destinations of which triggers are evicted now. Returns those that have to be read again since
        this scan ends without having come to all of theirs, each with the due time from which on. Raises
        `IllegalTransition` if ``read`` is not what `next` returned last, or has been noted before.
        """
        track = self._forward if read.state is State.FORWARD else self._reread
        if read is not self.last_read or read.scan is not track.scan:
            raise IllegalTransition("only the read scheduled last can advance, once")
        scan, event = read.scan.after(page), Event.PAGE_READ
        left: dict[str, int] = {}
        if scan.done:
            event = Event.END_READ
        elif read.queues and all(queue in evicted for queue in read.queues):
            # What was evicted since it began may have been due later than what this scan has not come to yet.
            event, left = Event.FULL_AGAIN, dict.fromkeys(read.queues, scan.passed_ms)
        self._put(_Track(after(track.state, event), scan, track.queues))
        empty = read.scan.proven_by(page)
        if empty is not None:
            self._retirement.found(empty)
        return left

    def room_may_have_come(self) -> None:
        """A destination with evicted triggers has little left to send: ask for room before the next tick."""
        self._room = after(self._room, Event.ROOM_MAY_HAVE_COME)

    @property
    def passed_ms(self) -> int:
        """The forward scan has read everything due by this."""
        return self._forward.scan.passed_ms

    @property
    def complete_ms(self) -> int:
        """Nothing due by this is left to read, but for late writes and what is evicted now."""
        if self._reread.state is State.EVICTED:
            return min(self.passed_ms, self._reread.scan.passed_ms)
        return self.passed_ms

    # --- retiring ---------------------------------------------------------------------------------------------------

    def retire_before(self, record: ShardRecord, buffered: Container[int]) -> int:
        """The bucket before which all are finished with, as far as the next renewal may say so."""
        return self._retirement.retire_before(record, buffered)

    def renewed(self, record: ShardRecord) -> None:
        """The lease has been renewed. Once a tick, and after `should_retire_at_once`."""
        self._retirement.renewed(record)
        self._room = after(self._room, Event.ROOM_MAY_HAVE_COME)
        self._unchecked_from = record.retired_before

    def should_retire_at_once(self, record: ShardRecord, buffered: Container[int]) -> bool:
        """Was retiring refused because of a late write, and is there something to retire now? Once a tick at most."""
        return self._retirement.should_retire_at_once(record, buffered)

    # --- transitions ------------------------------------------------------------------------------------------------

    def _start_forward(self, view: View) -> None:
        if self._forward.state is not State.CAUGHT_UP:
            return
        # Not beyond read-ahead even if the mark is (an owner before us whose clock was fast): memory is for what is
        # due soon.
        until_ms = min(view.readable_ms, view.now_ms + self._read_ahead_ms)
        if until_ms > self.passed_ms:
            scan = RangeScan.over(self.passed_ms + 1, until_ms, self.bucket_width_ms)
            self._forward = _Track(after(self._forward.state, Event.MARK_RISEN), scan)

    def _start_reread(self, view: View) -> frozenset[str]:
        """Begin a reread if there is reason to; returns the destinations whose evicted triggers it takes back."""
        none: frozenset[str] = frozenset()
        first_ms = first_ms_of(view.record.retired_before, self.bucket_width_ms)
        if self._reread.state is not State.NO_REREAD or self.passed_ms < first_ms:
            return none
        late_writes = (view.record.late_writes, view.settled_late_writes)
        if late_writes != self._looked_for:
            self._looked_for = late_writes
            self._start(Event.LATE_WRITES_SEEN, first_ms, self.passed_ms)
            return _with_room(view)
        if self._room is State.ROOM_UNKNOWN:
            self._room = after(self._room, Event.ASKED_FOR_ROOM)
            queues = _with_room(view)
            if queues:
                earliest_ms = min(view.evicted[queue] for queue in queues)
                self._start(Event.ROOM_FOUND, max(first_ms, earliest_ms), self.passed_ms, queues)
                return queues
        bucket = self._retirement.oldest_unproven(view.record)
        if self._worth_checking(bucket, view):
            self._unchecked_from = bucket + 1
            width_ms = self.bucket_width_ms
            self._start(Event.GRACE_OVER, first_ms_of(bucket, width_ms), last_ms_of(bucket, width_ms))
        return none

    def _worth_checking(self, bucket: int, view: View) -> bool:
        """Could the oldest bucket not known to be empty be retired, if it were?"""
        last_ms = last_ms_of(bucket, self.bucket_width_ms)
        return (
            last_ms + self._retire_grace_ms < view.now_ms
            and last_ms <= self.passed_ms
            and bucket >= self._unchecked_from
            and bucket not in view.buffered
            and all(due_at_ms > last_ms for due_at_ms in view.evicted.values())
        )

    def _start(self, event: Event, from_ms: int, until_ms: int, queues: frozenset[str] = frozenset()) -> None:
        scan = RangeScan.over(from_ms, until_ms, self.bucket_width_ms)
        self._reread = _Track(after(self._reread.state, event), scan, queues)

    def _choose(self) -> _Track | None:
        forward = self._forward if self._forward.state is not State.CAUGHT_UP else None
        reread = self._reread if self._reread.state is not State.NO_REREAD else None
        if self.last_read is not None and self.last_read.state is State.FORWARD:
            return reread or forward
        return forward or reread

    def _put(self, track: _Track) -> None:
        if track.state in (State.FORWARD, State.CAUGHT_UP):
            self._forward = track
        else:
            self._reread = track


def _with_room(view: View) -> frozenset[str]:
    return frozenset([queue for queue in view.evicted if view.has_room(queue)])
