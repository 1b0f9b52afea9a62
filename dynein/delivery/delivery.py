"""Due jobs to their destination queues, for dispatcher and ingester. What it does is in the package's docstring."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dynein.core.due_job import DueJob, Outcome
from dynein.core.queues import Queues
from dynein.delivery.dead_letter_queue import DeadLetterQueue
from dynein.delivery.destinations import Destinations
from dynein.delivery.lane import Lane, Shared
from dynein.delivery.lane_pool import LanePool
from dynein.observability.tracing import Tracing
from dynein.runtime.context import Context
from dynein.settings import Settings

LANES_MAX = 10_000
"""Lanes kept, as `LanePool` does."""


class Delivery:
    """Sends due jobs, batched by destination. One for each role of a process."""

    def __init__(
        self,
        role: str,
        queues: Queues,
        destinations: Destinations,
        dead_letters: DeadLetterQueue,
        context: Context,
        settings: Settings,
        *,
        tracing: Tracing | None = None,
        lanes_max: int = LANES_MAX,
    ) -> None:
        self.role = role
        self._stopping = asyncio.Event()
        self.when_failing: list[Callable[[str], None]] = []
        """Called with the queue's name whenever a destination fails."""
        shared = Shared(
            role, queues, destinations, dead_letters, context, settings, self._stopping, self.when_failing, tracing
        )
        self._lanes: LanePool[Lane] = LanePool(lanes_max, lambda queue: Lane(shared, queue))

    def has_room(self, queue: str) -> bool:
        """Would `submit` take a job for ``queue`` now?"""
        lane = self._lanes.known(queue)
        return lane.has_room if lane is not None else self._lanes.has_room()

    def is_failing(self, queue: str) -> bool:
        """Was the last response of ``queue``, or its absence, a failure?"""
        lane = self._lanes.known(queue)
        return lane is not None and lane.failing

    def submit(self, due_job: DueJob) -> asyncio.Future[Outcome]:
        """Send a due job. Raises `Overloaded` when its lane is full: it stays stored, ask again later."""
        return self._lanes.lane(due_job.job.queue).submit(due_job)

    def stop(self) -> None:
        """End pauses and retries: what is in flight may still be acknowledged, what fails is abandoned."""
        self._stopping.set()

    async def drained(self) -> None:
        """Return once no lane has anything waiting or in flight."""
        await self._lanes.drained()
