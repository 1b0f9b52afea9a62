"""An export's audit says what the audit of the table says, and what is due when; a restore may be repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dynein.admin.export_audit import UNREADABLE_QUEUE, Pending, audit_export, marks_of
from dynein.admin.restore import NO_SHARD, NOT_OURS, SENT, STOPPED, THERE, Chosen, Restorer, RestoreReport, send_by
from dynein.core.inbound_message import unpack
from dynein.core.job import Job, encode_job
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.stored_record import StoredRecord, StoredTombstone, StoredTrigger, Undecodable
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import Cancelled, Tombstone
from tests.unit.admin.test_audit import MINUTE_MS, SEAL, SIGNER, WIDTH_MS, World

DAY_MS = 86_400_000


class Exported(World):
    """The table of `World`, and an export of it."""

    async def export(self, *more: StoredRecord) -> list[StoredRecord]:
        """Tombstones last: a job's may come after its trigger."""
        records: list[StoredRecord] = []
        for bucket, shard in await self.table.buckets():
            page = await self.table.read(bucket, shard, from_ms=0, until_ms=10**14, limit=1000, resume=None)
            records = [StoredTrigger(bucket, trigger) for trigger in page.triggers] + records
            records += [StoredTombstone(bucket, tombstone) for tombstone in page.tombstones]
        return [*records, *self.table.shards(), *more]

    async def restore(self, records: Sequence[StoredRecord], chosen: Chosen, **options: Any) -> RestoreReport:
        send = send_by(self.queues, self.queues.url("inbound"), SEAL, 1000)
        restorer = Restorer(self.table, SIGNER, frozenset({0, 1}), send)
        given = {"jobs_max": 1000, "dry_run": False} | options
        return await restorer.restore(records, marks_of(lambda: records), chosen, **given)

    def sent(self) -> list[Trigger]:
        messages = self.queues.messages("inbound")
        return [arrival.trigger for body in messages for arrival in unpack(body, SEAL).arrivals]


@pytest.fixture
def world() -> Exported:
    return Exported()


async def test_it_says_what_the_audit_of_the_table_says(world: Exported) -> None:
    now_ms = world.now_ms
    for number, due_at_ms in enumerate(
        (now_ms - 30 * MINUTE_MS, now_ms - 2 * MINUTE_MS, now_ms + MINUTE_MS, now_ms + DAY_MS)
    ):
        await world.store(due_at_ms, number=number + 1, shard=0)
    await world.retire_to(now_ms - 10 * MINUTE_MS)
    records = await world.export()
    exported = audit_export(lambda: records, now_ms, overdue_s=60)
    assert exported.audit._replace(findings=[]) == (await world.audit())._replace(findings=[])
    assert sorted(exported.audit.findings) == sorted((await world.audit()).findings)
    assert exported.audit.counts == {"stranded": 1, "overdue": 1, "undecodable": 0}
    assert sum(pending.jobs for pending in exported.pending) == 4
    assert {pending.queue for pending in exported.pending} == {"work"}
    assert [pending.day for pending in exported.pending] == sorted(pending.day for pending in exported.pending)


async def test_a_cancelled_job_is_not_pending_wherever_its_tombstone_is(world: Exported) -> None:
    trigger = await world.store(world.now_ms + DAY_MS)
    bucket = trigger.key.due_at_ms // WIDTH_MS
    tombstone = StoredTombstone(bucket, Tombstone(trigger.key, None))
    shards = list(world.table.shards())
    for records in (
        [StoredTrigger(bucket, trigger), tombstone, *shards],
        [tombstone, StoredTrigger(bucket, trigger), *shards],
    ):
        exported = audit_export(lambda records=records: records, world.now_ms, overdue_s=60)  # type: ignore[misc]
        assert exported.pending == []
        assert exported.audit.clean


async def test_what_cannot_be_read_is_counted(world: Exported) -> None:
    trigger = (await world.store(world.now_ms + DAY_MS))._replace(record=b'{"queue":1}')
    bucket = trigger.key.due_at_ms // WIDTH_MS
    records: list[StoredRecord] = [
        StoredTrigger(bucket, trigger),
        Undecodable(bucket, trigger.key),
        *world.table.shards(),
    ]
    exported = audit_export(lambda: records, world.now_ms, overdue_s=60)
    assert [(each.queue, each.jobs) for each in exported.pending] == [(UNREADABLE_QUEUE, 1)]
    assert exported.audit.counts["undecodable"] == 1
    assert not exported.audit.clean


