"""Near jobs, due within the hold window: kept in memory, their inbound message undeleted, until each is due.

Each is then sent at its due millisecond, not before. What cannot be sent from here is stored after all, by the caller.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from dynein.core.due_job import DueJob, Outcome
from dynein.core.job import Job
from dynein.core.trigger import Trigger
from dynein.delivery.delivery import Delivery
from dynein.delivery.due_timer import DueTimer
from dynein.errors import Overloaded, Retryable
from dynein.ingest.admission import Admission
from dynein.runtime.context import Context
from dynein.settings import Settings


class NotSentError(Retryable):
    """The job has not been sent, and will not be unless it is put again: store it, or put it again later."""


class _NearJob(NamedTuple):
    trigger: Trigger
    job: Job
    sent: asyncio.Future[None]
    note_sent: Callable[[], None]


class NearJobs:
    """A `DueTimer` in front of a `Delivery`.

    A job not sent ``hold_window_s`` after it was given to its lane is evicted (at its lane's next try), so that a
    failing destination cannot fill the memory for near jobs.
    """

    def __init__(self, delivery: Delivery, admission: Admission, context: Context, settings: Settings) -> None:
        self._delivery = delivery
        self._admission = admission
        admission.when_full.append(self.make_room)
        self._clock = context.clock
        self._held = context.telemetry.held
        self._in_lane_s_max = settings.hold_window_s
        self._storable_after_ms = round((settings.read_ahead_s + 1.0) * 1000)
        self._timer: DueTimer[_NearJob] = DueTimer(context.clock, self._on_due)
        self._jobs = 0
        self._due_max_ms = math.inf

    @property
    def jobs(self) -> int:
        """Jobs waiting for their due time or for their lane."""
        return self._jobs

    def put(self, trigger: Trigger, job: Job, note_sent: Callable[[], None] = lambda: None) -> asyncio.Future[None]:
        """Keep ``trigger`` until it is due, then send it.

        The future ends once SQS or the dead-letter queue has acknowledged it, with `NotSentError` if neither will.
        Cancelling it keeps the job from being sent if it has not been yet. ``note_sent`` is called at that
        acknowledgement in any case, also when the future was cancelled while the job was on its way.
        """
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count(1)
        sent.add_done_callback(lambda _: self._count(-1))
        due_at_ms = trigger.key.due_at_ms
        due_max_ms = self._storable_from_ms() if self._admission.is_full else math.inf
        if due_at_ms > min(due_max_ms, self._due_max_ms):
            sent.set_exception(_evicted())
        else:
            self._timer.add(due_at_ms, _NearJob(trigger, job, sent, note_sent), trigger.key.job_id)
        return sent

    def evict_due_after(self, due_max_ms: float) -> None:
        """Keep nothing that is due later than this, from now on."""
        self._due_max_ms = due_max_ms
        self._evict(due_max_ms)

    def make_room(self) -> None:
        """Evict what a dispatcher can still send on time: memory is for what is due sooner, and would be late.

        At least a second must be left for storing it before its shard's read mark comes to it.
        """
        self._evict(self._storable_from_ms())

    def _storable_from_ms(self) -> int:
        return self._clock.now_ms() + self._storable_after_ms

    def _evict(self, due_max_ms: float) -> None:
        for near in self._timer.discard(lambda near: near.trigger.key.due_at_ms > due_max_ms):
            if not near.sent.done():
                near.sent.set_exception(_evicted())

    async def run(self) -> None:
        """Send what becomes due, until cancelled."""
        await self._timer.run()

    def _on_due(self, near: _NearJob) -> None:
        if near.sent.done():
            return
        due_job = DueJob(near.trigger, near.job, self._may_send(near.sent))
        try:
            delivered = self._delivery.submit(due_job)
        except Overloaded as error:
            near.sent.set_exception(NotSentError(str(error)))
        else:
            delivered.add_done_callback(partial(_pass_on, near))

    def _may_send(self, sent: asyncio.Future[None]) -> Callable[[], bool]:
        until = self._clock.monotonic() + self._in_lane_s_max
        return lambda: not sent.done() and self._clock.monotonic() < until

    def _count(self, jobs: int) -> None:
        self._jobs += jobs
        self._held.set(self._jobs)


def _evicted() -> NotSentError:
    return NotSentError("it is due later than it may be held in memory")


def _pass_on(near: _NearJob, delivered: asyncio.Future[Outcome]) -> None:
    """End ``near.sent`` as the delivery ended."""
    error = None if delivered.cancelled() else delivered.exception()
    acknowledged = not delivered.cancelled() and error is None and delivered.result() is not Outcome.ABANDONED
    if acknowledged:
        near.note_sent()
    if near.sent.done():
        return
    if delivered.cancelled():
        near.sent.cancel()
    elif error is not None:
        near.sent.set_exception(error)
    elif acknowledged:
        near.sent.set_result(None)
    else:
        near.sent.set_exception(
            NotSentError("its destination has failed for too long, or this process is shutting down")
        )
