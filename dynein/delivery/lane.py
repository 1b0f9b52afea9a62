"""One destination's lane: a batcher, and the state of its failures. `dynein.delivery` says what it promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple

from dynein.core.due_job import DueJob, Outcome
from dynein.core.ledger import Flow
from dynein.core.queues import ENTRIES_MAX, Destination, Queues, SendFailure, call_failure
from dynein.delivery.dead_letter_queue import DeadLetterQueue
from dynein.delivery.delivery_log import log_dead_lettered, log_delivered
from dynein.delivery.destinations import Destinations
from dynein.errors import DyneinError, Remedy, Retryable
from dynein.observability.events.delivery import (
    DEAD_LETTER_FAILED,
    DELIVERY_FAILED,
    DESTINATION_FAILING,
    DESTINATION_RECOVERED,
    JOB_DELIVERED,
)
from dynein.observability.tracing import Tracing
from dynein.runtime.backoff import pause_s
from dynein.runtime.clock import sleep_unless
from dynein.runtime.context import Context
from dynein.runtime.group_commit import Batch, GroupCommit
from dynein.settings import Settings

_UNTRIED_MAX_S = 60.0
"""A failing lane that has work is tried every ``backoff_max_s`` or so. One untried for this much longer had none."""


class Shared(NamedTuple):
    """What all lanes of one `dynein.delivery.delivery.Delivery` share."""

    role: str
    queues: Queues
    destinations: Destinations
    dead_letters: DeadLetterQueue
    context: Context
    settings: Settings
    stopping: asyncio.Event
    failed: list[Callable[[str], None]]
    """Called with the queue's name at each failure of a lane."""
    tracing: Tracing | None


