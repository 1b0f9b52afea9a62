"""Jobs in hand: each is sent at its due millisecond, and not before."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from dynein.core.due_job import DueJob, Outcome
from dynein.core.job import Job
from dynein.core.trigger import Trigger
from dynein.delivery.delivery import Delivery
from dynein.errors import Overloaded
from dynein.observability.telemetry import Telemetry
from dynein.runtime.clock import Clock, sleep_unless

RECHECK_S = 1.0
"""Longest sleep while something is held: a wall clock may be set forward meanwhile."""
_IDLE_S = 60.0
_RELEASED_AT_ONCE_MAX = 500
"""Then the event loop gets a turn."""


class NotSentError(Exception):
    """The job left the hand unsent, and will not be sent from here: store it."""


class _Held(NamedTuple):
    due_at_ms: int
    order: int
    trigger: Trigger
    job: Job
    sent: asyncio.Future[None]


class Hand:
    """A heap by due time in front of a `Delivery`.

    ``patience_s``: a job not sent this long after it was given to its lane leaves unsent (at its lane's next try), so
    that a failing destination cannot fill the hand.
    """

    def __init__(self, delivery: Delivery, clock: Clock, telemetry: Telemetry, *, patience_s: float) -> None:
        self._delivery = delivery
        self._clock = clock
        self._telemetry = telemetry
        self._patience_s = patience_s
        self._heap: list[_Held] = []
        self._order = 0
        self._jobs = 0
        self._due_max_ms: int | None = None
        self._wake = asyncio.Event()

    @property
    def jobs(self) -> int:
        """Jobs waiting for their due time or for their lane."""
        return self._jobs

    def put(self, trigger: Trigger, job: Job) -> asyncio.Future[None]:
        """Keep ``trigger`` until it is due, then send it.

        The future ends once SQS or the dead-letter queue has acknowledged it, with `NotSentError` if neither will.
        Cancelling it keeps the job from being sent if it has not been yet.
        """
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count(1)
        sent.add_done_callback(lambda _: self._count(-1))
        if self._due_max_ms is not None and trigger.key.due_at_ms > self._due_max_ms:
            sent.set_exception(NotSentError())
            return sent
        self._order += 1
        held = _Held(trigger.key.due_at_ms, self._order, trigger, job, sent)
        heapq.heappush(self._heap, held)
        if self._heap[0] is held:
            self._wake.set()
        return sent

    def let_go_after(self, due_max_ms: int) -> None:
        """Keep nothing that is due later than this, from now on."""
        self._due_max_ms = due_max_ms
        later = sorted(held for held in self._heap if held.due_at_ms > due_max_ms)
        self._heap = [held for held in self._heap if held.due_at_ms <= due_max_ms]
        heapq.heapify(self._heap)
        for held in later:
            if not held.sent.done():
                held.sent.set_exception(NotSentError())

    async def run(self) -> None:
        """Send what becomes due, until cancelled."""
        while True:
            self._wake.clear()
            wait_s = self.run_once()
            if wait_s > 0:
                await sleep_unless(self._wake, self._clock, wait_s)
            else:
                await self._clock.sleep(0)

    def run_once(self) -> float:
        """Give what is due to its lane; the seconds until the next is, or until it is time to look again."""
        now_ms = self._clock.now_ms()
        for _ in range(_RELEASED_AT_ONCE_MAX):
            if not self._heap:
                return _IDLE_S
            if self._heap[0].due_at_ms > now_ms:
                return min((self._heap[0].due_at_ms - now_ms) / 1000, RECHECK_S)
            held = heapq.heappop(self._heap)
            if not held.sent.done():
                self._send(held)
        return 0.0

    def _send(self, held: _Held) -> None:
        due_job = DueJob(held.trigger, held.job, self._may_send(held.sent))
        try:
            delivered = self._delivery.submit(due_job)
        except Overloaded:
            held.sent.set_exception(NotSentError())
        else:
            delivered.add_done_callback(partial(_pass_on, held.sent))

    def _may_send(self, sent: asyncio.Future[None]) -> Callable[[], bool]:
        patient_until = self._clock.monotonic() + self._patience_s
        return lambda: not sent.done() and self._clock.monotonic() < patient_until

    def _count(self, jobs: int) -> None:
        self._jobs += jobs
        self._telemetry.held.set(self._jobs)


def _pass_on(sent: asyncio.Future[None], delivered: asyncio.Future[Outcome]) -> None:
    """What became of a delivery, to whoever put the job in hand."""
    error = None if delivered.cancelled() else delivered.exception()
    if sent.done():
        return
    if delivered.cancelled():
        sent.cancel()
    elif error is not None:
        sent.set_exception(error)
    elif delivered.result() is Outcome.ABANDONED:
        sent.set_exception(NotSentError())
    else:
        sent.set_result(None)
