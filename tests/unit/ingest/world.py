"""An ingester on in-memory queues and table, under a clock that moves only when a test moves it."""

import asyncio
import base64
import random
from collections import Counter
from typing import NamedTuple

from dynein.core.delivered_message import TOKEN_ATTRIBUTE
from dynein.core.inbound_message import Entry, pack
from dynein.core.job import Job, encode_job
from dynein.core.job_token import JobRef, TokenKind, TokenSigner, parse
from dynein.core.keys import TriggerKey, bucket_of
from dynein.core.ledger import Counts, Tally, balance_of
from dynein.core.ports import Deployment, Ports
from dynein.core.queues import OutgoingMessage
from dynein.core.seal import Seal
from dynein.core.shard_records import Layout, ShardRecord
from dynein.core.trigger import Trigger
from dynein.delivery.dead_letter_queue import DeadLetter, DeadLetterQueue, read_dead_letter
from dynein.delivery.delivery import Delivery
from dynein.delivery.destinations import Destinations
from dynein.fleet.membership import Membership
from dynein.ingest import Ingester
from dynein.observability.telemetry import Telemetry
from dynein.runtime.context import Context
from dynein.settings import Settings
from dynein.testing import FakeLedger, FakeQueues, FakeTriggerTable, Faults, ManualClock
from dynein.testing.queues import Sent

INBOUND = "inbound"
DLQ = "dead"
WIDTH_MS = 60_000
SECRET = "0123456789abcdef"
SIGNER, SEAL = TokenSigner([SECRET.encode()]), Seal([SECRET.encode()])


class Delivered(NamedTuple):
    """A message as it reached a destination queue."""

    queue: str
    body: str
    token: str
    at_ms: int


