"""Reads one owned shard: forward as its read mark rises, again where something may have been passed over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from dynein.core.job import decode_job
from dynein.core.keys import TriggerKey
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import Page, TriggerStore
from dynein.observability.events.delivery import JOB_STOPPED
from dynein.observability.events.scheduler import RECORD_UNDECODABLE, ROLE
from dynein.runtime.clock import Clock
from dynein.scheduler.lag import OVERDUE_AFTER_MS, Lag
from dynein.scheduler.lease import Lease
from dynein.scheduler.memory_budget import MemoryBudget
from dynein.scheduler.read_plan import RangeScan, first_ms_of, last_ms_of, retire_before
from dynein.scheduler.sender import Sender
from dynein.scheduler.shard_buffer import ShardBuffer

_REPORTED_MAX = 1000
_TAKEN_IN_A_TURN = 25
"""Triggers of a page taken in before other tasks get their turn: about a millisecond."""


class ReadLimits(NamedTuple):
    """The settings a reader works by."""

    bucket_width_ms: int
    read_ahead_ms: int
    retire_grace_ms: int


class Step(Enum):
    """What came of one step."""

    MORE = auto()
    IDLE = auto()
    NO_ROOM = auto()


class _Reread(NamedTuple):
    """A walk over what was read before. ``queues``: the destinations it is for; ``None``: everything."""

    scan: RangeScan
    queues: frozenset[str] | None


class ShardReader:
    """One shard's part of the dispatcher. `step` reads one page; it is called again while it says there is more.

    ``turn``: held by the one of all readers that is taking in a page.

    A record that is not a trigger at all (`Page.undecodable`) is reported once and left alone: it does not keep its
    bucket from being retired, and ``dynein audit`` finds it.
    """

    def __init__(
        self,
        lease: Lease,
        store: TriggerStore,
        sender: Sender,
        memory: MemoryBudget,
        clock: Clock,
        limits: ReadLimits,
        turn: asyncio.Lock,
        *,
        schedule: Callable[[ShardReader], None],
        ended: Callable[[ShardReader], None],
    ) -> None:
        self.lease = lease
        self._store = store
        self._sender = sender
        self._memory = memory
        self._clock = clock
        self._limits = limits
        self._turn = turn
        self._schedule = schedule
        self._ended = ended
        self.buffer = ShardBuffer(lease, memory, clock, limits.bucket_width_ms)
        self._cursor_ms = first_ms_of(lease.record.retired_before, limits.bucket_width_ms) - 1
        self._forward: RangeScan | None = None
        self._reread: _Reread | None = None
        self._was_forward = False
        self._reread_for = self._late_writes()
        """These late writes have been looked for, or are being looked for."""
        self._empty: dict[int, int] = {}
        self._checked: set[int] = set()
        self._asked_to_retire = lease.record.retired_before
        self._refused = False
        self._at_once = False
        self._may_reread_evicted = False
        self.reported: set[TriggerKey] = set()
        """Records in the place of a trigger that are none, `_REPORTED_MAX` at most."""

    # --- what the lease keeper asks ---------------------------------------------------------------------------------

    def retire_before(self) -> int:
        """The bucket before which all are finished with, as far as the next renewal may say so."""
        record = self.lease.record
        self._asked_to_retire = retire_before(
            record.retired_before, self._empty, record.late_writes, self.buffer.buckets
        )
        return self._asked_to_retire

    def renewed(self) -> None:
        """The lease has been renewed; its record may say something new. Once a tick."""
        first_open = self.lease.record.retired_before
        if self._empty and min(self._empty) < first_open:
            self._empty = {bucket: late for bucket, late in self._empty.items() if bucket >= first_open}
        self._checked.clear()
        self._may_reread_evicted = True
        self._refused = self._asked_to_retire > first_open and not self._at_once
        self._at_once = False
        self.wake()

    def close(self) -> None:
        """Nothing is read or sent from now on."""
        self._sender.forget(self.buffer)
        self._ended(self)

    def settled(self, send_timeout_s: float) -> bool:
        """Once closed: is everything that was on its way over?"""
        return self.buffer.settled(self._clock.monotonic(), send_timeout_s)

    def should_retire_at_once(self) -> bool:
        """Has a late write come between an empty read and the renewal, and is there something to retire now?

        Once a tick at most: where late writes come many a second, the moment right after a read is the best one.
        """
        self._at_once = (
            self._refused and not self.buffer.closed and self.retire_before() > self.lease.record.retired_before
        )
        return self._at_once

    def lag(self, now_ms: int) -> Lag:
        """How far this shard's work has come."""
        overdue_jobs, earliest_ms = self.buffer.unsent(now_ms - OVERDUE_AFTER_MS)
        unread_ms = [self._cursor_ms, *self.buffer.evicted.values()]
        if self._reread is not None and self._reread.queues is not None:
            unread_ms.append(self._reread.scan.passed_ms)
        if earliest_ms is not None:
            unread_ms.append(earliest_ms)
        return Lag(self.lease.shard, min(unread_ms), overdue_jobs)

    def reread_evicted(self) -> None:
        """A destination of which triggers were let go has room again."""
        self._may_reread_evicted = True
        self.wake()

    def wake(self) -> None:
        """Read on, if there is something to read."""
        self._schedule(self)

    # --- reading ----------------------------------------------------------------------------------------------------

    async def step(self) -> Step:
        """Read a page, if there is something to read and room for it. Raises what the store does, changing nothing."""
        if self._closed() or not self.lease.valid():
            return Step.IDLE
        chosen = self._choose()
        if chosen is None:
            return Step.IDLE
        limit = self._memory.reserve_page(self.buffer.scheduled)
        if limit == 0:
            return Step.NO_ROOM
        left = limit
        try:
            scan = chosen.scan
            scan.begin(
                now_ms=self._clock.now_ms(),
                late_writes=self.lease.record.late_writes,
                retire_grace_ms=self._limits.retire_grace_ms,
            )
            bucket, from_ms, until_ms, resume = scan.next_request()
            removed = self.buffer.watch_removals()
            page = await self._store.read(
                bucket, self.lease.shard, from_ms=from_ms, until_ms=until_ms, limit=limit, resume=resume
            )
            assert len(page.triggers) <= limit, (len(page.triggers), limit)
            async with self._turn:
                if self._closed():
                    return Step.IDLE
                cancelled = scan.cancelled(page)
                for start in range(0, len(page.triggers), _TAKEN_IN_A_TURN):
                    left -= self._take_in(page.triggers[start : start + _TAKEN_IN_A_TURN], cancelled, removed)
                    # A page at once would keep the event loop busy for milliseconds. What is due goes in between.
                    await self._clock.sleep(0)
                    if self._closed():
                        return Step.IDLE
                for key in page.undecodable:
                    self._report(key)
                self._advance(chosen, page)
        finally:
            self._memory.give_back(left)
        return Step.MORE

    def _closed(self) -> bool:
        return self.buffer.closed

    def _choose(self) -> _Reread | None:
        """The walk to go on with: forward and again take turns, so that neither holds up the other."""
        self._forward = self._forward or self._new_forward()
        self._reread = self._reread or self._new_again()
        forward = _Reread(self._forward, None) if self._forward is not None else None
        chosen = (self._reread or forward) if self._was_forward else (forward or self._reread)
        self._was_forward = chosen is not None and chosen is forward
        return chosen

    def _advance(self, chosen: _Reread, page: Page) -> None:
        scan = chosen.scan
        found = scan.advance(page)
        if found is not None:
            self._empty[found.bucket] = found.late_writes
        if scan is self._forward:
            self._cursor_ms = max(self._cursor_ms, scan.passed_ms)
            if scan.done:
                self._forward = None
        elif scan.done:
            self._reread = None
        elif chosen.queues is not None and all(queue in self.buffer.evicted for queue in chosen.queues):
            # All full again. The next walk goes on from here; what was let go meanwhile may have been due later.
            for queue in chosen.queues:
                self.buffer.evicted[queue] = min(self.buffer.evicted[queue], scan.passed_ms)
            self._reread = None

    def _new_forward(self) -> RangeScan | None:
        # Not beyond read-ahead even if the mark is (an owner before us whose clock was fast): memory is for what is
        # due soon.
        until_ms = min(self.lease.readable_ms, self._clock.now_ms() + self._limits.read_ahead_ms)
        return (
            RangeScan(self._cursor_ms + 1, until_ms, self._limits.bucket_width_ms)
            if until_ms > self._cursor_ms
            else None
        )

    def _new_again(self) -> _Reread | None:
        record = self.lease.record
        from_ms = first_ms_of(record.retired_before, self._limits.bucket_width_ms)
        if self._cursor_ms < from_ms:
            return None
        if self._late_writes() != self._reread_for:
            self._reread_for = self._late_writes()
            self._take_back(self._with_room())
            return _Reread(RangeScan(from_ms, self._cursor_ms, self._limits.bucket_width_ms), None)
        if self._may_reread_evicted:
            self._may_reread_evicted = False
            queues = self._with_room()
            if queues:
                from_ms = max(from_ms, self._take_back(queues))
                return _Reread(RangeScan(from_ms, self._cursor_ms, self._limits.bucket_width_ms), frozenset(queues))
        return self._new_look_for_empty()

    def _late_writes(self) -> tuple[int, int]:
        """What has to be looked for: late writes as soon as they are counted, and once more when reads show them."""
        return self.lease.record.late_writes, self.lease.settled_late_writes

    def _new_look_for_empty(self) -> _Reread | None:
        """Look whether the first bucket not known to be empty is, once that could let it be retired."""
        record, width_ms = self.lease.record, self._limits.bucket_width_ms
        bucket = retire_before(record.retired_before, self._empty, record.late_writes)
        last_ms = last_ms_of(bucket, width_ms)
        if (
            last_ms + self._limits.retire_grace_ms >= self._clock.now_ms()
            or last_ms > self._cursor_ms
            or bucket in self._checked
            or bucket in self.buffer.buckets
            or any(due_at_ms <= last_ms for due_at_ms in self.buffer.evicted.values())
        ):
            return None
        self._checked.add(bucket)
        return _Reread(RangeScan(first_ms_of(bucket, width_ms), last_ms, width_ms), None)

    def _with_room(self) -> list[str]:
        return [queue for queue in self.buffer.evicted if self._sender.has_room(queue)]

    def _take_back(self, queues: list[str]) -> int:
        """These queues' triggers are about to be read again: from what due time on?"""
        return min((self.buffer.evicted.pop(queue) for queue in queues), default=0)

    def _take_in(self, triggers: list[Trigger], cancelled: set[TriggerKey], removed: set[TriggerKey]) -> int:
        """Take triggers of a page into hand; returns how many.

        Not those ``removed`` since the read began: the page may be older than their removal, and they would be sent
        twice.
        """
        taken = 0
        for trigger in triggers:
            key = trigger.key
            if key in self.buffer or key in removed:
                continue
            if key in cancelled:
                JOB_STOPPED.log(role=ROLE, token=trigger.token, shard=key.shard, due_at_ms=key.due_at_ms)
                self._sender.remove(self.buffer.add(trigger, None))
            else:
                self._take_in_one(trigger)
            taken += 1
        return taken

    def _take_in_one(self, trigger: Trigger) -> None:
        try:
            job = decode_job(trigger.record)
        except ValueError as error:
            self._sender.dead_letter(self.buffer.add(trigger, None), str(error))
        else:
            self._sender.schedule(self.buffer.add(trigger, job))

    def _report(self, key: TriggerKey) -> None:
        if key not in self.reported and len(self.reported) < _REPORTED_MAX:
            self.reported.add(key)
            RECORD_UNDECODABLE.log(role=ROLE, shard=key.shard, due_at_ms=key.due_at_ms, job_id=key.job_id.hex())