class Lane:
    """One destination."""

    def __init__(self, shared: Shared, queue: str) -> None:
        self._shared = shared
        self._context = shared.context
        self._queue = queue
        telemetry, role = shared.context.telemetry, shared.role
        self._label = telemetry.queue_label(queue)
        # Found once: each look for a metric's labels costs as much as the count itself.
        self._lateness = telemetry.lateness.labels(role, self._label)
        self._delivered = telemetry.delivered.labels(role, self._label)
        self.failing_since: float | None = None
        self._failures = 0
        self._failed_at = 0.0
        self._resume_at = 0.0
        settings = shared.settings
        self._batcher: GroupCommit[DueJob, Outcome] = GroupCommit(
            self._deliver,
            entries_max=ENTRIES_MAX,
            bytes_max=settings.message_bytes_max,
            weigh=DueJob.size,
            waiting_max=settings.lane_waiting_max,
            # One at a time keeps a FIFO queue's order even through retries.
            in_flight_max=1 if queue.endswith(".fifo") else settings.lane_in_flight_max,
        )

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing flies."""
        return self._batcher.idle

    @property
    def failing(self) -> bool:
        """Has the last that was heard of the destination been a failure?"""
        return self.failing_since is not None

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
            await self._pause()
            pending = self._drop_abandoned(due_jobs, pending, outcomes)
            if not pending:
                break
            where: Destination | SendFailure | None = self._shared.destinations.known(self._queue)
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
        """Note what came of a try and what that says about the lane; returns what has to be tried again."""
        retry: dict[int, SendFailure] = {}
        refused: dict[int, SendFailure] = {}
        for i, failure in zip(pending, failures, strict=True):
            if failure is None:
                outcomes[i] = Outcome.SENT
            elif failure.permanent:
                refused[i] = failure
            else:
                retry[i] = failure
        if refused:
            retry |= await self._dead_letter(due_jobs, refused, outcomes)
        if not retry:
            self._recovered()
        elif len(retry) < len(pending):
            # Part of the batch went through: the queue is there, but asks us to slow down.
            self._failed(retry, restart_budget=True)
        else:
            self._failed(retry)
            if self._over_budget():
                retry = await self._dead_letter(due_jobs, retry, outcomes)
        return sorted(retry)

    def _drop_abandoned(self, due_jobs: list[DueJob], pending: list[int], outcomes: dict[int, Outcome]) -> list[int]:
        stopping = self._shared.stopping.is_set() and self._failures > 0
        kept = []
        for i in pending:
            if stopping or not due_jobs[i].may_send():
                outcomes[i] = Outcome.ABANDONED
            else:
                kept.append(i)
        return kept

    async def _look_up(self) -> Destination | SendFailure:
        try:
            return await self._shared.destinations.resolve(self._queue)
        except Exception as error:  # noqa: BLE001 - see _as_failure
            return self._as_failure(error)

    async def _try(self, due_jobs: list[DueJob], where: Destination | SendFailure) -> list[SendFailure | None]:
        """One call. A call that failed as a whole is reported as a failure of each entry."""
        sent_at_ms = self._context.clock.now_ms()
        failures: list[SendFailure | None]
        if isinstance(where, SendFailure):
            failures = [where] * len(due_jobs)
        else:
            try:
                messages = [due_job.message(fifo=where.fifo) for due_job in due_jobs]
                failures = await self._shared.queues.send(where.url, messages)
            except Exception as error:  # noqa: BLE001 - see _as_failure
                if not isinstance(error, Retryable):
                    self._shared.destinations.forget(self._queue)
                failures = [self._as_failure(error)] * len(due_jobs)
        self._count(due_jobs, failures, sent_at_ms)
        return failures

    def _count(self, due_jobs: list[DueJob], failures: list[SendFailure | None], sent_at_ms: int) -> None:
        lateness = self._lateness
        sent: list[int] = []
        for due_job, failure in zip(due_jobs, failures, strict=True):
            if failure is None:
                due_at_ms = due_job.trigger.key.due_at_ms
                sent.append(due_at_ms)
                lateness.observe(max(0, sent_at_ms - due_at_ms) / 1000)
            else:
                self._count_failure(failure)
        if self._shared.tracing is not None or JOB_DELIVERED.enabled:
            self._tell_delivered(due_jobs, failures, sent_at_ms)
        if sent:
            self._delivered.inc(len(sent))
            self._context.tally.add_all(Flow.DELIVERED, sent)

    def _count_failure(self, failure: SendFailure, what: str = "") -> None:
        remedy = Remedy.REJECT if failure.permanent else failure.remedy
        self._context.telemetry.send_failures.labels(what + failure.code, self._label, remedy.value).inc()

    def _tell_delivered(self, due_jobs: list[DueJob], failures: list[SendFailure | None], sent_at_ms: int) -> None:
        acknowledged = [due_job for due_job, failure in zip(due_jobs, failures, strict=True) if failure is None]
        log_delivered(self._shared.role, acknowledged, sent_at_ms)
        if self._shared.tracing is not None:
            acknowledged_at_ms = self._context.clock.now_ms()
            self._shared.tracing.delivered(self._shared.role, acknowledged, sent_at_ms, acknowledged_at_ms)

    async def _dead_letter(
        self, due_jobs: list[DueJob], failures: dict[int, SendFailure], outcomes: dict[int, Outcome]
    ) -> dict[int, SendFailure]:
        """Let these parcels go to the dead-letter queue; returns those that it did not acknowledge."""
        ours = self._drop_abandoned(due_jobs, list(failures), outcomes)
        accepted = await asyncio.gather(*(self._dead_letter_one(due_jobs[i], failures[i]) for i in ours))
        for i, gone in zip(ours, accepted, strict=True):
            if gone:
                outcomes[i] = Outcome.DEAD_LETTERED
        return {i: failures[i] for i in ours if i not in outcomes}

    async def _dead_letter_one(self, due_job: DueJob, failure: SendFailure) -> bool:
        telemetry = self._context.telemetry
        trigger = due_job.trigger
        reason = f"{failure.code}: {failure.message}"
        try:
            await self._shared.dead_letters.add_job(trigger.record, trigger.token, trigger.key.due_at_ms, reason)
        except Exception as error:  # noqa: BLE001 - see _as_failure
            refused = call_failure(error)
            self._count_failure(refused, "DeadLetter")
            DEAD_LETTER_FAILED.log(error, role=self._shared.role, token=trigger.token, code=refused.code)
            return False
        telemetry.dead_lettered.labels(self._shared.role, self._label).inc()
        self._context.tally.add(Flow.DEAD_LETTERED, trigger.key.due_at_ms)
        log_dead_lettered(self._shared.role, due_job, failure.code, reason)
        if self._shared.tracing is not None:
            self._shared.tracing.dead_lettered(self._shared.role, due_job, reason, self._context.clock.now_ms())
        return True

    async def _pause(self) -> None:
        """Wait out the lane's backoff; a shutdown ends it."""
        clock = self._context.clock
        await sleep_unless(self._shared.stopping, clock, self._resume_at - clock.monotonic())

    def _recovered(self) -> None:
        if self.failing_since is not None:
            failing_s = self._context.clock.monotonic() - self.failing_since
            DESTINATION_RECOVERED.log(
                role=self._shared.role, queue=self._queue, failures=self._failures, failing_s=round(failing_s, 3)
            )
        self._succeeded()

    def _succeeded(self) -> None:
        self.failing_since = None
        self._failures = 0
        self._resume_at = 0.0

    def _failed(self, retry: Mapping[int, SendFailure], *, restart_budget: bool = False) -> None:
        now = self._context.clock.monotonic()
        settings = self._shared.settings
        if now - self._failed_at > settings.backoff_max_s + _UNTRIED_MAX_S:
            self._succeeded()  # as far as anyone knows
        self._failed_at = now
        if self.failing_since is None or restart_budget:
            self.failing_since = now
        failure = next(iter(retry.values()))
        DESTINATION_FAILING.log(
            role=self._shared.role,
            queue=self._queue,
            code=failure.code,
            error=failure.message,
            jobs=len(retry),
            failing_s=round(now - self.failing_since, 3),
        )
        for tell in self._shared.failed:
            tell(self._queue)
        if now < self._resume_at:
            return  # another call of this lane has just failed too: one outage, one step of backoff
        self._failures += 1
        self._resume_at = now + pause_s(
            self._failures, first_s=settings.backoff_first_s, max_s=settings.backoff_max_s, rng=self._context.rng
        )

    def _over_budget(self) -> bool:
        assert self.failing_since is not None
        return self._context.clock.monotonic() - self.failing_since >= self._shared.settings.retry_budget_s

    def _as_failure(self, error: Exception) -> SendFailure:
        """A whole call's error as that of an entry, to be retried.

        An error that nobody foresaw is retried too. Were it let through, it would fail the whole batch, those of its
        jobs that were already acknowledged included, and they would be sent again.
        """
        if not isinstance(error, DyneinError):
            DELIVERY_FAILED.log(error, role=self._shared.role, queue=self._queue)
        return call_failure(error)
