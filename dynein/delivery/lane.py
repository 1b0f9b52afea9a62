"""One destination's lane: its batches, and what becomes of each job in them. What it promises is in `dynein.delivery`.

When it may try, and when it must give up: `dynein.delivery.lane_pace`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from dynein.core.due_job import DueJob, Outcome
from dynein.core.keys import TriggerKey
from dynein.core.queue_address import is_fifo, name_of
from dynein.core.queues import ENTRIES_MAX, Destination, Queues, SendFailure, call_failure
from dynein.delivery.dead_letter_queue import DeadLetterQueue
from dynein.delivery.delivery_record import DeliveryRecord
from dynein.delivery.destinations import Destinations
from dynein.delivery.lane_pace import LanePace
from dynein.errors import Remedy, Retryable
from dynein.observability.tracing import Tracing
from dynein.runtime.clock import sleep_unless
from dynein.runtime.context import Context
from dynein.runtime.group_commit import Batch, GroupCommit
from dynein.settings import Settings

_OWN_QUEUE = SendFailure("OwnQueue", "jobs cannot be sent to Dynein's own queues", Remedy.REJECT)


class Shared(NamedTuple):
    """What all lanes of one `dynein.delivery.delivery.Delivery` share."""

    role: str
    queues: Queues
    destinations: Destinations
    dead_letters: DeadLetterQueue
    context: Context
    settings: Settings
    stopping: asyncio.Event
    when_failing: list[Callable[[str], None]]
    """Called with the queue's name at each failure of a lane."""
    tracing: Tracing | None


def _key(due_job: DueJob) -> TriggerKey:
    return due_job.trigger.key


