"""Audit: each kind of damage, planted and found; each that can be repaired, repaired, and nothing sent twice for it."""

from __future__ import annotations

import asyncio

import pytest

from dynein.admin.audit import OVERDUE, REPAIR_S, STRANDED, UNDECODABLE, Report, audit, requeue_by
from dynein.core.inbound_message import unpack
from dynein.core.job import Job, encode_job
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import TriggerKey
from dynein.core.seal import Seal
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import Cancelled
from dynein.delivery.destinations import Destinations
from dynein.errors import UnknownQueue
from dynein.testing import FakeQueues, FakeTriggerTable, ManualClock

SECRET = b"0123456789abcdef"
SIGNER, SEAL = TokenSigner([SECRET]), Seal([SECRET])
WIDTH_MS = 60_000
MINUTE_MS = 60_000


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.table = FakeTriggerTable(self.clock, bucket_width_ms=WIDTH_MS, shard_count=2)
        self.queues = FakeQueues(self.clock)
        self.queues.create("inbound")
        self.now_ms = self.clock.now_ms()

    async def store(self, due_at_ms: int, *, number: int = 1, shard: int = 0, prepared: bool = False) -> Trigger:
        key = TriggerKey(due_at_ms, number.to_bytes(12, "big"), shard)
        kind = TokenKind.PREPARED if prepared else TokenKind.SCHEDULED
        record = encode_job(Job(queue="work", body=f"job {number}"))
        trigger = Trigger(key, SIGNER.sign(JobRef(kind, key)), record)
        assert await self.table.add([trigger]) == []
        return trigger

    async def retire_to(self, before_ms: int) -> None:
        """Retire every bucket of shard 0 that ends at or before this time, as a dispatcher would."""
        (record,) = await self.table.get([0])
        taken = await self.table.take(record, "dispatcher")
        assert taken is not None
        renewed = await self.table.renew(
            taken,
            settled_mark_ms=taken.settled_mark_ms,
            read_mark_ms=taken.read_mark_ms,
            retired_before=before_ms // WIDTH_MS,
        )
        assert renewed is not None
        assert renewed.retired_before == before_ms // WIDTH_MS

    def begin_audit(self, *, repair: bool = False) -> asyncio.Future[Report]:
        destinations = Destinations(self.queues, self.clock, ttl_s=60)
        requeue = requeue_by(self.queues, destinations, "inbound", SEAL) if repair else None
        return asyncio.ensure_future(audit(self.table, self.table, self.clock, overdue_s=60, requeue=requeue))

    async def audit(self, *, repair: bool = False) -> Report:
        running = self.begin_audit(repair=repair)
        while not running.done():
            await self.clock.advance(1)
        return running.result()


async def test_an_empty_store_is_clean() -> None:
    report = await World().audit()
    assert report.clean
    assert report.counts == {STRANDED: 0, OVERDUE: 0, UNDECODABLE: 0}


async def test_triggers_that_are_not_due_are_counted_and_nothing_else() -> None:
    world = World()
    await world.store(world.now_ms + MINUTE_MS)
    report = await world.audit()
    assert report.clean
    assert (report.triggers, report.findings) == (1, [])


async def test_a_trigger_long_due_in_an_open_bucket_is_overdue_but_not_damage() -> None:
    world = World()
    trigger = await world.store(world.now_ms - 2 * MINUTE_MS)
    report = await world.audit(repair=True)
    assert [(finding.kind, finding.token) for finding in report.findings] == [(OVERDUE, trigger.token)]
    assert report.clean
    assert world.queues.messages("inbound") == []


async def test_a_trigger_in_a_retired_bucket_is_stranded() -> None:
    world = World()
    await world.retire_to(world.now_ms - 10 * MINUTE_MS)
    trigger = await world.store(world.now_ms - 20 * MINUTE_MS)
    report = await world.audit()
    assert [(finding.kind, finding.token, finding.repaired) for finding in report.findings] == [
        (STRANDED, trigger.token, False)
    ]
    assert not report.clean


