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
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from dynein.backoff import pause_s
from dynein.batching import GroupCommit
from dynein.clock import Clock, sleep_unless
from dynein.dead_letters import DeadLetterQueue
from dynein.directory import Directory
from dynein.errors import DyneinError, Retryable, UnknownQueue
from dynein.job import Job
from dynein.outgoing import outgoing_message
from dynein.queue import ENTRIES_MAX, OutgoingMessage, Queues, SendFailure, message_bytes
from dynein.telemetry import Telemetry
from dynein.trigger import Trigger

LANES_MAX = 10_000
"""Lanes kept; idle healthy ones are forgotten first."""


class Outcome(Enum):
    """How a delivery ended."""

    SENT = "sent"
    DEAD_LETTERED = "dead_lettered"
    ABANDONED = "abandoned"
    """Not sent by us: the lease ran out, or we are shutting down. It is still where it was stored."""


class Parcel(NamedTuple):
    """A due job on its last leg. ``may_send`` is asked right before each try (is the shard still ours?)."""

    trigger: Trigger
    job: Job
    may_send: Callable[[], bool]


class Limits(NamedTuple):
    """The settings a `Delivery` works by; see `dynein.settings.Settings` for each."""

    message_bytes_max: int
    lane_waiting_max: int
    lane_in_flight_max: int
    backoff_first_s: float
    backoff_max_s: float
    retry_budget_s: float


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
    ) -> None:
        self.role = role
        self.queues = queues
        self.directory = directory
        self.dead_letters = dead_letters
        self.clock = clock
        self.telemetry = telemetry
        self.limits = limits
        self.rng = rng
        self.stopping = asyncio.Event()
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()

    def has_room(self, queue: str) -> bool:
        """Would `submit` take a parcel for ``queue`` now?"""
        lane = self._lanes.get(queue)
        return lane is None or lane.batcher.waiting < self.limits.lane_waiting_max

    def submit(self, parcel: Parcel) -> asyncio.Future[Outcome]:
        """Send a due parcel. Raises `Overloaded` when its lane is full: it stays stored, ask again later."""
        queue = parcel.job.queue
        lane = self._lanes.get(queue)
        if lane is None:
            self._forget_an_idle_lane()
            lane = self._lanes[queue] = _Lane(self, queue)
        return lane.batcher.submit(parcel)

    def stop(self) -> None:
        """Give up pauses and retries: what is in flight may still end well, what fails is abandoned."""
        self.stopping.set()

    async def drained(self) -> None:
        """Return once no lane has anything waiting or in flight."""
        while busy := [lane for lane in self._lanes.values() if not lane.batcher.idle]:
            await busy[0].batcher.drained()

    def _forget_an_idle_lane(self) -> None:
        if len(self._lanes) < LANES_MAX:
            return
        for queue, lane in self._lanes.items():
            if lane.batcher.idle and lane.failing_since is None:
                del self._lanes[queue]
                return


