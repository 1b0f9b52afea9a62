"""Each due trigger to its destination's lane at its due millisecond, and on what comes of it: remove it, or evict it.

The stages a trigger goes through are drawn in `dynein.scheduler.shard_buffer`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from dynein.core.due_job import DueJob, Outcome
from dynein.core.job import Job
from dynein.core.queue_address import is_fifo
from dynein.delivery.delivery import Delivery
from dynein.delivery.due_timer import DueTimer
from dynein.errors import Overloaded
from dynein.observability.events.delivery import DELIVERY_FAILED
from dynein.observability.events.scheduler import ROLE
from dynein.runtime.context import Context
from dynein.scheduler.memory_budget import LaneShares, MemoryBudget
from dynein.scheduler.overflow import Overflow
from dynein.scheduler.remover import Remover
from dynein.scheduler.shard_buffer import BufferedTrigger, ShardBuffer, Stage


class Sender:
    """One process's sends, for all of its shards.

    ``has_drained`` is called with the name of a destination of which triggers were evicted, once little is left in its
    lane: they may be read again now.
    """

    def __init__(
        self,
        delivery: Delivery,
        remover: Remover,
        memory: MemoryBudget,
        context: Context,
        *,
        has_drained: Callable[[str], None],
    ) -> None:
        self._delivery = delivery
        self._remover = remover
        self._clock = context.clock
        self._timer: DueTimer[BufferedTrigger] = DueTimer(context.clock, self._send_due)
        self._lanes = LaneShares(memory.slots_max)
        self._overflow = Overflow(delivery, self._lanes, context.clock, send=self._to_lane, has_drained=has_drained)

    async def run(self) -> None:
        """Send what becomes due, until cancelled."""
        await self._timer.run()

    # --- what readers ask -------------------------------------------------------------------------------------------

    def has_room(self, queue: str) -> bool:
        """Would the lane of ``queue`` take a due trigger now? If not, ``has_drained`` will be called for it."""
        return self._overflow.has_room(queue)

    def schedule(self, entry: BufferedTrigger) -> None:
        """Send it when it is due: now, if it is."""
        due_at_ms, now_ms = entry.trigger.key.due_at_ms, self._clock.now_ms()
        if due_at_ms <= now_ms and not self._is_behind(entry, now_ms):
            self._submit(entry)
            return
        entry.buffer.scheduled += entry.slots
        self._timer.add(due_at_ms, entry, entry.trigger.key.job_id)

    def remove(self, entry: BufferedTrigger) -> None:
        """It has a tombstone: remove it, unsent. See `Remover.remove`."""
        self._remover.remove(entry)

    def dead_letter(self, entry: BufferedTrigger, reason: str) -> None:
        """Its record cannot be read. See `Remover.dead_letter`."""
        self._remover.dead_letter(entry, reason)

    def forget(self, buffer: ShardBuffer) -> None:
        """A shard was given up or lost: forget all of its triggers that no call is under way for."""
        buffer.close()
        self._timer.discard(lambda entry: entry.buffer is buffer)
        self._overflow.discard(buffer)

    # --- what the dispatcher asks -----------------------------------------------------------------------------------

    def overdue(self) -> int:
        """Buffered triggers whose delivery has not ended though they are due.

        Of those that wait for the timer, which passes them on within moments, one at most is counted.
        """
        return self._lanes.jobs + len(self._overflow) + self._timer.is_due(self._clock.now_ms())

    def evict_slow(self) -> None:
        """Leave slow destinations no more of the memory than their lanes take. Called once a tick."""
        self._overflow.evict_slow()

    # --- when it is due ---------------------------------------------------------------------------------------------

    def _send_due(self, entry: BufferedTrigger) -> None:
        entry.buffer.scheduled -= entry.slots
        self._submit(entry)

    def _is_behind(self, entry: BufferedTrigger, now_ms: int) -> bool:
        """Is it for a FIFO queue, while others that may be due before it still wait for the timer (after a pause)?"""
        return entry.job is not None and is_fifo(entry.job.queue) and self._timer.is_due(now_ms)

    def _submit(self, entry: BufferedTrigger) -> None:
        job, buffer = entry.job, entry.buffer
        assert job is not None
        assert entry.stage is Stage.READ, entry.stage
        queue = job.queue
        if not buffer.lease.valid():
            buffer.evict(entry)
        elif queue in buffer.evicted:
            self._overflow.evict(entry, queue)  # behind the older ones that were evicted before
        elif queue in self._overflow or not self._to_lane(entry, job):
            self._overflow.add(entry, queue)

    def _to_lane(self, entry: BufferedTrigger, job: Job) -> bool:
        """Put it into its lane, if that has room for it."""
        queue, lanes = job.queue, self._lanes
        if not lanes.has_share(queue):
            return False
        try:
            future = self._delivery.submit(DueJob(entry.trigger, job, entry.may_send))
        except Overloaded:
            return False
        entry.stage = Stage.IN_LANE
        entry.future = future
        lanes.enter(queue, entry.slots)
        future.add_done_callback(partial(self._delivered, entry, queue))
        return True

    # --- what came of it --------------------------------------------------------------------------------------------

    def _delivered(self, entry: BufferedTrigger, queue: str, future: asyncio.Future[Outcome]) -> None:
        entry.future = None
        self._overflow.lane_drained(queue, self._lanes.leave(queue, entry.slots))
        if future.cancelled():
            entry.buffer.evict(entry)
            return
        error = future.exception()
        if error is not None:
            # Whether it was sent is unknown. It is stored, so it is read again, and sent again.
            DELIVERY_FAILED.log(error, role=ROLE, queue=queue, token=entry.trigger.token)
            entry.buffer.evict(entry)
        elif future.result() is Outcome.ABANDONED:
            entry.buffer.evict(entry)
        elif entry.stage is not Stage.GONE:
            self._remover.remove(entry)
