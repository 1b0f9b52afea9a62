"""The ingester: receives inbound messages, has them processed, and drains when its process ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from dynein.core.ports import Deployment, Ports
from dynein.core.seal import Seal
from dynein.delivery.dead_letter_queue import DeadLetterQueue
from dynein.delivery.delivery import Delivery
from dynein.errors import DyneinError
from dynein.fleet.membership import Membership
from dynein.ingest.admission import Admission
from dynein.ingest.batched_store import BatchedStore
from dynein.ingest.checked_writes import CheckedWrites
from dynein.ingest.inbox import Inbox
from dynein.ingest.late_writes import LateWrites
from dynein.ingest.marks_cache import MarksCache
from dynein.ingest.message_processor import MessageProcessor
from dynein.ingest.near_jobs import NearJobs
from dynein.ingest.poison import Poison
from dynein.ingest.received_messages import ReceivedMessages
from dynein.ingest.table_gate import TableGate
from dynein.ingest.visibility import Visibility
from dynein.observability.events.ingest import CALL_RETRIED
from dynein.observability.events.process import ROSTER_NOT_LEFT
from dynein.runtime.context import Context
from dynein.runtime.periodic import run_periodically
from dynein.runtime.retry import Backoff, Retry
from dynein.runtime.tasks import Tasks, all_ended, first_of
from dynein.settings import Settings

BACKOFF = Backoff(first_s=0.05, max_s=5.0)
_IDLE_PAUSE_S = 0.5
"""Between empty receives when ``receive_wait_s`` is 0: short polling must not spin."""
_GIVE_BACK_S_MAX = 2.0
"""Kept at the end of a drain for giving back what was not finished."""

Pass = Callable[[], Awaitable[float]]


class Ingester:
    """One ingester. `run` is its life; the passes it is made of can be called on their own.

    ``delivery`` is this ingester's own (its drain stops it).
    """

    def __init__(
        self,
        ports: Ports,
        membership: Membership,
        delivery: Delivery,
        dead_letters: DeadLetterQueue,
        deployment: Deployment,
        context: Context,
        settings: Settings,
    ) -> None:
        self._membership = membership
        self._delivery = delivery
        self._context = context
        self._settings = settings
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        """Nothing is repeated any more."""
        self.admission = Admission(context.clock, settings)
        self.near_jobs = NearJobs(delivery, self.admission, context, settings)
        self.visibility = Visibility(ports.queues, deployment.inbound_url, context, settings)
        self.inbox = Inbox(ports.queues, deployment.inbound_url, BACKOFF, self._ended, context, settings)

        retry = Retry(context.clock, context.rng, BACKOFF, failed=_log_retried, ended=self._ended)
        self._table_gate = TableGate(
            ports, context, failed=_log_retried, ended=self._stopping, ttl_s=settings.member_ttl_s
        )
        store = BatchedStore(ports.triggers, deployment.layout, retry, settings)
        marks = MarksCache(ports.shards, context.clock, retry, settings)
        poison = Poison(dead_letters, retry, context)
        late_writes = LateWrites(ports.shards, marks, deployment.layout, retry, context, settings)
        writes = CheckedWrites(store, late_writes, self.near_jobs, poison, retry, context.telemetry)
        processor = MessageProcessor(store, writes, marks, self.near_jobs, poison, context, settings)
        self._messages = ReceivedMessages(
            self.inbox, self.visibility, self.admission, processor, poison, Seal(settings.secrets)
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Ingest until ``stopping`` is set, then drain, within ``drain_s``.

        Raises `FatalError` when an operator has to act. Cancelling it is a crash: nothing is finished or given back.
        """
        tasks = Tasks()
        try:
            receivers = [
                tasks.start(self._passes("ingester receive", lambda: self.receive_once(tasks), self._stopping))
                for _ in range(self._settings.ingest_receivers)
            ]
            tasks.start(self._passes("ingester membership", self.share_once, self._stopping))
            tasks.start(self._passes("ingester visibility", self.visibility.run_once, self._ended))
            tasks.start(self.near_jobs.run())
            await first_of(tasks.start(stopping.wait()), tasks.failure)
            await self._drain(tasks, receivers)
        finally:
            self._ended.set()
            await tasks.cancel_all()

    async def share_once(self) -> float:
        """Write our heartbeat and take our part of the fleet's rate; the seconds until the next pass."""
        wait_s = await self._membership.run_once()
        self._table_gate.reached()
        self.admission.set_rate(self._settings.ingest_rate_per_s / len(self._membership.live))
        return wait_s

    async def receive_once(self, tasks: Tasks) -> float:
        """Receive once the table can be reached and there is room and rate for it, and begin work on what came.

        Returns the seconds until the next pass.
        """
        if not await self._table_gate.passed() or not await self.admission.until_ready():
            return 0.0
        messages = await self.inbox.receive()
        self._messages.begin(messages, tasks)
        return _IDLE_PAUSE_S if not messages and self._settings.receive_wait_s == 0 else 0.0

    async def _drain(self, tasks: Tasks, receivers: list[asyncio.Task[None]]) -> None:
        """Begin nothing new; send near jobs due soon, store the others, give back what cannot be finished in time."""
        clock, drain_s = self._context.clock, self._settings.drain_s
        give_back_s = min(_GIVE_BACK_S_MAX, drain_s / 4)
        self._stopping.set()
        self.admission.close()
        self._delivery.stop()
        # Beyond half of the time there would be none left to store what could not be sent.
        self.near_jobs.evict_due_after(clock.now_ms() + round(drain_s * 1000 / 2))
        tasks.start(self._leave_roster())
        finished = tasks.start(self._all_finished(receivers))
        await first_of(finished, tasks.start(clock.sleep(drain_s - give_back_s)), tasks.failure)
        if not finished.done():
            given_back = tasks.start(self._messages.give_back_unfinished(tasks))
            await first_of(given_back, tasks.start(clock.sleep(give_back_s)), tasks.failure)

    async def _all_finished(self, receivers: list[asyncio.Task[None]]) -> None:
        await all_ended(receivers)
        await self._messages.ended()

    async def _leave_roster(self) -> None:
        try:
            await self._membership.leave()
        except DyneinError as error:
            ROSTER_NOT_LEFT.log(error, role="ingester")

    async def _passes(self, name: str, run_once: Pass, until: asyncio.Event) -> None:
        await run_periodically(name, run_once, self._context.clock, until, self._context.rng)


def _log_retried(what: str, error: Exception, failures: int, pause_s: float) -> None:  # noqa: ARG001 - see `Failed`
    CALL_RETRIED.log(error, what=what, failures=failures)