async def test_repair_puts_a_stranded_trigger_back_on_its_way_and_removes_the_stray() -> None:
    world = World()
    await world.retire_to(world.now_ms - 10 * MINUTE_MS)
    trigger = await world.store(world.now_ms - 20 * MINUTE_MS)
    report = await world.audit(repair=True)
    assert report.clean
    assert report.repaired == 1
    (body,) = world.queues.messages("inbound")
    ((arrival,), _) = unpack(body, SEAL)
    assert arrival.trigger == trigger
    assert world.table.triggers() == []


async def test_two_repairs_at_a_time_put_each_trigger_back_on_its_way_once() -> None:
    world = World()
    await world.retire_to(world.now_ms - 10 * MINUTE_MS)
    triggers = [await world.store(world.now_ms - 20 * MINUTE_MS, number=number) for number in range(1, 21)]
    slow = world.queues.faults.hold_before_next("send")
    first = world.begin_audit(repair=True)
    second = await world.audit(repair=True)
    assert slow.reached.is_set()
    assert (second.counts[STRANDED], second.repaired) == (20, 19), "all but what the first is sending"
    slow.open()
    await world.clock.settle()
    assert first.result().clean
    sent = [arrival.trigger for body in world.queues.messages("inbound") for arrival in unpack(body, SEAL).arrivals]
    assert sorted(sent) == sorted(triggers)
    assert world.table.triggers() == []


async def test_what_another_repair_has_is_reported_and_left_to_it() -> None:
    world = World()
    await world.retire_to(world.now_ms - 10 * MINUTE_MS)
    trigger = await world.store(world.now_ms - 20 * MINUTE_MS)
    assert await world.table.reserve(trigger.key, REPAIR_S)
    report = await world.audit(repair=True)
    assert (report.repaired, report.clean) == (0, False)
    assert world.queues.messages("inbound") == []
    await world.clock.advance(REPAIR_S + 1)
    assert (await world.audit(repair=True)).clean, "the other was cut short"


async def test_repair_of_a_prepared_job_does_not_trip_over_the_claim_of_its_create() -> None:
    world = World()
    await world.retire_to(world.now_ms - 10 * MINUTE_MS)
    await world.store(world.now_ms - 20 * MINUTE_MS, prepared=True)
    await world.audit(repair=True)
    (body,) = world.queues.messages("inbound")
    ((arrival,), _) = unpack(body, SEAL)
    assert not arrival.prepared


async def test_a_trigger_that_is_made_good_meanwhile_is_not_sent_again() -> None:
    world = World()
    await world.retire_to(world.now_ms - 10 * MINUTE_MS)
    trigger = await world.store(world.now_ms - 20 * MINUTE_MS)
    running = asyncio.ensure_future(world.audit(repair=True))
    await asyncio.wait_for(_removed_by_its_ingester(world, trigger), 30)
    report = await running
    assert report.clean
    assert world.queues.messages("inbound") == []


async def _removed_by_its_ingester(world: World, trigger: Trigger) -> None:
    assert await world.table.remove([trigger.key]) == []


async def test_repair_keeps_the_trigger_when_the_inbound_queue_is_gone() -> None:
    world = World()
    await world.retire_to(world.now_ms - 10 * MINUTE_MS)
    trigger = await world.store(world.now_ms - 20 * MINUTE_MS)
    world.queues.remove("inbound")
    with pytest.raises(UnknownQueue, match="inbound"):
        await world.audit(repair=True)
    assert world.table.triggers() == [trigger]


async def test_a_cancelled_trigger_in_a_retired_bucket_is_not_stranded() -> None:
    world = World()
    trigger = await world.store(world.now_ms + MINUTE_MS)
    assert await world.table.cancel(trigger.key) is Cancelled.CANCELLED
    assert await world.table.add([trigger]) == []  # its inbound message was received again
    report = await world.audit(repair=True)
    assert report.findings == []
    assert (report.triggers, report.tombstones) == (1, 1)


async def test_a_record_that_is_no_trigger_is_undecodable() -> None:
    world = World()
    trigger = await world.store(world.now_ms + MINUTE_MS)
    world.table.spoil(trigger.key)
    report = await world.audit(repair=True)
    assert [finding.kind for finding in report.findings] == [UNDECODABLE]
    assert not report.clean


async def test_every_page_is_read() -> None:
    world = World()
    for number in range(600):
        await world.store(world.now_ms + MINUTE_MS + number, number=number)
    assert (await world.audit()).triggers == 600
