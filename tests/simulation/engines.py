"""SQS and DynamoDB as one process sees them: the fakes, behind its wire."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from dynein.inbound import Arrival
from dynein.partition import TriggerKey
from dynein.queue import Depth, Destination, OutgoingMessage, Received, SendFailure
from dynein.testing import FakeQueues, FakeTriggerTable
from dynein.trigger import Trigger
from dynein.trigger_store import Cancelled, Found, Layout, Moved, Page, ShardRecord, Tombstone
from tests.simulation.network import FLIGHT, Flight, Wire

QUEUES = "queues"
TABLE = "table"


class Observer:
    """Takes down what happened at the engines, at the instant of its effect, for the auditor."""

    def __init__(self, note: Callable[[str, str], None]) -> None:
        self.note = note
        self.receives: list[Receipt] = []
        self.takes: list[Take] = []
        self.adds: dict[str, list[Flight]] = {}
        """By token: the calls that stored it."""
        self.disturbances: dict[str, list[Disturbance]] = {}
        """By process."""

    def disturb(self, process: str, since: float, until: float, what: str) -> None:
        """``process`` was hindered from ``since`` to ``until``."""
        self.disturbances.setdefault(process, []).append(Disturbance(since, until, what))


class Disturbance(NamedTuple):
    """Something that befell a process."""

    since: float
    until: float
    what: str


class Receipt(NamedTuple):
    """A message handed out."""

    process: str
    at: float
    queue: str
    message_id: str


class Take(NamedTuple):
    """A shard taken from an owner who had not released it, or free (``previous`` is ``None``)."""

    at: float
    shard: int
    previous: str | None
    owner: str


class WiredQueues:
    """`dynein.queue.Queues` over a `Wire`."""

    def __init__(self, queues: FakeQueues, wire: Wire, observer: Observer) -> None:
        self._queues = queues
        self._wire = wire
        self._observer = observer

    async def resolve(self, queue: str) -> Destination:
        return await self._wire.call(QUEUES, "resolve", lambda: self._queues.resolve(queue))

    async def send(self, url: str, messages: Sequence[OutgoingMessage]) -> list[SendFailure | None]:
        return await self._wire.call(QUEUES, "send", lambda: self._queues.send(url, messages))

    async def receive(self, url: str, *, entries_max: int, wait_s: int, visibility_timeout_s: int) -> list[Received]:
        return await self._wire.call(
            QUEUES,
            "receive",
            lambda: self._receive(url, entries_max, wait_s, visibility_timeout_s),
            patience_s=wait_s,
        )

    async def _receive(self, url: str, entries_max: int, wait_s: int, visibility_timeout_s: int) -> list[Received]:
        received = await self._queues.receive(
            url, entries_max=entries_max, wait_s=wait_s, visibility_timeout_s=visibility_timeout_s
        )
        now = self._wire.network.loop.time()
        for message in received:
            self._observer.receives.append(Receipt(self._wire.process.name, now, url, message.message_id))
        return received

    async def delete(self, url: str, receipts: Sequence[str]) -> list[SendFailure | None]:
        return await self._wire.call(QUEUES, "delete", lambda: self._queues.delete(url, receipts))

    async def extend(self, url: str, receipts: Sequence[str], visibility_timeout_s: int) -> list[SendFailure | None]:
        return await self._wire.call(QUEUES, "extend", lambda: self._queues.extend(url, receipts, visibility_timeout_s))

    async def depth(self, url: str) -> Depth:
        return await self._wire.call(QUEUES, "depth", lambda: self._queues.depth(url))


class WiredTable:
    """`dynein.trigger_store`'s three protocols over a `Wire`."""

    def __init__(self, table: FakeTriggerTable, wire: Wire, observer: Observer) -> None:
        self._table = table
        self._wire = wire
        self._observer = observer

    async def add(self, triggers: Sequence[Trigger]) -> list[Trigger]:
        async def add() -> list[Trigger]:
            flight = FLIGHT.get()
            assert flight is not None
            for trigger in triggers:
                self._observer.adds.setdefault(trigger.token, []).append(flight)
            unprocessed = await self._table.add(triggers)
            for trigger in triggers:
                done = "leaves unprocessed" if trigger in unprocessed else "stores"
                self._observer.note(
                    self._wire.process.name, f"{done} {trigger.token[12:24]} in shard {trigger.key.shard}"
                )
            return unprocessed

        return await self._wire.call(TABLE, "add", add)

    async def read(
        self, bucket: int, shard: int, *, from_ms: int, until_ms: int, limit: int, resume: bytes | None = None
    ) -> Page:
        return await self._wire.call(
            TABLE,
            "read",
            lambda: self._table.read(bucket, shard, from_ms=from_ms, until_ms=until_ms, limit=limit, resume=resume),
        )

    async def remove(self, keys: Sequence[TriggerKey]) -> list[TriggerKey]:
        async def remove() -> list[TriggerKey]:
            left = await self._table.remove(keys)
            self._observer.note(self._wire.process.name, f"removes {len(keys) - len(left)} of {len(keys)} triggers")
            return left

        return await self._wire.call(TABLE, "remove", remove)

    async def find(self, key: TriggerKey) -> Found:
        return await self._wire.call(TABLE, "find", lambda: self._table.find(key))

    async def tombstones(self, keys: Sequence[TriggerKey]) -> list[Tombstone]:
        return await self._wire.call(TABLE, "tombstones", lambda: self._table.tombstones(keys))

    async def claim(self, arrival: Arrival) -> bool:
        return await self._wire.call(TABLE, "claim", lambda: self._table.claim(arrival))

    async def cancel(self, key: TriggerKey) -> Cancelled | Tombstone:
        return await self._wire.call(TABLE, "cancel", lambda: self._table.cancel(key))

    async def move(self, key: TriggerKey, to: Trigger) -> Moved | Tombstone:
        return await self._wire.call(TABLE, "move", lambda: self._table.move(key, to))

    async def buckets(self) -> list[tuple[int, int]]:
        return await self._wire.call(TABLE, "buckets", self._table.buckets)

    async def layout(self) -> Layout | None:
        return await self._wire.call(TABLE, "layout", self._table.layout)

    async def all(self) -> list[ShardRecord]:
        return await self._wire.call(TABLE, "all", self._table.all)

    async def get(self, shards: Collection[int]) -> list[ShardRecord]:
        return await self._wire.call(TABLE, "get", lambda: self._table.get(shards))

    async def take(self, seen: ShardRecord, owner: str) -> ShardRecord | None:
        async def take() -> ShardRecord | None:
            taken = await self._table.take(seen, owner)
            self._observer.note(
                self._wire.process.name, f"takes shard {seen.shard} from {seen.owner}: {'ok' if taken else 'lost race'}"
            )
            if taken is not None:
                self._observer.takes.append(Take(self._wire.network.loop.time(), seen.shard, seen.owner, owner))
            return taken

        return await self._wire.call(TABLE, "take", take)

    async def renew(self, mine: ShardRecord, *, read_mark_ms: int, retired_before: int) -> ShardRecord | None:
        async def renew() -> ShardRecord | None:
            renewed = await self._table.renew(mine, read_mark_ms=read_mark_ms, retired_before=retired_before)
            if renewed is None:
                self._observer.note(self._wire.process.name, f"has lost shard {mine.shard}")
            elif renewed.retired_before > mine.retired_before:
                self._observer.note(
                    self._wire.process.name, f"retires shard {mine.shard} before bucket {renewed.retired_before}"
                )
            return renewed

        return await self._wire.call(TABLE, "renew", renew)

    async def release(self, mine: ShardRecord) -> bool:
        async def release() -> bool:
            released = await self._table.release(mine)
            self._observer.note(self._wire.process.name, f"releases shard {mine.shard}: {released}")
            return released

        return await self._wire.call(TABLE, "release", release)

    async def raise_hold_mark(self, shard: int, hold_mark_ms: int) -> ShardRecord:
        return await self._wire.call(TABLE, "raise_hold_mark", lambda: self._table.raise_hold_mark(shard, hold_mark_ms))

    async def report_late(self, shard: int, bucket: int) -> bool:
        async def report() -> bool:
            open_still = await self._table.report_late(shard, bucket)
            self._observer.note(
                self._wire.process.name, f"reports a late write in shard {shard} bucket {bucket}: {open_still}"
            )
            return open_still

        return await self._wire.call(TABLE, "report_late", report)

    async def beat(self, role: str, member: str, beat: int) -> None:
        await self._wire.call(TABLE, "beat", lambda: self._table.beat(role, member, beat))

    async def members(self, role: str) -> dict[str, int]:
        return await self._wire.call(TABLE, "members", lambda: self._table.members(role))

    async def leave(self, role: str, member: str) -> None:
        await self._wire.call(TABLE, "leave", lambda: self._table.leave(role, member))