class Process:
    """One ingester process: its own connections, so its own faults."""

    def __init__(self, world: "World", member: str, *, faults: Faults | None = None, **settings: object) -> None:
        self.faults = faults or Faults()
        self.queues = world.queues.connect(self.faults)
        self.table = world.table.connect(self.faults)
        self.telemetry = Telemetry()
        self.tally = Tally(1000)
        self.settings = Settings.model_validate({**world.settings, **settings})
        self.clock = world.clock
        self.stopping = asyncio.Event()
        destinations = Destinations(self.queues, self.clock, ttl_s=300.0)
        dead_letters = DeadLetterQueue(self.queues, destinations, DLQ, SEAL)
        context = Context(self.clock, random.Random(5), self.telemetry, self.tally)
        self.delivery = Delivery("ingester", self.queues, destinations, dead_letters, context, self.settings)
        self.membership = Membership(
            self.table, self.clock, role="ingester", member=member, ttl_s=self.settings.member_ttl_s
        )
        self.ingester = Ingester(
            Ports(self.queues, self.table, self.table, self.table, FakeLedger()),
            self.membership,
            self.delivery,
            dead_letters,
            Deployment(Layout(WIDTH_MS, 2, 2), world.queues.url(INBOUND), "", 262_144),
            context._replace(rng=random.Random(6)),
            self.settings,
        )
        self.task: asyncio.Task[None] | None = None

    def tallied(self) -> Counts:
        """All that was counted for the ledger."""
        return balance_of(self.tally.take(self.clock.now_ms(), 1000).values()).flows

    def start(self) -> asyncio.Task[None]:
        self.task = asyncio.ensure_future(self.ingester.run(self.stopping))
        return self.task

    async def kill(self) -> None:
        """As SIGKILL: nothing is finished, nothing given back."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait([self.task])

    async def stop(self) -> float:
        """As SIGTERM; returns how many seconds it took."""
        assert self.task is not None
        began = self.clock.monotonic()
        self.stopping.set()
        await self.clock.run_until(self.task.done)
        self.task.result()
        return self.clock.monotonic() - began

    def counted(self) -> dict[str, float]:
        """What became of jobs, by outcome."""
        (metric,) = self.telemetry.ingested.collect()
        return {s.labels["outcome"]: s.value for s in metric.samples if s.name.endswith("_total")}

    def inbound_failures(self, operation: str) -> float:
        return self.telemetry.registry.get_sample_value("dynein_inbound_failures_total", {"operation": operation}) or 0

    def hold_marks(self) -> int:
        """How often it raised one, but for the try by which it finds out at its start that it may."""
        return self.calls("raise_hold_mark") - 1

    def calls(self, verb: str) -> int:
        return sum(1 for call in self.faults.calls if call.verb == verb)


class World:
    """Queues ``a`` and ``b``, an inbound and a dead-letter queue, a table of two shards."""

    def __init__(self, **settings: object) -> None:
        defaults: dict[str, object] = {"receive_wait_s": 5, "visibility_timeout_s": 30, "token_secrets": SECRET}
        self.settings = defaults | settings
        self.clock = ManualClock()
        self.queues = FakeQueues(self.clock)
        self.table = FakeTriggerTable(self.clock, bucket_width_ms=WIDTH_MS, shard_count=2)
        for name in (DLQ, "a", "b"):
            self.queues.create(name)
        self.queues.create(INBOUND, dead_letter_queue=DLQ, receives_max=50)
        self.delivered: list[Delivered] = []
        self.queues.on_sent.append(self._note)
        self._jobs = 0
        self.processes: list[Process] = []

    def process(self, member: str = "i1", *, faults: Faults | None = None, **settings: object) -> Process:
        process = Process(self, member, faults=faults, **settings)
        self.processes.append(process)
        return process

    async def close(self) -> None:
        for process in self.processes:
            if process.task is not None and not process.task.done():
                await process.kill()
        # Flights of batchers end by themselves once their retries learn that the run is over.
        await self.clock.settle()

    def now_ms(self) -> int:
        return self.clock.now_ms()

    def entry(
        self,
        due_in_s: float,
        *,
        queue: str = "a",
        shard: int = 0,
        prepared: bool = False,
        create_id: str | None = None,
        token: str | None = None,
        record: bytes | None = None,
    ) -> Entry:
        """A job due in ``due_in_s`` seconds. Its body is ``job-n``, n counting up."""
        self._jobs += 1
        if token is None:
            key = TriggerKey(self.now_ms() + round(due_in_s * 1000), self._jobs.to_bytes(12, "big"), shard)
            token = SIGNER.sign(JobRef(TokenKind.PREPARED if prepared else TokenKind.SCHEDULED, key))
        if record is None:
            record = encode_job(Job(queue=queue, body=f"job-{self._jobs}"))
        create_id = create_id or base64.urlsafe_b64encode(self._jobs.to_bytes(9, "big")).decode()
        return Entry(token, create_id, record)

    async def post(self, *entries: Entry) -> None:
        """One inbound message."""
        await self.post_body(pack(entries, SEAL))

    async def post_body(self, body: str) -> None:
        (failure,) = await self.queues.send(self.queues.url(INBOUND), [OutgoingMessage(body, {})])
        assert failure is None

    def inbound(self) -> int:
        """Inbound messages not deleted: visible or not."""
        return len(self.queues.everything(INBOUND))

    def inbound_visible(self) -> int:
        return len(self.queues.peek(INBOUND))

    def stored(self) -> list[str]:
        return [trigger.token for trigger in self.table.triggers()]

    def dead_letters(self) -> list[DeadLetter]:
        return [read_dead_letter(message) for message in self.queues.everything(DLQ)]

    def times_delivered(self) -> Counter[str]:
        return Counter(delivered.token for delivered in self.delivered)

    def record(self, shard: int) -> ShardRecord:
        return self.table.shards()[shard]

    async def own(
        self, shard: int, *, read_mark_ms: int, settled_mark_ms: int | None = None, retired_before: int = 0
    ) -> ShardRecord:
        """Be the shard's dispatcher for a moment: read up to a mark, retire buckets."""
        record = self.record(shard)
        if record.owner != "dispatcher":
            taken = await self.table.take(record, "dispatcher")
            assert taken is not None
            record = taken
        renewed = await self.table.renew(
            record,
            settled_mark_ms=record.settled_mark_ms if settled_mark_ms is None else settled_mark_ms,
            read_mark_ms=read_mark_ms,
            retired_before=retired_before,
        )
        assert renewed is not None
        return renewed

    def _note(self, sent: Sent) -> None:
        if sent.queue not in (INBOUND, DLQ):
            token = sent.message.attributes[TOKEN_ATTRIBUTE].value
            self.delivered.append(Delivered(sent.queue, sent.message.body, token, self.now_ms()))


def trigger_of(entry: Entry) -> Trigger:
    return Trigger(parse(entry.token).key, entry.token, bytes(entry.record))


def due_of(entry: Entry) -> int:
    return trigger_of(entry).key.due_at_ms


def bucket_of_entry(entry: Entry) -> int:
    return bucket_of(due_of(entry), WIDTH_MS)