class _Lane:
    """One destination."""

    def __init__(self, delivery: Delivery, queue: str) -> None:
        self._delivery = delivery
        self._queue = queue
        self.failing_since: float | None = None
        self._failures = 0
        self._resume_at = 0.0
        limits = delivery.limits
        self.batcher: GroupCommit[Parcel, Outcome] = GroupCommit(
            self._deliver,
            entries_max=ENTRIES_MAX,
            bytes_max=limits.message_bytes_max,
            weigh=_weigh,
            waiting_max=limits.lane_waiting_max,
            # One at a time keeps a FIFO queue's order even through retries.
            in_flight_max=1 if queue.endswith(".fifo") else limits.lane_in_flight_max,
        )

    async def _deliver(self, parcels: list[Parcel]) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        pending = list(range(len(parcels)))
        while pending:
            await self._pause()
            pending = self._drop_abandoned(parcels, pending, outcomes)
            if not pending:
                break
            failures = await self._try([parcels[i] for i in pending])
            retry: list[int] = []
            last: SendFailure | None = None
            for i, failure in zip(pending, failures, strict=True):
                if failure is None:
                    outcomes[i] = Outcome.SENT
                elif failure.permanent and await self._dead_letter(parcels[i], failure):
                    outcomes[i] = Outcome.DEAD_LETTERED
                else:
                    retry.append(i)
                    last = failure
            if last is None:
                self._succeeded()
            elif len(retry) < len(pending):
                # Part of the batch went through: the queue is there, but asks us to slow down.
                self._failed(restart_budget=True)
            else:
                self._failed()
                retry = await self._dead_letter_all_if_over_budget(parcels, retry, last, outcomes)
            pending = retry
        return [outcomes[i] for i in range(len(parcels))]

    def _drop_abandoned(self, parcels: list[Parcel], pending: list[int], outcomes: dict[int, Outcome]) -> list[int]:
        stopping = self._delivery.stopping.is_set() and self._failures > 0
        kept = []
        for i in pending:
            if stopping or not parcels[i].may_send():
                outcomes[i] = Outcome.ABANDONED
            else:
                kept.append(i)
        return kept

    async def _try(self, parcels: list[Parcel]) -> list[SendFailure | None]:
        """One call. A call that failed as a whole is reported as a failure of each entry."""
        delivery = self._delivery
        sent_at_ms = delivery.clock.now_ms()
        try:
            destination = await delivery.directory.resolve(self._queue)
            messages = [_message(parcel, fifo=destination.fifo) for parcel in parcels]
            failures = await delivery.queues.send(destination.url, messages)
        except UnknownQueue as error:
            delivery.directory.forget(self._queue)
            failures = [SendFailure("UnknownQueue", str(error), permanent=False)] * len(parcels)
        except DyneinError as error:
            if not isinstance(error, Retryable):
                delivery.directory.forget(self._queue)
            failures = [SendFailure(type(error).__name__, str(error), permanent=False)] * len(parcels)
        self._count(parcels, failures, sent_at_ms)
        return failures

    def _count(self, parcels: list[Parcel], failures: list[SendFailure | None], sent_at_ms: int) -> None:
        telemetry, role = self._delivery.telemetry, self._delivery.role
        lateness = telemetry.lateness.labels(role)
        sent = 0
        for parcel, failure in zip(parcels, failures, strict=True):
            if failure is None:
                sent += 1
                lateness.observe(max(0, sent_at_ms - parcel.trigger.key.due_at_ms) / 1000)
            else:
                telemetry.send_failures.labels(failure.code).inc()
        if sent:
            telemetry.delivered.labels(role, telemetry.queue_label(self._queue)).inc(sent)

    async def _dead_letter_all_if_over_budget(
        self, parcels: list[Parcel], retry: list[int], failure: SendFailure, outcomes: dict[int, Outcome]
    ) -> list[int]:
        assert self.failing_since is not None
        failing_s = self._delivery.clock.monotonic() - self.failing_since
        if failing_s < self._delivery.limits.retry_budget_s:
            return retry
        kept = []
        for i in retry:
            if parcels[i].may_send() and await self._dead_letter(parcels[i], failure):
                outcomes[i] = Outcome.DEAD_LETTERED
            else:
                kept.append(i)
        return kept

    async def _dead_letter(self, parcel: Parcel, failure: SendFailure) -> bool:
        reason = f"{failure.code}: {failure.message}"
        trigger = parcel.trigger
        try:
            await self._delivery.dead_letters.add_job(trigger.record, trigger.token, trigger.key.due_at_ms, reason)
        except DyneinError as error:
            self._delivery.telemetry.send_failures.labels(f"DeadLetter{type(error).__name__}").inc()
            return False
        telemetry = self._delivery.telemetry
        telemetry.dead_lettered.labels(self._delivery.role, telemetry.queue_label(self._queue)).inc()
        return True

    async def _pause(self) -> None:
        """Wait out the lane's backoff; a shutdown ends it."""
        delivery = self._delivery
        await sleep_unless(delivery.stopping, delivery.clock, self._resume_at - delivery.clock.monotonic())

    def _succeeded(self) -> None:
        self.failing_since = None
        self._failures = 0
        self._resume_at = 0.0

    def _failed(self, *, restart_budget: bool = False) -> None:
        now = self._delivery.clock.monotonic()
        if self.failing_since is None or restart_budget:
            self.failing_since = now
        if now < self._resume_at:
            return  # another call of this lane has just failed too: one outage, one step of backoff
        self._failures += 1
        limits = self._delivery.limits
        self._resume_at = now + pause_s(
            self._failures, first_s=limits.backoff_first_s, max_s=limits.backoff_max_s, rng=self._delivery.rng
        )


def _message(parcel: Parcel, *, fifo: bool) -> OutgoingMessage:
    return outgoing_message(parcel.job, parcel.trigger.token, parcel.trigger.key.due_at_ms, fifo=fifo)


def _weigh(parcel: Parcel) -> int:
    message = _message(parcel, fifo=False)
    return message_bytes(message.body, message.attributes)