class Lane:
    """One destination."""

    def __init__(self, shared: Shared, queue: str) -> None:
        self._shared = shared
        self._queue = queue
        self._is_own = name_of(queue) in shared.settings.own_queues
        self._pace = LanePace(shared.settings, shared.context.rng)
        self._failure: SendFailure | None = None
        """The last that was not about one job's content."""
        self._record = DeliveryRecord(shared.role, queue, shared.context, shared.tracing)
        fifo = is_fifo(queue)
        self._batcher: GroupCommit[DueJob, Outcome] = GroupCommit(
            self._deliver,
            entries_max=ENTRIES_MAX,
            bytes_max=shared.settings.message_bytes_max,
            weigh=DueJob.size,
            waiting_max=shared.settings.lane_waiting_max,
            # One at a time keeps a FIFO queue's order even through retries. What was read or stored late takes its
            # place among those that wait.
            in_flight_max=1 if fifo else shared.settings.lane_in_flight_max,
            order=_key if fifo else None,
        )

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is in flight."""
        return self._batcher.idle

    @property
    def failing(self) -> bool:
        """Was the destination's last response, or its absence, a failure?"""
        return self._pace.failing_since is not None

    @property
    def has_room(self) -> bool:
        """Would `submit` take another job now?"""
        return self._batcher.waiting < self._shared.settings.lane_waiting_max

    def submit(self, due_job: DueJob) -> asyncio.Future[Outcome]:
        """Send it as soon as the lane's pace allows. Raises `Overloaded` when the lane is full."""
        return self._batcher.submit(due_job)

    async def drained(self) -> None:
        """Return once the lane is idle."""
        await self._batcher.drained()

    async def _deliver(self, due_jobs: Batch[DueJob, Outcome]) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        pending = list(range(len(due_jobs)))
        while pending:
            if self._failure is not None and self._pace.is_given_up(self._shared.context.clock.monotonic()):
                pending = sorted(await self._dead_letter(due_jobs, dict.fromkeys(pending, self._failure), outcomes))
            if pending:
                await self._pause()
            pending = self._drop_abandoned(due_jobs, pending, outcomes)
            if not pending:
                break
            where: Destination | Exception | None = self._shared.destinations.known(self._queue)
            if where is None:
                where = await self._look_up()
                # Asked again: the look-up may have taken longer than the lease had left.
                pending = self._drop_abandoned(due_jobs, pending, outcomes)
                if not pending:
                    break
            failures = await self._try([due_jobs[i] for i in pending], where)
            for i, failure in zip(pending, failures, strict=True):
                if failure is None:
                    # Known at once, though the rest may be tried for a while yet: until its trigger is removed, a crash
                    # or a handover would send it again.
                    due_jobs.settle(i, Outcome.SENT)
            pending = await self._settle(due_jobs, pending, failures, outcomes)
        return [outcomes[i] for i in range(len(due_jobs))]

    async def _settle(
        self,
        due_jobs: list[DueJob],
        pending: list[int],
        failures: list[SendFailure | None],
        outcomes: dict[int, Outcome],
    ) -> list[int]:
        """Note what came of a try, for its jobs and for the lane; returns what has to be tried again."""
        retry: dict[int, SendFailure] = {}
        refused: dict[int, SendFailure] = {}
        for i, failure in zip(pending, failures, strict=True):
            if failure is None:
                outcomes[i] = Outcome.SENT
            elif failure.remedy is Remedy.REJECT:
                refused[i] = failure
            else:
                retry[i] = failure
        if refused:
            retry |= await self._dead_letter(due_jobs, refused, outcomes)
        now = self._shared.context.clock.monotonic()
        if not retry:
            if self.failing:
                self._record.recovered(self._pace, now)
            self._pace.succeeded()
            return []
        partly = len(retry) < len(pending)
        self._pace.failed(now, partly=partly)
        self._failure = next(iter(retry.values()))
        self._record.failing(retry, self._pace, now)
        for call in self._shared.when_failing:
            call(self._queue)
        if not partly and self._pace.is_over_budget(now):
            retry = await self._dead_letter(due_jobs, retry, outcomes)
        return sorted(retry)

    def _drop_abandoned(self, due_jobs: list[DueJob], pending: list[int], outcomes: dict[int, Outcome]) -> list[int]:
        stopping = self._shared.stopping.is_set() and self._pace.failures > 0
        kept = []
        for i in pending:
            if stopping or not due_jobs[i].may_send():
                outcomes[i] = Outcome.ABANDONED
            else:
                kept.append(i)
        return kept

    async def _look_up(self) -> Destination | Exception:
        try:
            return await self._shared.destinations.resolve(self._queue)
        except Exception as error:  # noqa: BLE001 - see _call_failed
            return error

    async def _try(self, due_jobs: list[DueJob], where: Destination | Exception) -> list[SendFailure | None]:
        """One call. A call that failed as a whole is reported as a failure of each entry."""
        if isinstance(where, Exception):
            return self._call_failed(where, len(due_jobs))
        if self._is_own:
            # The API accepts no such job: this one was not made by it. Sent, it would be taken for many that were.
            return [_OWN_QUEUE] * len(due_jobs)
        sent_at_ms = self._shared.context.clock.now_ms()
        try:
            messages = [due_job.message(fifo=where.fifo) for due_job in due_jobs]
            failures = await self._shared.queues.send(where.url, messages)
        except Exception as error:  # noqa: BLE001 - see _call_failed
            if not isinstance(error, Retryable):
                self._shared.destinations.forget(self._queue)
            return self._call_failed(error, len(due_jobs))
        self._record.tried(due_jobs, failures, sent_at_ms, sent_at_ms + where.imposed_delay_s * 1000)
        return failures

    def _call_failed(self, error: Exception, jobs: int) -> list[SendFailure | None]:
        """A whole call's error as that of each entry, to be retried.

        An unexpected error is retried too. Raised, it would fail the whole batch, with those of its jobs that were
        already acknowledged, and they would be sent again.
        """
        self._record.call_failed(error, jobs)
        return [call_failure(error)] * jobs

    async def _dead_letter(
        self, due_jobs: list[DueJob], failures: dict[int, SendFailure], outcomes: dict[int, Outcome]
    ) -> dict[int, SendFailure]:
        """Send these jobs to the dead-letter queue; returns those that it did not acknowledge."""
        ours = self._drop_abandoned(due_jobs, list(failures), outcomes)
        accepted = await asyncio.gather(*(self._dead_letter_one(due_jobs[i], failures[i]) for i in ours))
        for i, gone in zip(ours, accepted, strict=True):
            if gone:
                outcomes[i] = Outcome.DEAD_LETTERED
        return {i: failures[i] for i in ours if i not in outcomes}

    async def _dead_letter_one(self, due_job: DueJob, failure: SendFailure) -> bool:
        trigger = due_job.trigger
        reason = f"{failure.code}: {failure.message}"
        try:
            await self._shared.dead_letters.add_job(trigger.record, trigger.token, trigger.key.due_at_ms, reason)
        except Exception as error:  # noqa: BLE001 - as in _call_failed
            self._record.dead_letter_failed(due_job, error)
            return False
        self._record.dead_lettered(due_job, failure, reason)
        return True

    async def _pause(self) -> None:
        """Wait out the lane's backoff; a shutdown ends it."""
        clock = self._shared.context.clock
        await sleep_unless(self._shared.stopping, clock, self._pace.pause_s(clock.monotonic()))
