"""The ingester: receives inbound messages, has their jobs seen through, deletes the messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from dynein.core.inbound_message import Arrival, unpack
from dynein.core.ports import Deployment, Ports
from dynein.core.queues import Received
from dynein.core.trigger import slots
from dynein.delivery.dead_letter_queue import DeadLetterQueue
from dynein.delivery.delivery import Delivery
from dynein.errors import DyneinError, FatalError
from dynein.fleet.membership import Membership
from dynein.ingest.admission import Gate
from dynein.ingest.batched_store import BatchedStore
from dynein.ingest.crew import Crew
from dynein.ingest.inbox import Inbox
from dynein.ingest.late_writes import LateWrites
from dynein.ingest.marks_cache import ShardView
from dynein.ingest.message_processor import Ingestion
from dynein.ingest.near_jobs import Hand
from dynein.ingest.receive_history import Memory
from dynein.ingest.retrying import Retrying
from dynein.ingest.visibility import Visibility
from dynein.observability.events.ingest import INBOUND_GIVEN_BACK, INBOUND_LEFT, INBOUND_POISON
from dynein.observability.events.process import ROSTER_NOT_LEFT
from dynein.runtime.context import Context
from dynein.runtime.periodic import run_periodically
from dynein.settings import Settings

ENTRY_BYTES_MIN = 60
"""No job takes less of an inbound message: its token alone has 52 characters."""
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
        queues, store, shards = ports.queues, ports.triggers, ports.shards
        inbound_url, bucket_width_ms = deployment.inbound_url, deployment.layout.bucket_width_ms
        clock, telemetry, rng, tally = context.clock, context.telemetry, context.rng, context.tally
        self._delivery = delivery
        self._dead_letters = dead_letters
        self._membership = membership
        self._clock = clock
        self._telemetry = telemetry
        self._settings = settings
        self._rng = rng
        self._ended = asyncio.Event()
        self._stopping = asyncio.Event()
        self._memory = Memory()
        self._working: dict[str, asyncio.Task[None]] = {}
        self._returning: dict[asyncio.Task[None], None] = {}

        # One message larger than the bound is let in by itself.
        waiting_max = settings.held_jobs_max + settings.message_bytes_max // ENTRY_BYTES_MIN
        hold_window_ms = round(settings.hold_window_s * 1000)
        retrying = Retrying(clock, rng, self._ended)
        self.gate = Gate(clock, slots_max=settings.held_jobs_max, rate_per_s=settings.ingest_rate_per_s)
        self.hand = Hand(delivery, clock, telemetry, patience_s=settings.hold_window_s)
        self.visibility = Visibility(queues, inbound_url, clock, telemetry, timeout_s=settings.visibility_timeout_s)
        self._inbox = Inbox(
            queues,
            inbound_url,
            clock,
            retrying,
            telemetry,
            wait_s=settings.receive_wait_s,
            visibility_timeout_s=settings.visibility_timeout_s,
            waiting_max=waiting_max,
        )
        view = ShardView(shards, clock, retrying, hold_window_ms=hold_window_ms)
        late_writes = LateWrites(
            shards,
            view,
            clock,
            retrying,
            telemetry,
            bucket_width_ms=bucket_width_ms,
            read_ahead_ms=round(settings.read_ahead_s * 1000),
            skew_max_ms=round(settings.retire_grace_s * 1000),
            waiting_max=waiting_max,
        )
        self._ingestion = Ingestion(
            BatchedStore(store, retrying, waiting_max=waiting_max),
            view,
            late_writes,
            self.hand,
            dead_letters,
            clock,
            retrying,
            telemetry,
            hold_window_ms=hold_window_ms,
            tally=tally,
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Ingest until ``stopping`` is set, then drain, within ``drain_s``.

        Raises `FatalError` when a person has to act. Cancelling it is a crash: nothing is finished or given back.
        """
        crew = Crew()
        try:
            receivers = [
                crew.start(self._passes("ingester receive", lambda: self.receive_once(crew), self._stopping))
                for _ in range(self._settings.ingest_receivers)
            ]
            crew.start(self._passes("ingester membership", self.share_once, self._stopping))
            crew.start(self._passes("ingester visibility", self.visibility.run_once, self._ended))
            crew.start(self.hand.run())
            told = crew.start(_set(stopping))
            await _first(told, crew.failure)
            await self._drain(crew, receivers)
        finally:
            self._ended.set()
            await crew.dismiss()

    async def share_once(self) -> float:
        """Beat, and take our part of the fleet's rate; the seconds until the next pass."""
        wait_s = await self._membership.run_once()
        self.gate.set_rate(self._settings.ingest_rate_per_s / len(self._membership.live))
        return wait_s

    async def receive_once(self, crew: Crew) -> float:
        """Receive once there is room and rate for it, and have what came worked on; the seconds until the next pass."""
        if not await self.gate.until_inviting():
            return 0.0
        messages = await self._inbox.receive()
        for message in messages:
            self.visibility.keep(message.message_id, message.receipt)
            # One that is being worked on has come again, since its timeout ended: it is ours by the new receipt now.
            if message.message_id not in self._working:
                self.gate.announce()
                self._working[message.message_id] = crew.start(self._work(message))
        return _IDLE_PAUSE_S if not messages and self._settings.receive_wait_s == 0 else 0.0

    async def _work(self, message: Received) -> None:
        """One message, from its receive to its delete. Only a `FatalError` comes out."""
        try:
            await self._finish(message)
        except FatalError:
            raise
        except Exception as error:  # noqa: BLE001 - one message's trouble must not end the others' work
            INBOUND_LEFT.log(error, message_id=message.message_id)
        finally:
            self._let_go(message.message_id)
            self._returning.pop(_this_task(), None)

    async def _finish(self, message: Received) -> None:
        if self._memory.recall(message.message_id).finished:
            self.gate.turn_away()
        elif not await self._take_in(message):
            await self._hand_back(message)
            return
        await self._inbox.delete(self.visibility.receipt(message.message_id))

    async def _take_in(self, message: Received) -> bool:
        """Do everything but the delete. False if it was not begun, because we are shutting down."""
        try:
            arrivals = self._unpack(message)
        except ValueError as error:
            await self._dead_letters.add_inbound(message.body, str(error))
            self._telemetry.ingested.labels("poison").inc()
            INBOUND_POISON.log(message_id=message.message_id, error=str(error))
        else:
            room = sum(slots(len(arrival.trigger.record)) for arrival in arrivals)
            if not await self.gate.enter(len(arrivals), room):
                return False
            try:
                progress = self._memory.recall(message.message_id)
                await self._ingestion.finish(arrivals, progress, received_before=message.receive_count > 1)
            finally:
                self.gate.leave(room)
        self._memory.finish(message.message_id)
        return True

    async def _hand_back(self, message: Received) -> None:
        """Make it visible at once. It is not ours from before that on: a receive still under way may bring it again."""
        receipt = self.visibility.receipt(message.message_id)
        self._let_go(message.message_id)
        self._returning[_this_task()] = None
        await self._inbox.give_back(receipt)

    def _let_go(self, message_id: str) -> None:
        if self._working.get(message_id) is _this_task():
            self.visibility.drop(message_id)
            del self._working[message_id]

    def _unpack(self, message: Received) -> list[Arrival]:
        try:
            return unpack(message.body)
        except Exception:
            self.gate.turn_away()
            raise

    async def _drain(self, crew: Crew, receivers: list[asyncio.Task[None]]) -> None:
        """Begin nothing new; send what is due soon, store the rest of what is in hand, give back what is unfinished."""
        drain_s = self._settings.drain_s
        give_back_s = min(_GIVE_BACK_S_MAX, drain_s / 4)
        self._stopping.set()
        self.gate.close()
        self._delivery.stop()
        # Beyond half of the time there would be none left to store what could not be sent.
        self.hand.let_go_after(self._clock.now_ms() + round(drain_s * 1000 / 2))
        crew.start(self._leave())
        finished = crew.start(self._all_finished(receivers))
        out_of_time = crew.start(self._clock.sleep(drain_s - give_back_s))
        await _first(finished, out_of_time, crew.failure)
        if not finished.done():
            await self._give_back_rest(crew, give_back_s)

    async def _all_finished(self, receivers: list[asyncio.Task[None]]) -> None:
        await _all_ended(receivers)
        await _all_ended([*self._working.values(), *self._returning])

    async def _give_back_rest(self, crew: Crew, within_s: float) -> None:
        """What is stored already is stored again by whoever takes it up; that changes nothing."""
        unfinished = list(self._working.items())
        INBOUND_GIVEN_BACK.log(messages=len(unfinished))
        receipts = [self.visibility.receipt(message_id) for message_id, _ in unfinished]
        for _, task in unfinished:
            task.cancel()
        await _all_ended([task for _, task in unfinished])
        returned = [crew.start(self._inbox.give_back(receipt)) for receipt in receipts]
        out_of_time = crew.start(self._clock.sleep(within_s))
        await _first(crew.start(_all_ended(returned)), out_of_time, crew.failure)

    async def _leave(self) -> None:
        try:
            await self._membership.leave()
        except DyneinError as error:
            ROSTER_NOT_LEFT.log(error, role="ingester")

    async def _passes(self, name: str, run_once: Pass, until: asyncio.Event) -> None:
        await run_periodically(name, run_once, self._clock, until, self._rng)


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def _set(event: asyncio.Event) -> None:
    await event.wait()


async def _all_ended(tasks: list[asyncio.Task[None]]) -> None:
    if tasks:
        await asyncio.wait(tasks)


async def _first(*ends: asyncio.Future[Any]) -> None:
    """Wait for any; raises the error of one that failed."""
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        if end.done():
            end.result()
