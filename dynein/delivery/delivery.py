"""The last leg: due jobs to their destination queues. Shared by dispatcher and ingester.

Each destination has a *lane* of its own: a batcher, and the state of its failures. A lane that fails pauses alone; the
jobs in its way wait in it, and once it is full its further jobs are turned away (`Overloaded`) and stay where they are
stored. So a deleted or throttled queue costs bounded memory and holds up nobody.

============================================  ==================================================================
what SQS says                                 what the lane does
============================================  ==================================================================
entry acknowledged                            `Outcome.SENT`
entry refused for its content                 dead-letters that job at once: sending it again cannot succeed
entry or call throttled, failed, unanswered   pauses the lane, then tries the same batch again
queue missing, access denied                  the same, and looks the queue up anew
failing for longer than the retry budget      dead-letters the batch; one later success ends the failure
dead-letter queue fails too                   keeps trying: a job is let go only when something has acknowledged it
============================================  ==================================================================

The retry budget runs while the lane is being tried. A lane that had nothing to send for a while after a failure starts
with a new budget: what SQS said an hour ago is no reason to give a job up at its first failure now.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable

from dynein.core.due_job import Outcome, Parcel
from dynein.core.ledger import NOT_KEPT, Tally
from dynein.core.queues import Queues
from dynein.delivery.dead_letter_queue import DeadLetterQueue
from dynein.delivery.destinations import Directory
from dynein.delivery.lane import Lane, LaneContext, Limits
from dynein.errors import Overloaded
from dynein.observability.telemetry import Telemetry
from dynein.observability.tracing import Tracing
from dynein.runtime.clock import Clock

__all__ = ["LANES_MAX", "Delivery", "Limits", "Outcome", "Parcel"]

LANES_MAX = 10_000
"""Lanes kept. For a further one, the least recently used idle lane is forgotten, a healthy one if there is one."""


class Delivery:
    """Sends parcels, batched by destination."""

    def __init__(
        self,
        role: str,
        queues: Queues,
        directory: Directory,
        dead_letters: DeadLetterQueue,
        clock: Clock,
        telemetry: Telemetry,
        limits: Limits,
        rng: random.Random,
        *,
        tally: Tally = NOT_KEPT,
        tracing: Tracing | None = None,
    ) -> None:
        self.role = role
        self._stopping = asyncio.Event()
        self.when_failing: list[Callable[[str], None]] = []
        """Called with the queue's name whenever a destination fails."""
        self._context = LaneContext(
            role,
            queues,
            directory,
            dead_letters,
            clock,
            telemetry,
            limits,
            rng,
            self._stopping,
            self.when_failing,
            tally,
            tracing,
        )
        self._lanes: OrderedDict[str, Lane] = OrderedDict()

    def has_room(self, queue: str) -> bool:
        """Would `submit` take a parcel for ``queue`` now?"""
        lane = self._lanes.get(queue)
        if lane is not None:
            return lane.batcher.waiting < self._context.limits.lane_waiting_max
        return len(self._lanes) < LANES_MAX or any(lane.batcher.idle for lane in self._lanes.values())

    def is_failing(self, queue: str) -> bool:
        """Has the last that was heard of ``queue`` been a failure?"""
        lane = self._lanes.get(queue)
        return lane is not None and lane.failing_since is not None

    def submit(self, parcel: Parcel) -> asyncio.Future[Outcome]:
        """Send a due parcel. Raises `Overloaded` when its lane is full: it stays stored, ask again later."""
        queue = parcel.job.queue
        lane = self._lanes.get(queue)
        if lane is None:
            if len(self._lanes) >= LANES_MAX:
                self._forget_an_idle_lane()
            lane = self._lanes[queue] = Lane(self._context, queue)
        else:
            self._lanes.move_to_end(queue)
        return lane.batcher.submit(parcel)

    def stop(self) -> None:
        """Give up pauses and retries: what is in flight may still end well, what fails is abandoned."""
        self._stopping.set()

    async def drained(self) -> None:
        """Return once no lane has anything waiting or in flight."""
        while busy := [lane for lane in self._lanes.values() if not lane.batcher.idle]:
            await busy[0].batcher.drained()

    def _forget_an_idle_lane(self) -> None:
        forgotten: str | None = None
        for queue, lane in self._lanes.items():
            if lane.batcher.idle:
                if lane.failing_since is None:
                    forgotten = queue
                    break
                forgotten = forgotten or queue
        if forgotten is None:
            raise Overloaded(f"{LANES_MAX} destination queues have jobs on their way already")
        del self._lanes[forgotten]
