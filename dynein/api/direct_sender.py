"""Sends IMMEDIATE and SQS_DELAYED jobs straight to their destination queues, batched by destination.

Never retried: if the response to a first try was lost, a second try would deliver the job twice.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from dynein.api.policy import delay_s
from dynein.api.send_result import SendResult, results_of
from dynein.core.queue_address import is_fifo
from dynein.core.queues import DELAY_MAX_S, ENTRIES_MAX, OutgoingMessage, Queues
from dynein.delivery.destinations import Destinations
from dynein.delivery.lane_pool import LanePool
from dynein.errors import AccessDenied, DyneinError, NotSent, Unavailable, UnknownQueue
from dynein.runtime.clock import Clock
from dynein.runtime.context import Context
from dynein.runtime.group_commit import GroupCommit
from dynein.settings import Settings

LANES_MAX = 1_000
"""Lanes kept, as `LanePool` does."""


class DirectJob(NamedTuple):
    """A job that goes straight to its destination queue."""

    message: OutgoingMessage
    message_bytes: int
    delay_until_ms: int | None
    """SQS_DELAYED: SQS holds it until then."""
    queue: str
    """The destination as the caller wrote it."""


class DirectSender:
    """One lane for each destination queue, by its URL."""

    def __init__(self, queues: Queues, destinations: Destinations, context: Context, settings: Settings) -> None:
        self._lanes: LanePool[_DirectLane] = LanePool(
            LANES_MAX, lambda url: _DirectLane(url, queues, destinations, context.clock, settings)
        )

    def submit(self, url: str, job: DirectJob) -> asyncio.Future[SendResult]:
        """Send; the future has the result. Raises `Overloaded` when too many jobs wait, or too many queues are busy."""
        return self._lanes.lane(url).submit(job)

    async def drained(self) -> None:
        """Return once nothing waits and nothing is in flight."""
        await self._lanes.drained()


class _DirectLane:
    """One destination queue: a batcher, without memory of failures, since nothing is retried."""

    failing = False

    def __init__(self, url: str, queues: Queues, destinations: Destinations, clock: Clock, settings: Settings) -> None:
        self._url = url
        self._queues = queues
        self._destinations = destinations
        self._clock = clock
        self._batcher: GroupCommit[DirectJob, SendResult] = GroupCommit(
            self._flush,
            entries_max=ENTRIES_MAX,
            bytes_max=settings.message_bytes_max,
            weigh=lambda job: job.message_bytes,
            waiting_max=settings.submit_waiting_max,
            # One at a time keeps a FIFO queue's order.
            in_flight_max=1 if is_fifo(url) else settings.submit_in_flight_max,
        )

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is in flight."""
        return self._batcher.idle

    @property
    def waiting(self) -> int:
        """Jobs not yet in flight."""
        return self._batcher.waiting

    def submit(self, job: DirectJob) -> asyncio.Future[SendResult]:
        """Send. Raises `Overloaded` when too many jobs wait already."""
        return self._batcher.submit(job)

    async def drained(self) -> None:
        """Return once the lane is idle."""
        await self._batcher.drained()

    async def _flush(self, jobs: list[DirectJob]) -> list[SendResult]:
        now_ms = self._clock.now_ms()
        results: list[SendResult] = [None] * len(jobs)
        sendable: list[int] = []
        messages: list[OutgoingMessage] = []
        for i, job in enumerate(jobs):
            delay = 0 if job.delay_until_ms is None else delay_s(job.delay_until_ms, now_ms)
            if delay > DELAY_MAX_S:
                # The wall clock was set back since the policy was chosen. A shorter delay would be early.
                results[i] = NotSent("the clock was set back; the job was not sent")
                continue
            sendable.append(i)
            messages.append(job.message._replace(delay_s=delay))
        if not messages:
            return results
        for i, result in zip(sendable, await self._send(messages, jobs), strict=True):
            results[i] = result
        return results

    async def _send(self, messages: list[OutgoingMessage], jobs: list[DirectJob]) -> list[SendResult]:
        try:
            failures = await self._queues.send(self._url, messages)
        except (UnknownQueue, AccessDenied) as error:
            for queue in dict.fromkeys(job.queue for job in jobs):
                self._destinations.forget(queue)
            detail = str(error) if isinstance(error, AccessDenied) else ""
            return [UnknownQueue(jobs[0].queue, detail)] * len(messages)
        except NotSent as error:
            return [error] * len(messages)
        except Unavailable as error:
            detail = f"{error}. The job may have been sent all the same; sending it again may deliver it twice"
            return [Unavailable(detail, retry_after_s=error.retry_after_s)] * len(messages)
        except DyneinError as error:
            return [error] * len(messages)
        return results_of(failures)
