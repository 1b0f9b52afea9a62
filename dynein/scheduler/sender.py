"""What happens to triggers in hand: each is sent at its due millisecond, and removed once that is acknowledged."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple

from dynein.core.due_job import DueJob, Outcome
from dynein.core.job import Job
from dynein.core.keys import TriggerKey
from dynein.core.ledger import NOT_KEPT, Flow, Tally
from dynein.core.queues import ENTRIES_MAX
from dynein.core.trigger_store import REMOVE_MAX, TriggerStore
from dynein.delivery.dead_letter_queue import DeadLetterQueue
from dynein.delivery.delivery import Delivery
from dynein.delivery.due_timer import DueTimer
from dynein.errors import FatalError, Overloaded
from dynein.observability.events.delivery import DELIVERY_FAILED, JOB_DEAD_LETTERED
from dynein.observability.events.scheduler import REMOVAL_FAILED, ROLE
from dynein.observability.telemetry import OTHER, Telemetry
from dynein.runtime.backoff import pause_s
from dynein.runtime.clock import Clock, sleep_unless
from dynein.runtime.group_commit import GroupCommit
from dynein.scheduler.memory_budget import MemoryBudget, lane_has_share
from dynein.scheduler.overflow import Overflow
from dynein.scheduler.shard_buffer import BufferedTrigger, ShardBuffer, Stage

REMOVALS_IN_FLIGHT_MAX = 8
PARKED_MAX_S = 10.0
"""A destination with due triggers parked for longer is slow: it must not take memory from others."""


class Backoff(NamedTuple):
    """Pauses between tries of removals and dead letters, seconds."""

    first_s: float
    max_s: float


class Sender:
    """One process's due heap, its deliveries and its removals, for all of its shards.

    ``has_drained`` is called when a destination of which triggers were let go has little left in its lane.
    """

    def __init__(
        self,
        store: TriggerStore,
        delivery: Delivery,
        dead_letters: DeadLetterQueue,
        clock: Clock,
        telemetry: Telemetry,
        memory: MemoryBudget,
        backoff: Backoff,
        rng: random.Random,
        *,
        has_drained: Callable[[str], None],
        tally: Tally = NOT_KEPT,
    ) -> None:
        self._store = store
        self._delivery = delivery
        self._dead_letters = dead_letters
        self._clock = clock
        self._telemetry = telemetry
        self._memory = memory
        self._backoff = backoff
        self._rng = rng
        self._tally = tally
        self._timer: DueTimer[BufferedTrigger] = DueTimer(clock, self._send_due)
        self._killed = asyncio.Event()
        self._fatal: asyncio.Future[None] | None = None
        self._has_drained = has_drained
        self._lane_slots: dict[str, int] = {}
        """What the due triggers of each destination take in memory."""
        self._lanes_slots = 0
        self._low_marks: dict[str, int] = {}
        """Destinations with triggers let go: how little left in their lanes makes it worth while to read those again
        before a tick."""
        self.in_lanes = 0
        """Due triggers in lanes: their delivery has not ended."""
        self._overflow = Overflow()
        delivery.when_failing.append(self._evict_parked)
        # Both hold entries in hand only, so `MemoryBudget` bounds them.
        self._removals: GroupCommit[BufferedTrigger, None] = GroupCommit(
            self._remove, entries_max=REMOVE_MAX, waiting_max=memory.slots_max, in_flight_max=REMOVALS_IN_FLIGHT_MAX
        )
        self._unreadable: GroupCommit[tuple[BufferedTrigger, str], None] = GroupCommit(
            self._dead_letter, entries_max=ENTRIES_MAX, waiting_max=memory.slots_max
        )

    # --- what readers ask -------------------------------------------------------------------------------------------

    def has_room(self, queue: str) -> bool:
        """Would a due trigger for ``queue`` be taken now? If not, ``has_drained`` will be called for it."""
        if self._has_share(queue) and self._delivery.has_room(queue):
            return True
        self._mark_low(queue)
        return False

    def schedule(self, entry: BufferedTrigger) -> None:
        """Send it when it is due: now, if it is."""
        due_at_ms = entry.trigger.key.due_at_ms
        if due_at_ms <= self._clock.now_ms():
            self._submit(entry)
            return
        entry.buffer.scheduled += entry.slots
        self._timer.add(due_at_ms, entry)

    def remove(self, entry: BufferedTrigger) -> None:
        """Remove its trigger, however often that has to be tried."""
        entry.stage = Stage.REMOVING
        self._watch(self._removals.submit(entry))

    def dead_letter(self, entry: BufferedTrigger, reason: str) -> None:
        """Its record cannot be read: move it to the dead-letter queue, then remove it."""
        entry.stage = Stage.TRYING
        entry.tried_at = self._clock.monotonic()
        self._watch(self._unreadable.submit((entry, reason)))

    def forget(self, buffer: ShardBuffer) -> None:
        """A shard was given up or lost: forget all that is not on its way."""
        buffer.close()
        self._timer.discard(lambda entry: entry.buffer is buffer)
        self._overflow.discard(buffer)

    def overdue(self) -> int:
        """Triggers in hand whose due time has passed and whose delivery has not ended."""
        parked = len(self._overflow)
        return (
            self.in_lanes
            + parked
            + (self._timer.next_due_ms is not None and self._timer.next_due_ms < self._clock.now_ms())
        )

    def evict_slow(self) -> None:
        """Destinations that take long keep no more of the memory than their lanes. Called once a tick."""
        for queue in self._overflow.waiting_since(self._clock.monotonic() - PARKED_MAX_S):
            self._evict_parked(queue)

    # --- the agent --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send what becomes due, until cancelled. Raises `FatalError` when a person has to act."""
        self._fatal = asyncio.get_running_loop().create_future()
        sending = asyncio.ensure_future(self._timer.run())
        try:
            await asyncio.wait((sending, self._fatal), return_when=asyncio.FIRST_COMPLETED)
            for ended in (sending, self._fatal):
                if ended.done():
                    ended.result()
        finally:
            self._fatal.cancel()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    def kill(self) -> None:
        """End every retry: the process is going down."""
        self._killed.set()

    async def drained(self) -> None:
        """Return once no removal is under way."""
        await self._removals.drained()

    def _send_due(self, entry: BufferedTrigger) -> None:
        entry.buffer.scheduled -= entry.slots
        self._submit(entry)

    def _submit(self, entry: BufferedTrigger) -> None:
        job, buffer = entry.job, entry.buffer
        assert job is not None
        assert entry.stage is Stage.READ, entry.stage
        queue = job.queue
        if not buffer.lease.valid():
            buffer.evict(entry)
            return
        if queue in buffer.evicted:
            self._evict(entry, queue)  # behind the older ones that were let go before
        elif queue in self._overflow or not self._to_lane(entry, job):
            if self._lane_slots.get(queue) and not self._delivery.is_failing(queue):
                self._overflow.add(queue, entry, self._clock.monotonic())
            else:
                self._evict(entry, queue)

    def _to_lane(self, entry: BufferedTrigger, job: Job) -> bool:
        """Give it to its lane, if that has room for it."""
        queue = job.queue
        if not self._has_share(queue):
            return False
        try:
            future = self._delivery.submit(DueJob(entry.trigger, job, entry.may_send))
        except Overloaded:
            return False
        entry.stage = Stage.IN_LANE
        entry.future = future
        self._lane_slots[queue] = self._lane_slots.get(queue, 0) + entry.slots
        self._lanes_slots += entry.slots
        self.in_lanes += 1
        future.add_done_callback(partial(self._delivered, entry, queue))
        return True

    def _refill(self, queue: str) -> None:
        """The lane has room again: next come those that were parked for it."""
        while (entry := self._overflow.first(queue)) is not None:
            assert entry.job is not None
            if not entry.buffer.lease.valid():
                self._overflow.take_first(queue)
                entry.buffer.evict(entry)
            elif self._to_lane(entry, entry.job):
                self._overflow.take_first(queue)
            else:
                return

    def _evict_parked(self, queue: str) -> None:
        for entry in self._overflow.take_all(queue):
            self._evict(entry, queue)

    def _evict(self, entry: BufferedTrigger, queue: str) -> None:
        self._mark_low(queue)
        entry.buffer.evict(entry)

    def _mark_low(self, queue: str) -> None:
        self._low_marks.setdefault(queue, self._lane_slots.get(queue, 0) // 4)

    def _delivered(self, entry: BufferedTrigger, queue: str, future: asyncio.Future[Outcome]) -> None:
        self.in_lanes -= 1
        self._lanes_slots -= entry.slots
        left = self._lane_slots[queue] - entry.slots
        if left:
            self._lane_slots[queue] = left
        else:
            del self._lane_slots[queue]
        entry.future = None
        if queue in self._overflow:
            self._refill(queue)
        if left <= self._low_marks.get(queue, -1):
            del self._low_marks[queue]
            self._has_drained(queue)
        if future.cancelled():
            entry.buffer.evict(entry)
            return
        error = future.exception()
        if error is not None:
            # Nobody knows whether it was sent. It is stored, so it is sent (again) after the next look at its lane.
            DELIVERY_FAILED.log(error, role=ROLE, queue=queue, token=entry.trigger.token)
            entry.buffer.evict(entry)
        elif future.result() is Outcome.ABANDONED:
            entry.buffer.evict(entry)
        elif entry.stage is not Stage.GONE:
            self.remove(entry)

    def _has_share(self, queue: str) -> bool:
        return lane_has_share(
            self._lane_slots.get(queue, 0), slots_max=self._memory.slots_max, lanes_slots=self._lanes_slots
        )

    # --- group commits ----------------------------------------------------------------------------------------------

    async def _remove(self, entries: list[BufferedTrigger]) -> Sequence[None]:
        pending = {entry.trigger.key: entry for entry in entries}

        async def try_once() -> bool:
            kept = await self._store.remove(list(pending))
            for key in _all_but(pending, kept):
                entry = pending.pop(key)
                if entry.job is not None:
                    self._telemetry.removed.inc()
                entry.buffer.drop(entry)
            return not pending

        await self._insist("removing triggers", try_once)
        return [None] * len(entries)

    async def _dead_letter(self, letters: list[tuple[BufferedTrigger, str]]) -> Sequence[None]:
        pending = list(letters)

        async def try_once() -> bool:
            while pending:
                entry, reason = pending[0]
                if not entry.buffer.closed and not entry.buffer.lease.valid():
                    return False
                if entry.may_send():
                    trigger = entry.trigger
                    try:
                        await self._dead_letters.add_job(trigger.record, trigger.token, trigger.key.due_at_ms, reason)
                    except Exception:
                        pending.append(pending.pop(0))  # one that is refused must not keep the others
                        raise
                    self.remove(entry)
                    self._telemetry.dead_lettered.labels(ROLE, OTHER).inc()
                    self._tally.add(Flow.DEAD_LETTERED, trigger.key.due_at_ms)
                    due_at_ms = trigger.key.due_at_ms
                    JOB_DEAD_LETTERED.log(
                        role=ROLE, token=trigger.token, code="unreadable", reason=reason, due_at_ms=due_at_ms
                    )
                else:
                    entry.buffer.drop(entry)
                del pending[0]
            return True

        await self._insist("dead-lettering unreadable records", try_once)
        return [None] * len(letters)

    async def _insist(self, what: str, try_once: Callable[[], Awaitable[bool]]) -> None:
        failures = 0
        while not self._killed.is_set():
            try:
                if await try_once():
                    return
            except FatalError:
                raise
            except Exception as error:  # noqa: BLE001 - nothing in hand may be forgotten for it
                REMOVAL_FAILED.log(error, what=what)
            failures += 1
            wait_s = pause_s(failures, first_s=self._backoff.first_s, max_s=self._backoff.max_s, rng=self._rng)
            await sleep_unless(self._killed, self._clock, wait_s)

    def _watch(self, future: asyncio.Future[None]) -> None:
        future.add_done_callback(self._ended)

    def _ended(self, future: asyncio.Future[None]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is not None and self._fatal is not None and not self._fatal.done():
            self._fatal.set_exception(error)


def _all_but(pending: dict[TriggerKey, BufferedTrigger], kept: list[TriggerKey]) -> list[TriggerKey]:
    if not kept:
        return list(pending)
    still = set(kept)
    return [key for key in pending if key not in still]
