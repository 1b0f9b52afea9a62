"""Dispatchers on fakes: one table, one set of queues, one clock, and a network of its own for each process."""

from __future__ import annotations

import asyncio
import random
from typing import Any, NamedTuple

from dynein.core.job import Job, encode_job
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import TriggerKey, bucket_of
from dynein.core.ledger import Counts, Tally, balance_of
from dynein.core.ports import Deployment, Ports
from dynein.core.seal import Seal
from dynein.core.shard_records import Layout, ShardRecord
from dynein.core.trigger import Trigger
from dynein.delivery.dead_letter_queue import DeadLetterQueue
from dynein.delivery.delivery import Delivery
from dynein.delivery.destinations import Destinations
from dynein.fleet.membership import Membership
from dynein.observability.telemetry import Telemetry
from dynein.runtime.context import Context
from dynein.scheduler import Dispatcher
from dynein.settings import Settings
from dynein.testing import FakeLedger, FakeQueues, FakeTriggerTable, Faults, ManualClock
from dynein.testing.faults import Call
from dynein.testing.queues import Sent

DLQ = "dead"
WIDTH_MS = 60_000
SIGNER, SEAL = TokenSigner([b"0123456789abcdef"]), Seal([b"0123456789abcdef"])


class Landed(NamedTuple):
    """A message as it entered its queue."""

    queue: str
    body: str
    at_ms: int


class Network(Faults):
    """Takes a while for calls, if a test says so: for all, or for those to one target."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock
        self.takes_s = 0.0
        self.target_takes_s: dict[str, float] = {}

    async def before(self, call: Call) -> None:
        await super().before(call)
        takes_s = self.target_takes_s.get(call.target, self.takes_s)
        if takes_s:
            await self._clock.sleep(takes_s)


class Process:
    """One dispatcher process."""

    def __init__(self, world: World, name: str, settings: Settings) -> None:
        self.name = name
        self.table_faults = Network(world.clock)
        self.queue_faults = Network(world.clock)
        self.telemetry = Telemetry()
        self.tally = Tally(1000)
        self.stopping = asyncio.Event()
        context = Context(world.clock, random.Random(7), self.telemetry, self.tally)
        table = world.table.connect(self.table_faults)
        queues = world.queues.connect(self.queue_faults)
        destinations = Destinations(queues, world.clock, ttl_s=300.0)
        dead_letters = DeadLetterQueue(queues, destinations, DLQ, SEAL)
        self.delivery = Delivery("dispatcher", queues, destinations, dead_letters, context, settings)
        self.dispatcher = Dispatcher(
            Ports(queues, table, table, table, FakeLedger()),
            Membership(table, world.clock, role="dispatcher", member=name, ttl_s=settings.member_ttl_s),
            self.delivery,
            dead_letters,
            Deployment(Layout(WIDTH_MS, len(world.table.shards()), len(world.table.shards())), "", "", 262_144),
            context,
            settings,
        )
        self.task = asyncio.ensure_future(self.dispatcher.run(self.stopping))

    @property
    def shards(self) -> list[int]:
        return self.dispatcher.snapshot().shards

    def tallied(self) -> Counts:
        """All that was counted for the ledger."""
        return balance_of(self.tally.take(2**47, 1000).values()).flows

    def sends(self) -> list[int]:
        """Entries in each send call to a destination queue."""
        return [call.entries for call in self.queue_faults.calls if call.verb == "send" and call.target != DLQ]

    def reads(self) -> int:
        return sum(call.verb == "read" for call in self.table_faults.calls)

    async def kill(self) -> None:
        """As SIGKILL: nothing reaches the network any more."""
        for faults in (self.table_faults, self.queue_faults):
            faults.go_down(asyncio.CancelledError())  # type: ignore[arg-type]
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class World:
    """Everything around the dispatchers."""

    def __init__(self, *, shard_count: int = 4, **settings: Any) -> None:
        self.clock = ManualClock()
        self.table = FakeTriggerTable(self.clock, bucket_width_ms=WIDTH_MS, shard_count=shard_count)
        self.queues = FakeQueues(self.clock)
        for name in ("a", "b", DLQ):
            self.queues.create(name)
        self.landed: list[Landed] = []
        self.queues.on_sent.append(self._note)
        self.settings = Settings(**settings)
        self.processes: list[Process] = []
        self._jobs = 0

    def start(self, *names: str) -> list[Process]:
        started = [Process(self, name, self.settings) for name in names]
        self.processes += started
        return started

    async def close(self) -> None:
        for process in self.processes:
            process.task.cancel()
        await asyncio.gather(*(process.task for process in self.processes), return_exceptions=True)
        for process in self.processes:
            process.delivery.stop()
        await self.clock.settle()

    # --- triggers ---------------------------------------------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        return self.clock.now_ms()

    def trigger(self, due_at_ms: int, body: str = "hello", *, queue: str = "a", shard: int = 0) -> Trigger:
        self._jobs += 1
        key = TriggerKey(due_at_ms, self._jobs.to_bytes(12, "big"), shard)
        return Trigger(key, SIGNER.sign(JobRef(TokenKind.SCHEDULED, key)), encode_job(Job(queue=queue, body=body)))

    async def store(self, *triggers: Trigger) -> None:
        for start in range(0, len(triggers), 25):
            assert await self.table.add(triggers[start : start + 25]) == []

    async def add(self, due_at_ms: int, body: str = "hello", *, queue: str = "a", shard: int = 0) -> Trigger:
        trigger = self.trigger(due_at_ms, body, queue=queue, shard=shard)
        await self.store(trigger)
        return trigger

    def record(self, shard: int = 0) -> ShardRecord:
        return self.table.shards()[shard]

    def owners(self) -> list[str | None]:
        return [record.owner for record in self.table.shards()]

    # --- what landed ------------------------------------------------------------------------------------------------

    def bodies(self, queue: str = "a") -> list[str]:
        return [landed.body for landed in self.landed if landed.queue == queue]

    async def until_empty(self, *, within_s: float = 600.0) -> None:
        """Let time pass until no trigger is stored."""
        await self.clock.run_until(lambda: not self.table.triggers(), within_s=within_s)

    async def until_owned(self, *, within_s: float = 60.0) -> None:
        """Let time pass until every shard has an owner."""
        await self.clock.run_until(lambda: None not in self.owners(), within_s=within_s)

    def bucket(self, due_at_ms: int | None = None) -> int:
        return bucket_of(self.now_ms if due_at_ms is None else due_at_ms, WIDTH_MS)

    def _note(self, sent: Sent) -> None:
        self.landed.append(Landed(sent.queue, sent.message.body, self.clock.now_ms()))
