"""SQS and DynamoDB as one process sees them: the fakes, behind its wire."""

from __future__ import annotations

import functools
from bisect import insort
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeVar

from dynein.core.delivered_message import TOKEN_ATTRIBUTE
from dynein.core.inbound_message import Arrival
from dynein.core.job_token import parse
from dynein.core.keys import TriggerKey
from dynein.core.ledger import Flow
from dynein.core.queues import Depth, Destination, OutgoingMessage, Received, SendFailure
from dynein.core.shard_records import Layout, ShardRecord
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import Cancelled, DueCount, Found, Moved, Page, Tombstone
from dynein.errors import NotSent, Throttled, Unavailable
from dynein.server.assembly import DEAD_LETTERS, DISPATCHER, INGESTER
from dynein.testing import FakeQueues, FakeTriggerTable
from tests.simulation.books import Books
from tests.simulation.evidence import Attempt, Evidence, Handover, Retirement, Stop
from tests.simulation.facts import Fact
from tests.simulation.flight import Flight
from tests.simulation.network import Wire
from tests.simulation.process import pause
from tests.simulation.quirks import EngineFaults

ResultT = TypeVar("ResultT")

QUEUES = "queues"
TABLE = "table"
_FLOW_OF_SENDS = {DISPATCHER: Flow.DELIVERED, INGESTER: Flow.DELIVERED, DEAD_LETTERS: Flow.DEAD_LETTERED}
"""The flow that an acknowledged send of a job is, by the role that made it. An API's are known by its responses."""


class WiredQueues:
    """`dynein.core.queues.Queues` over a `Wire`; records who did what to which message."""

    def __init__(self, queues: FakeQueues, wire: Wire, evidence: Evidence, books: Books) -> None:
        self._queues = queues
        self._wire = wire
        self._evidence = evidence
        self._books = books

    async def resolve(self, queue: str) -> Destination:
        return await self._wire.call(QUEUES, "resolve", lambda: self._queues.resolve(queue))

    async def send(self, url: str, messages: Sequence[OutgoingMessage]) -> list[SendFailure | None]:
        flight = self._wire.draw(QUEUES, "send", url)
        tokens = [m.attributes[TOKEN_ATTRIBUTE].value if TOKEN_ATTRIBUTE in m.attributes else "" for m in messages]
        attempts = self._evidence.attempts(self._evidence.sends, flight, tokens)

        async def send() -> list[SendFailure | None]:
            return self._noted(attempts, await self._queues.send(url, messages))

        failures = await self._wire.call(QUEUES, "send", send, flight=flight)
        flow = _FLOW_OF_SENDS.get(flight.role)
        for token, failure in zip(tokens, failures, strict=True):
            if flow is not None and failure is None and token:
                self._books.count(flight.process, flow, parse(token).key)
        return failures

    async def receive(self, url: str, *, entries_max: int, wait_s: int, visibility_timeout_s: int) -> list[Received]:
        flight = self._wire.draw(QUEUES, "receive", url)

        async def receive() -> list[Received]:
            received = await self._queues.receive(
                url, entries_max=entries_max, wait_s=wait_s, visibility_timeout_s=visibility_timeout_s
            )
            message_ids = [message.message_id for message in received]
            for receipt in self._evidence.attempts(self._evidence.receipts, flight, message_ids):
                receipt.took_effect(self._now())
            return received

        return await self._wire.call(QUEUES, "receive", receive, flight=flight, patience_s=wait_s)

    async def delete(self, url: str, receipts: Sequence[str]) -> list[SendFailure | None]:
        flight = self._wire.draw(QUEUES, "delete", url)
        attempts = self._evidence.attempts(self._evidence.deletes, flight, map(_message_id, receipts))

        async def delete() -> list[SendFailure | None]:
            return self._noted(attempts, await self._queues.delete(url, receipts))

        return await self._wire.call(QUEUES, "delete", delete, flight=flight)

    async def extend(self, url: str, receipts: Sequence[str], visibility_timeout_s: int) -> list[SendFailure | None]:
        flight = self._wire.draw(QUEUES, "extend", url)
        attempts = self._evidence.attempts(self._evidence.extensions, flight, map(_message_id, receipts))
        if visibility_timeout_s == 0 and self._wire.process.out_of_time(self._now()):
            self._evidence.disturb(flight.process, self._now(), self._now(), "gave back what it could not finish")

        async def extend() -> list[SendFailure | None]:
            return self._noted(attempts, await self._queues.extend(url, receipts, visibility_timeout_s))

        return await self._wire.call(QUEUES, "extend", extend, flight=flight)

    async def depth(self, url: str) -> Depth:
        return await self._wire.call(QUEUES, "depth", lambda: self._queues.depth(url))

    def _noted(self, attempts: list[Attempt], failures: list[SendFailure | None]) -> list[SendFailure | None]:
        for attempt, failure in zip(attempts, failures, strict=True):
            attempt.took_effect(self._now(), done=failure is None)
            if failure is not None:
                self._evidence.trouble(attempt.flight)
        return failures

    def _now(self) -> float:
        return self._wire.network.loop.time()


