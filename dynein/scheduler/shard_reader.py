"""Reads one owned shard, page by page: does what its `read plan <dynein.scheduler.read_plan>` says. I/O only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto

from dynein.core.job import decode_job
from dynein.core.keys import TriggerKey
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import TriggerStore
from dynein.observability.events.delivery import JOB_STOPPED
from dynein.observability.events.scheduler import RECORD_UNDECODABLE, ROLE
from dynein.runtime.clock import Clock
from dynein.scheduler.lag import OVERDUE_AFTER_MS, Lag
from dynein.scheduler.lease import Lease
from dynein.scheduler.memory_budget import MemoryBudget
from dynein.scheduler.read_plan import ReadPlan, View
from dynein.scheduler.sender import Sender
from dynein.scheduler.shard_buffer import ShardBuffer

_REPORTED_MAX = 1000
_TAKEN_IN_A_TURN = 25
"""Triggers of a page taken in before other tasks get their turn: about a millisecond."""


class Step(Enum):
    """What came of one step."""

    MORE = auto()
    IDLE = auto()
    NO_ROOM = auto()


class ShardReader:
    """One shard's part of the dispatcher. `step` reads one page; it is called again while it returns `Step.MORE`.

    A record that is not a trigger at all (``undecodable`` in `dynein.core.trigger_store.Page`) is logged once and left
    alone: it does not keep its bucket from being retired, and ``dynein audit`` finds it.
    """

    def __init__(
        self,
        lease: Lease,
        plan: ReadPlan,
        store: TriggerStore,
        sender: Sender,
        memory: MemoryBudget,
        clock: Clock,
        *,
        schedule: Callable[[ShardReader], None],
        ended: Callable[[ShardReader], None],
    ) -> None:
        self.lease = lease
        self.plan = plan
        self._store = store
        self._sender = sender
        self._memory = memory
        self._clock = clock
        self._schedule = schedule
        self._ended = ended
        self.buffer = ShardBuffer(lease, memory, clock, plan.bucket_width_ms)
        self.reported: set[TriggerKey] = set()
        """Records in the place of a trigger that are none, `_REPORTED_MAX` at most."""

    # --- what the lease keeper asks ---------------------------------------------------------------------------------

    def retire_before(self) -> int:
        """The bucket before which all are finished with, as far as the next renewal may say so."""
        return self.plan.retire_before(self.lease.record, self.buffer.buckets)

    def renewed(self) -> None:
        """The lease has been renewed; its record may have changed. Once a tick."""
        self.plan.renewed(self.lease.record)
        self.wake()

    def close(self) -> None:
        """Nothing is read or sent from now on."""
        self._sender.forget(self.buffer)
        self._ended(self)

    def settled(self, send_timeout_s: float) -> bool:
        """Once closed: is everything that was on its way over?"""
        return self.buffer.settled(self._clock.monotonic(), send_timeout_s)

    # --- what the dispatcher asks -----------------------------------------------------------------------------------

    def should_retire_at_once(self) -> bool:
        """Has a late write come between an empty read and the renewal, and is there something to retire now?

        Once a tick at most: where late writes come many a second, the moment right after a read is the best one.
        """
        return not self.buffer.closed and self.plan.should_retire_at_once(self.lease.record, self.buffer.buckets)

    def lag(self, now_ms: int) -> Lag:
        """How far this shard's work has come."""
        overdue_jobs, earliest_ms = self.buffer.unsent(now_ms - OVERDUE_AFTER_MS)
        unread_ms = [self.plan.complete_ms, *self.buffer.evicted.values()]
        if earliest_ms is not None:
            unread_ms.append(earliest_ms)
        return Lag(self.lease.shard, min(unread_ms), overdue_jobs)

    def reread_evicted(self) -> None:
        """A destination of which triggers were evicted has room again."""
        self.plan.room_may_have_come()
        self.wake()

    def wake(self) -> None:
        """Read on, if there is something to read."""
        self._schedule(self)

    # --- reading ----------------------------------------------------------------------------------------------------

    async def step(self, turn: asyncio.Lock) -> Step:
        """Read a page, if there is something to read and room for it. Raises what the store does, changing nothing.

        ``turn``: held by the one of all readers that is taking in a page.
        """
        if self._closed() or not self.lease.valid():
            return Step.IDLE
        read = self.plan.next(self._view())
        if read is None:
            return Step.IDLE
        self.buffer.take_back(read.taken_back)
        limit = self._memory.reserve_page(self.buffer.scheduled)
        if limit == 0:
            return Step.NO_ROOM
        left = limit
        try:
            bucket, from_ms, until_ms, resume = read.scan.request
            removed = self.buffer.watch_removals()
            page = await self._store.read(
                bucket, self.lease.shard, from_ms=from_ms, until_ms=until_ms, limit=limit, resume=resume
            )
            assert len(page.triggers) <= limit, (len(page.triggers), limit)
            async with turn:
                if self._closed():
                    return Step.IDLE
                cancelled = read.scan.cancelled(page)
                for start in range(0, len(page.triggers), _TAKEN_IN_A_TURN):
                    left -= self._take_in(page.triggers[start : start + _TAKEN_IN_A_TURN], cancelled, removed)
                    # A page at once would keep the event loop busy for milliseconds. What is due goes in between.
                    await self._clock.sleep(0)
                    if self._closed():
                        return Step.IDLE
                for key in page.undecodable:
                    self._report(key)
                for queue, from_ms in self.plan.advance(read, page, self.buffer.evicted).items():
                    self.buffer.note_evicted(queue, from_ms)
        finally:
            self._memory.give_back(left)
        return Step.MORE

    def _closed(self) -> bool:
        return self.buffer.closed

    def _view(self) -> View:
        return View(
            now_ms=self._clock.now_ms(),
            record=self.lease.record,
            readable_ms=self.lease.readable_ms,
            settled_late_writes=self.lease.settled_late_writes,
            buffered=self.buffer.buckets,
            evicted=self.buffer.evicted,
            has_room=self._sender.has_room,
        )

    def _take_in(self, triggers: list[Trigger], cancelled: set[TriggerKey], removed: set[TriggerKey]) -> int:
        """Buffer triggers of a page; returns how many.

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