# --- restoring ------------------------------------------------------------------------------------------------------


async def test_lost_jobs_come_back_with_their_tokens_and_again_nothing_does(world: Exported) -> None:
    jobs = [
        await world.store(world.now_ms + DAY_MS + number, number=number, prepared=number == 2) for number in (1, 2, 3)
    ]
    records = await world.export()
    await world.table.remove([jobs[0].key, jobs[1].key])  # lost
    chosen = Chosen(world.now_ms)
    assert await world.restore(records, chosen, dry_run=True) == RestoreReport(3, {SENT: 2, THERE: 1}, dry_run=True)
    assert world.sent() == []
    report = await world.restore(records, chosen)
    assert (report.outcomes, report.complete) == ({SENT: 2, THERE: 1}, True)
    assert sorted(world.sent()) == sorted(jobs[:2])
    await world.table.add(jobs[:2])  # as an ingester does
    assert (await world.restore(records, chosen)).outcomes == {THERE: 3}


async def test_what_was_cancelled_or_moved_since_stays_so(world: Exported) -> None:
    jobs = [await world.store(world.now_ms + DAY_MS, number=number) for number in (1, 2)]
    records = await world.export()
    assert await world.table.cancel(jobs[0].key) is Cancelled.CANCELLED
    moved = jobs[1].key._replace(due_at_ms=world.now_ms + 2 * DAY_MS)
    await world.table.move(jobs[1].key, Trigger(moved, SIGNER.sign(JobRef(TokenKind.SCHEDULED, moved)), b"{}"))
    assert (await world.restore(records, Chosen(world.now_ms))).outcomes == {STOPPED: 2}
    assert world.sent() == []


async def test_what_the_export_shows_as_cancelled_is_not_chosen(world: Exported) -> None:
    trigger = await world.store(world.now_ms + DAY_MS)
    records = [*await world.export(), StoredTombstone(0, Tombstone(trigger.key, None))]
    await world.table.remove([trigger.key])
    assert await world.restore(records, Chosen(world.now_ms)) == RestoreReport(0, {}, dry_run=False)


async def test_only_the_chosen(world: Exported) -> None:
    jobs = [await world.store(world.now_ms + number * DAY_MS, number=number + 1) for number in range(-1, 3)]
    records = await world.export()
    await world.table.remove([job.key for job in jobs])

    async def chosen(**fields: Any) -> int:
        return (await world.restore(records, Chosen(**fields), dry_run=True)).chosen

    assert await chosen(from_ms=0) == 4
    assert await chosen(from_ms=world.now_ms) == 3
    assert await chosen(from_ms=0, until_ms=world.now_ms) == 1
    assert await chosen(from_ms=0, queue="work") == 4
    assert await chosen(from_ms=0, queue="http://127.0.0.1/1/work") == 4
    assert await chosen(from_ms=0, queue="another") == 0
    assert await chosen(from_ms=0, tokens=frozenset({jobs[2].token})) == 1
    assert (await world.restore(records, Chosen(0), dry_run=True, jobs_max=2)).chosen == 2


async def test_what_was_not_signed_here_and_what_has_no_shard_is_left_out(world: Exported) -> None:
    trigger = await world.store(world.now_ms + DAY_MS)
    await world.table.remove([trigger.key])
    forged = TokenSigner([b"another secret, as long"]).sign(JobRef(TokenKind.SCHEDULED, trigger.key))
    far = trigger.key._replace(shard=7)
    there = Trigger(far, SIGNER.sign(JobRef(TokenKind.SCHEDULED, far)), encode_job(Job(queue="work", body="x")))
    records: list[StoredRecord] = [StoredTrigger(0, trigger._replace(token=forged)), StoredTrigger(0, there)]
    report = await world.restore(records, Chosen(0))
    assert (report.outcomes, report.complete) == ({NOT_OURS: 1, NO_SHARD: 1}, False)
    assert world.sent() == []


def test_a_day_and_a_queue_that_no_calendar_has() -> None:
    assert Pending("after 9999", "q", 1).day > "9999-12-31"