def _message_id(receipt: str) -> str:
    return receipt.rpartition(".")[0]


def _began_at(flight: Flight) -> float:
    return flight.began_at


class WiredTable:
    """`dynein.core.trigger_store`'s three protocols over a `Wire`."""

    def __init__(
        self, table: FakeTriggerTable, wire: Wire, evidence: Evidence, books: Books, faults: EngineFaults
    ) -> None:
        self._table = table
        self._faults = faults
        self._wire = wire
        self._evidence = evidence
        self._books = books

    async def add(self, triggers: Sequence[Trigger]) -> list[Trigger]:
        flight = self._wire.draw(TABLE, "add")
        attempts = self._evidence.attempts(self._evidence.adds, flight, [trigger.key for trigger in triggers])

        async def add() -> list[Trigger]:
            unprocessed = [trigger for trigger in triggers if self._faults.hot.refuses(trigger.key)]
            to_store = [trigger for trigger in triggers if trigger not in unprocessed]
            unprocessed += await self._table.add(to_store) if to_store else []
            for trigger, attempt in zip(triggers, attempts, strict=True):
                stored = trigger not in unprocessed
                attempt.took_effect(self._now(), done=stored)
                self._note_fact(trigger.key)
                verb = "stores" if stored else "leaves unprocessed"
                self._note(f"{verb} {trigger.token[12:24]} in shard {trigger.key.shard}")
            return unprocessed

        return await self._wire.call(TABLE, "add", add, flight=flight)

    async def count_due(self, bucket: int, shard: int, *, from_ms: int, until_ms: int, limit: int) -> DueCount:
        count = functools.partial(self._table.count_due, from_ms=from_ms, until_ms=until_ms, limit=limit)
        return await self._wire.call(TABLE, "count_due", lambda: count(bucket, shard))

    async def read(
        self, bucket: int, shard: int, *, from_ms: int, until_ms: int, limit: int, resume: bytes | None = None
    ) -> Page:
        flight = self._wire.draw(TABLE, "read")

        async def read() -> Page:
            page = await self._table.read(bucket, shard, from_ms=from_ms, until_ms=until_ms, limit=limit, resume=resume)
            page = self._faults.torn.show(page, self._now())
            keys = [trigger.key for trigger in page.triggers]
            for attempt in self._evidence.attempts(self._evidence.reads, flight, keys):
                attempt.took_effect(self._now())
            if keys:
                self._wire.delay_page(flight)
            return page

        return await self._wire.call(TABLE, "read", read, flight=flight)

    async def remove(self, keys: Sequence[TriggerKey]) -> list[TriggerKey]:
        flight = self._wire.draw(TABLE, "remove")
        attempts = self._evidence.attempts(self._evidence.removals, flight, keys)

        async def remove() -> list[TriggerKey]:
            left = await self._table.remove(keys)
            for key, attempt in zip(keys, attempts, strict=True):
                attempt.took_effect(self._now(), done=key not in left)
                self._note_fact(key)
            self._note(f"removes {len(keys) - len(left)} of {len(keys)} triggers")
            return left

        return await self._wire.call(TABLE, "remove", remove, flight=flight)

    async def find(self, key: TriggerKey) -> Found:
        async def find() -> Found:
            found = await self._table.find(key)
            # An API reads for a caller, whose cancel is answered later anyway. An ingester acts on what it reads.
            torn = self._wire.role == INGESTER and not self._faults.torn.shows_tombstone(key, self._now())
            return found._replace(tombstone=None) if torn else found

        return await self._wire.call(TABLE, "find", find)

    async def tombstones(self, keys: Sequence[TriggerKey]) -> list[Tombstone]:
        async def tombstones() -> list[Tombstone]:
            found = await self._table.tombstones(keys)
            return [each for each in found if self._faults.torn.shows_tombstone(each.key, self._now())]

        return await self._wire.call(TABLE, "tombstones", tombstones)

    async def reserve(self, key: TriggerKey, for_s: int) -> bool:
        return await self._wire.call(TABLE, "reserve", lambda: self._table.reserve(key, for_s))

    async def claim(self, arrival: Arrival) -> bool:
        async def claim() -> bool:
            self._evidence.claims.setdefault(arrival.key.job_id, arrival.create_id)
            return await self._table.claim(arrival)

        return await self._wire.call(TABLE, "claim", claim)

    async def cancel(self, key: TriggerKey) -> Cancelled | Tombstone:
        outcome = await self._stop("cancel", Flow.CANCELLED, key, None, lambda: self._table.cancel(key))
        if outcome is Cancelled.CANCELLED:
            self._books.count(self._wire.process.name, Flow.CANCELLED, key)
        return outcome

    async def move(self, key: TriggerKey, to: Trigger) -> Moved | Tombstone:
        outcome = await self._stop("move", Flow.MOVED_OUT, key, to.key, lambda: self._table.move(key, to))
        if outcome is Moved.MOVED:
            self._books.count(self._wire.process.name, Flow.MOVED_OUT, key)
            self._books.count(self._wire.process.name, Flow.MOVED_IN, to.key)
        return outcome

    async def _stop(
        self, verb: str, flow: Flow, key: TriggerKey, to: TriggerKey | None, do: Callable[[], Awaitable[ResultT]]
    ) -> ResultT:
        """A cancel or a move. Without a response, the books have it as done."""
        flight = self._wire.draw(TABLE, verb)

        async def stop() -> ResultT:
            try:
                await self._faults.conflicts.meet(key.shard, transaction=True)
            except Throttled:
                self._evidence.trouble(flight)
                raise
            before, record = self._table.peek(key), self._table.shards()[key.shard]
            result = await do()
            behind = result is Moved.MOVED and to is not None and to.due_at_ms <= record.read_mark_ms
            if behind and self._table.shards()[key.shard].late_writes == record.late_writes:
                self._evidence.violations.append(f"MARK: a move from {key.due_at_ms} behind the mark was not counted")
            if result in (Cancelled.CANCELLED, Moved.MOVED):
                commit_s = 0.0
                self._evidence.stops.setdefault(key, []).append(Stop(flight, to))
                if before.tombstone is None:
                    commit_s = self._faults.torn.begin(key, before.trigger, self._now(), to)
                for changed in (key, to):
                    if changed is not None:
                        self._note_fact(changed, commit_s)
                await pause(self._wire.network.loop, commit_s)
            return result

        try:
            return await self._wire.call(TABLE, verb, stop, flight=flight)
        except NotSent:
            raise
        except Unavailable:
            self._books.doubt(flight.process, flow, key)
            raise

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
            await self._faults.conflicts.meet(seen.shard, transaction=False)
            taken = await self._table.take(seen, owner)
            self._note_mark(seen.shard)
            self._note(f"takes shard {seen.shard} from {seen.owner}: {'ok' if taken else 'lost race'}")
            if taken is not None:
                self._evidence.heartbeats.setdefault(seen.shard, []).append(self._now())
                self._evidence.handovers.append(Handover(self._now(), seen.shard, seen.owner, owner))
            return taken

        flight = self._lease_call("take")
        return self._renewed(flight, seen.shard, await self._wire.call(TABLE, "take", take, flight=flight))

    async def renew(
        self, mine: ShardRecord, *, read_mark_ms: int, settled_mark_ms: int, retired_before: int
    ) -> ShardRecord | None:
        async def renew() -> ShardRecord | None:
            await self._faults.conflicts.meet(mine.shard, transaction=False)
            renewed = await self._table.renew(
                mine, read_mark_ms=read_mark_ms, settled_mark_ms=settled_mark_ms, retired_before=retired_before
            )
            self._note_mark(mine.shard)
            if renewed is not None:
                self._evidence.heartbeats.setdefault(mine.shard, []).append(self._now())
            if renewed is None:
                self._note(f"has lost shard {mine.shard}")
            elif renewed.retired_before > mine.retired_before:
                self._note(f"retires shard {mine.shard} before bucket {renewed.retired_before}")
                self._evidence.retirements.append(
                    Retirement(self._now(), mine.shard, renewed.retired_before, self._wire.process.name)
                )
            return renewed

        flight = self._lease_call("renew")
        return self._renewed(flight, mine.shard, await self._wire.call(TABLE, "renew", renew, flight=flight))

    async def release(self, mine: ShardRecord) -> bool:
        async def release() -> bool:
            await self._faults.conflicts.meet(mine.shard, transaction=False)
            released = await self._table.release(mine)
            self._note(f"releases shard {mine.shard}: {released}")
            if released:
                self._evidence.handovers.append(Handover(self._now(), mine.shard, mine.owner, None))
            return released

        return await self._wire.call(TABLE, "release", release, flight=self._lease_call("release"))

    async def raise_hold_mark(self, shard: int, hold_mark_ms: int) -> ShardRecord:
        async def raise_it() -> ShardRecord:
            await self._faults.conflicts.meet(shard, transaction=False)
            raised = await self._table.raise_hold_mark(shard, hold_mark_ms)
            self._note_mark(shard)
            return raised

        return await self._wire.call(TABLE, "raise_hold_mark", raise_it)

    async def report_late(self, shard: int, bucket: int) -> bool:
        async def report() -> bool:
            await self._faults.conflicts.meet(shard, transaction=False)
            open_still = await self._table.report_late(shard, bucket)
            self._note(f"reports a late write in shard {shard} bucket {bucket}: {open_still}")
            return open_still

        return await self._wire.call(TABLE, "report_late", report)

    async def heartbeat(self, role: str, member: str, heartbeat: int) -> None:
        await self._wire.call(TABLE, "heartbeat", lambda: self._table.heartbeat(role, member, heartbeat))

    async def members(self, role: str) -> dict[str, int]:
        return await self._wire.call(TABLE, "members", lambda: self._table.members(role))

    async def last_seen(self, role: str) -> dict[str, int]:
        return await self._wire.call(TABLE, "last_seen", lambda: self._table.last_seen(role))

    async def leave(self, role: str, member: str) -> None:
        await self._wire.call(TABLE, "leave", lambda: self._table.leave(role, member))

    def _lease_call(self, verb: str) -> Flight:
        flight = self._wire.draw(TABLE, verb)
        self._evidence.lease_calls.setdefault(flight.process, []).append(flight)
        return flight

    def _renewed(self, flight: Flight, shard: int, record: ShardRecord | None) -> ShardRecord | None:
        if record is not None:
            insort(self._evidence.renewals.setdefault((flight.process, shard), []), flight, key=_began_at)
        return record

    def _note(self, what: str) -> None:
        self._evidence.note(self._wire.process.name, what)

    def _note_fact(self, key: TriggerKey, commit_s: float = 0.0) -> None:
        found, now = self._table.peek(key), self._now()
        stopped = None if found.tombstone is None else found.tombstone.moved_to or ""
        self._evidence.facts.key_is(key, Fact(now, now + commit_s, found.trigger is not None, stopped))

    def _note_mark(self, shard: int) -> None:
        self._evidence.facts.mark_is(shard, self._now(), self._table.shards()[shard].cancel_mark_ms)

    def _now(self) -> float:
        return self._wire.network.loop.time()
