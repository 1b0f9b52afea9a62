"""What the role promises, seen from the queues and the table."""

import asyncio
import itertools
import re
from collections.abc import Sequence

import pytest

from dynein.core.inbound_message import pack
from dynein.core.job import Job, encode_job
from dynein.core.keys import TriggerKey, bucket_of
from dynein.core.ledger import Counts
from dynein.core.seal import Seal
from dynein.core.trigger_store import Cancelled, Found, Tombstone
from dynein.delivery.dead_letter_queue import KIND_INBOUND, KIND_JOB
from dynein.errors import AccessDenied, Throttled, Unavailable
from dynein.testing import FakeTriggerTable, Faults, ManualClock
from dynein.testing.faults import Call
from dynein.testing.queues import Sent
from tests.unit.ingest.world import INBOUND, SEAL, SECRET, WIDTH_MS, World, bucket_of_entry, due_of, trigger_of

HOUR_S = 3600.0


# --- near ---------------------------------------------------------------------------------------------------------


async def test_a_job_due_in_two_seconds_is_sent_at_its_millisecond_and_never_stored(world: World) -> None:
    entry = world.entry(2.0)
    process = world.process()
    await world.post(entry)
    process.start()
    await world.clock.advance(1.999)
    assert world.delivered == []
    assert world.inbound() == 1, "held with its inbound message undeleted"
    assert process.ingester.near_jobs.jobs == 1
    await world.clock.advance(0.001)
    assert [(d.token, d.at_ms) for d in world.delivered] == [(entry.token, due_of(entry))]
    assert world.inbound() == 0
    assert process.calls("add") == 0
    assert process.counted() == {"held": 1}


async def test_a_held_job_for_a_standard_queue_keeps_its_message_group(world: World) -> None:
    """SQS shares a queue fairly among groups ("fair queues"); a standard queue takes no deduplication id."""
    sent: list[Sent] = []
    world.queues.on_sent.append(sent.append)
    record = encode_job(Job(queue="a", body="x", message_group_id="tenant-7"))
    await world.post(world.entry(2.0, record=record))
    world.process().start()
    await world.clock.advance(2.0)
    messages = [each.message for each in sent if each.queue == "a"]
    assert [(message.message_group_id, message.deduplication_id) for message in messages] == [("tenant-7", None)]


async def test_many_near_jobs_leave_each_at_its_own_millisecond_in_due_order(world: World) -> None:
    entries = [world.entry(due_in_ms / 1000) for due_in_ms in (1500, 3, 977, 978, 978, 4002, 1)]
    await world.own(0, read_mark_ms=world.now_ms() + 1400, settled_mark_ms=world.now_ms() + 1000)
    process = world.process()
    await world.post(*entries[:4])
    await world.post(*entries[4:])
    process.start()
    await world.clock.advance(5)
    assert [d.at_ms for d in world.delivered] == sorted(due_of(entry) for entry in entries)
    assert all(d.at_ms == due_of(e) for d in world.delivered for e in entries if e.token == d.token)
    assert process.hold_marks() == 1, "one mark for all of a shard"


async def test_a_near_job_of_a_fifo_queue_is_stored_for_its_dispatcher_if_there_is_time(world: World) -> None:
    world.queues.create("f.fifo")
    record = encode_job(Job("f.fifo", "x", message_group_id="g"))
    soon, later = world.entry(1.0, record=record), world.entry(4.0, record=record)
    mine = await world.table.take((await world.table.get([0]))[0], "a dispatcher")
    assert mine is not None
    ahead_ms = world.now_ms() + 5_000
    await world.table.renew(mine, read_mark_ms=ahead_ms, settled_mark_ms=0, retired_before=mine.retired_before)
    process = world.process()
    await world.post(soon, later)
    process.start()
    await world.clock.advance(0.5)
    assert world.stored() == [later.token]
    assert process.calls("report_late") == 1, "or its dispatcher would not read it at all"
    assert process.telemetry.registry.get_sample_value("dynein_late_writes_total") == 0, "but nothing is slow"
    await world.clock.advance(2)
    assert world.times_delivered() == {soon.token: 1}, "no dispatcher would have read it in time"
    assert world.stored() == [later.token]
    assert world.inbound() == 0


async def test_a_job_that_comes_while_a_later_one_is_held_is_sent_at_its_millisecond(world: World) -> None:
    later = world.entry(5.0)
    process = world.process()
    await world.post(later)
    process.start()
    await world.clock.advance(0.4567)
    sooner = world.entry(1.2)
    await world.post(sooner)
    await world.clock.advance(10)
    assert [(d.token, d.at_ms) for d in world.delivered] == [
        (sooner.token, due_of(sooner)),
        (later.token, due_of(later)),
    ]


async def test_a_wall_clock_set_back_sends_nothing_early(world: World) -> None:
    entry = world.entry(2.0)
    process = world.process()
    await world.post(entry)
    process.start()
    await world.clock.advance(1.0)
    world.clock.step_wall_ms(-700)
    await world.clock.advance(10)
    assert [d.at_ms for d in world.delivered] == [due_of(entry)]


async def test_a_wall_clock_set_forward_is_noticed_within_a_second(world: World) -> None:
    entry = world.entry(5.0)
    process = world.process()
    await world.post(entry)
    process.start()
    await world.clock.advance(0.5)
    world.clock.step_wall_ms(4500)
    await world.clock.advance(1.0)
    assert len(world.delivered) == 1


async def test_what_is_overdue_is_sent_at_once(world: World) -> None:
    entry = world.entry(-HOUR_S)
    await world.own(0, read_mark_ms=world.now_ms(), settled_mark_ms=world.now_ms())
    await world.post(entry)
    world.process().start()
    await world.clock.settle()
    assert [d.at_ms for d in world.delivered] == [world.now_ms()]
    assert world.inbound() == 0


async def test_a_covering_read_mark_saves_the_hold_mark(world: World) -> None:
    entry = world.entry(2.0)
    await world.own(0, read_mark_ms=due_of(entry))
    process = world.process()
    await world.post(entry)
    process.start()
    await world.clock.advance(3)
    assert process.hold_marks() == 0
    assert len(world.delivered) == 1


# --- far ----------------------------------------------------------------------------------------------------------


async def test_a_far_job_is_stored_and_its_message_deleted(world: World) -> None:
    entries = [world.entry(HOUR_S + i, shard=i % 2) for i in range(60)]
    process = world.process()
    await world.post(*entries)
    process.start()
    await world.clock.settle()
    assert sorted(world.stored()) == sorted(entry.token for entry in entries)
    assert world.table.triggers()[0].record == bytes(entries[0].record)
    assert world.inbound() == 0
    assert process.calls("add") == 3, "25 a call"
    assert process.counted() == {"stored": 60}
    assert process.telemetry.registry.get_sample_value("dynein_triggers_stored_total") == 60
    assert process.calls("report_late") == 0
    assert world.delivered == []


async def test_how_long_the_oldest_message_has_waited_is_shown_until_nothing_waits(world: World) -> None:
    process = world.process(receive_wait_s=0)
    await world.post(world.entry(HOUR_S))
    await world.clock.advance(40)
    await world.post(world.entry(HOUR_S))
    await world.clock.advance(2)
    shown: list[float] = []
    process.telemetry.inbound_oldest_age.set = shown.append  # type: ignore[method-assign, assignment]
    process.start()
    await world.clock.advance(1)
    assert shown[0] == 42.0
    assert shown[-1] == 0.0


async def test_a_mixed_message_is_deleted_only_when_its_last_job_is_done(world: World) -> None:
    near, far = world.entry(3.0), world.entry(HOUR_S)
    await world.post(near, far)
    world.process().start()
    await world.clock.advance(2.9)
    assert world.stored() == [far.token]
    assert world.inbound() == 1
    await world.clock.advance(0.1)
    assert world.inbound() == 0
    assert world.times_delivered() == {near.token: 1}


async def test_unprocessed_items_are_written_again(world: World) -> None:
    entries = [world.entry(HOUR_S) for _ in range(10)]
    process = world.process()
    process.faults.fail_entries_next("add", [0, 3, 9])
    process.faults.fail_entries_next("add", [1])
    await world.post(*entries)
    process.start()
    await world.clock.settle()
    assert len(world.stored()) == 7
    assert world.inbound() == 1
    await world.clock.advance(1)
    assert sorted(world.stored()) == sorted(entry.token for entry in entries)
    assert world.inbound() == 0
    assert [call.entries for call in process.faults.calls if call.verb == "add"] == [10, 3, 1]


@pytest.mark.parametrize("error", [Throttled("slow down"), Unavailable("no response")])
async def test_a_store_outage_is_sat_out_with_the_message_kept_invisible(world: World, error: Exception) -> None:
    entry = world.entry(HOUR_S)
    process = world.process()
    process.faults.go_down(error, verb="add")
    await world.post(entry)
    process.start()
    await world.clock.advance(600)
    assert world.inbound() == 1
    assert world.inbound_visible() == 0
    (message,) = world.queues.everything(INBOUND)
    assert message.receive_count == 1
    process.faults.come_up()
    await world.clock.advance(6)
    assert world.stored() == [entry.token]
    assert world.inbound() == 0


class Timed(Faults):
    """Remembers when a verb was called."""

    def __init__(self, clock: ManualClock, verb: str) -> None:
        super().__init__()
        self._clock = clock
        self._verb = verb
        self.called_at: list[float] = []

    async def before(self, call: Call) -> None:
        if call.verb == self._verb:
            self.called_at.append(self._clock.monotonic())
        await super().before(call)


async def test_a_failing_call_is_repeated_with_pauses_of_50_ms_to_5_s(world: World) -> None:
    faults = Timed(world.clock, "claim")
    entry = world.entry(HOUR_S, prepared=True)
    await world.post(entry)
    faults.fail_next("claim", Throttled("slow down"), times=19)
    world.process(faults=faults).start()
    await world.clock.advance(120)
    assert world.stored() == [entry.token]
    assert len(faults.called_at) == 20
    pauses = [later - earlier for earlier, later in itertools.pairwise(faults.called_at)]
    assert pauses[0] <= 0.05
    assert 2.5 <= pauses[-1] <= 5.0


async def test_what_is_repeated_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    process = world.process()
    process.faults.fail_next("add", Throttled("slow down"))
    await world.post(world.entry(HOUR_S))
    process.start()
    await world.clock.advance(1)
    (line,) = [record.message for record in caplog.records if record.name == "dynein.call.retried"]
    assert "store triggers" in line
    assert "slow down" in line


async def test_a_write_whose_response_was_lost_is_repeated_harmlessly(world: World) -> None:
    entry = world.entry(HOUR_S)
    process = world.process()
    process.faults.lose_answer_next("add", Unavailable("no response"))
    await world.post(entry)
    process.start()
    await world.clock.advance(1)
    assert world.stored() == [entry.token]
    assert world.inbound() == 0


async def test_one_job_in_two_messages_at_once_is_written_once_a_batch(world: World) -> None:
    """As when SQS delivers a message twice; DynamoDB refuses a batch that names a key twice."""
    entry = world.entry(HOUR_S)
    process = world.process()
    gate = process.faults.hold_before_next("add")
    await world.post(world.entry(HOUR_S))
    process.start()
    await world.clock.settle()
    await world.post(entry)
    await world.post(entry)
    await world.clock.settle()
    gate.open()
    await world.clock.settle()
    assert world.stored().count(entry.token) == 1
    assert world.inbound() == 0


async def test_one_near_job_in_two_messages_is_looked_up_once_a_call(world: World) -> None:
    entry, other = world.entry(2.0), world.entry(2.0)
    await world.own(0, read_mark_ms=due_of(entry), settled_mark_ms=due_of(entry))
    process = world.process()
    gate = process.faults.hold_before_next("get")
    await world.post(entry, other)
    await world.post(entry)
    process.start()
    await world.clock.settle()
    gate.open()
    await world.clock.advance(3)
    assert world.inbound() == 0
    assert process.calls("tombstones") == 1
    assert world.times_delivered()[other.token] == 1


# --- late writes --------------------------------------------------------------------------------------------------


async def test_a_write_behind_the_read_mark_is_reported_before_the_message_is_deleted(world: World) -> None:
    entries = [world.entry(20.0 + i) for i in range(3)]
    process = world.process()
    gate = process.faults.hold_answer_next("add")
    await world.post(*entries)
    process.start()
    await world.clock.advance(15)
    await world.own(0, read_mark_ms=due_of(entries[1]))
    report = process.faults.hold_before_next("report_late")
    gate.open()
    await world.clock.settle()
    assert report.reached.is_set()
    assert world.inbound() == 1
    report.open()
    await world.clock.settle()
    assert world.record(0).late_writes == 1, "once for a bucket, not once a trigger"
    assert process.telemetry.registry.get_sample_value("dynein_late_writes_total") == 2
    assert world.inbound() == 0
    assert world.delivered == [], "its dispatcher sends it"


async def test_a_late_write_is_counted_on_the_record_of_its_own_shard(world: World) -> None:
    process = world.process()
    write = process.faults.hold_before_next("add")
    entry = world.entry(20.0, shard=1)
    await world.post(entry)
    process.start()
    await world.clock.advance(1)
    await world.own(0, read_mark_ms=due_of(entry))
    await world.own(1, read_mark_ms=due_of(entry))
    write.open()
    await world.clock.settle()
    assert [world.record(shard).late_writes for shard in (0, 1)] == [0, 1]
    assert world.inbound() == 0


async def test_reports_of_many_messages_share_a_call_a_shard(world: World) -> None:
    """After an outage every message in the backlog is late: a call for each would be as many writes to one record."""
    process = world.process()
    report = process.faults.hold_before_next("report_late")
    first, others = world.entry(20.0), [world.entry(20.0 + 4 * i) for i in range(1, 30)]
    await world.own(0, read_mark_ms=due_of(others[-1]))
    await world.post(first)
    process.start()
    await world.clock.settle()
    assert report.reached.is_set()
    for entry in others:
        await world.post(entry)
    await world.clock.settle()
    assert process.calls("report_late") == 1, "one under way"
    assert world.inbound() == 30
    report.open()
    await world.clock.settle()
    assert process.calls("report_late") == 2, "one for all that came meanwhile"
    assert world.record(0).late_writes == 2
    assert world.inbound() == 0


async def test_of_reports_that_share_a_call_those_in_retired_buckets_are_kept_apart(world: World) -> None:
    process = world.process()
    write = process.faults.hold_before_next("add")
    entries = [world.entry(20.0 + WIDTH_MS / 1000 * i) for i in range(4)]
    await world.post(*entries)
    process.start()
    await world.clock.advance(1)
    retired_before = bucket_of_entry(entries[2])
    await world.own(0, read_mark_ms=due_of(entries[-1]), retired_before=retired_before)
    write.open()
    await world.clock.advance(HOUR_S)
    assert sorted(world.times_delivered()) == sorted(entry.token for entry in entries[:2]), "sent from here"
    assert sorted(world.stored()) == sorted(entry.token for entry in entries[2:]), "their dispatcher sends them"
    assert world.record(0).late_writes == 1
    assert world.inbound() == 0


async def test_the_marks_are_read_after_the_write_even_if_they_were_read_before(world: World) -> None:
    process = world.process()
    await world.post(world.entry(20.0))
    process.start()
    await world.clock.settle()
    assert process.telemetry.registry.get_sample_value("dynein_late_writes_total") == 0
    entry = world.entry(20.0)
    # A read of the marks that began before the write was acknowledged does not count, though it ends after.
    read = process.faults.hold_answer_next("get")
    await world.post(world.entry(20.0))
    await world.clock.settle()
    assert read.reached.is_set()
    await world.post(entry)
    await world.clock.settle()
    assert entry.token in world.stored()
    await world.own(0, read_mark_ms=due_of(entry))
    read.open()
    await world.clock.settle()
    assert world.record(0).late_writes == 1
    assert world.inbound() == 0


async def test_a_mark_read_long_ago_is_read_again_when_the_shard_may_have_found_an_owner(world: World) -> None:
    process = world.process()
    await world.post(world.entry(HOUR_S))
    process.start()
    await world.clock.advance(HOUR_S)
    entry = world.entry(10.0)
    await world.own(0, read_mark_ms=due_of(entry))
    await world.post(entry)
    await world.clock.settle()
    assert world.record(0).late_writes == 1


async def late_in_a_retired_bucket(world: World, due_in_s: float = 20.0) -> tuple[str, int]:
    """Let a write be acknowledged only when its bucket is retired. Returns the token and the due time."""
    entry = world.entry(due_in_s)
    process = world.process()
    gate = process.faults.hold_before_next("add")
    await world.post(entry)
    process.start()
    await world.clock.settle()
    await world.clock.advance(10)
    bucket = bucket_of_entry(entry)
    await world.own(0, read_mark_ms=(bucket + 1) * WIDTH_MS, retired_before=bucket + 1)
    gate.open()
    return entry.token, due_of(entry)


async def test_a_write_into_a_retired_bucket_is_sent_from_here_and_removed(world: World) -> None:
    token, due_at_ms = await late_in_a_retired_bucket(world)
    await world.clock.settle()
    assert world.stored() == [token]
    assert world.inbound() == 1
    await world.clock.advance(20)
    assert [(d.token, d.at_ms) for d in world.delivered] == [(token, due_at_ms)], "and not early either"
    assert world.stored() == []
    assert world.inbound() == 0


async def test_a_removal_that_fails_is_tried_again(world: World) -> None:
    token, _ = await late_in_a_retired_bucket(world)
    (process,) = world.processes
    process.faults.fail_next("remove", Throttled("slow down"))
    process.faults.fail_entries_next("remove", [0])
    await world.clock.advance(30)
    assert world.times_delivered() == {token: 1}
    assert world.stored() == []
    assert world.inbound() == 0


async def test_a_trigger_gone_from_a_retired_bucket_was_sent_by_its_dispatcher(world: World) -> None:
    entry = world.entry(20.0)
    process = world.process()
    gate = process.faults.hold_answer_next("add")
    await world.post(entry)
    process.start()
    await world.clock.advance(10)
    assert await world.table.remove([trigger_of(entry).key]) == []
    bucket = bucket_of_entry(entry)
    await world.own(0, read_mark_ms=(bucket + 1) * WIDTH_MS, retired_before=bucket + 1)
    gate.open()
    await world.clock.advance(30)
    assert world.delivered == []
    assert world.inbound() == 0


async def test_a_cancelled_trigger_in_a_retired_bucket_is_removed_unsent(world: World) -> None:
    entry = world.entry(20.0)
    assert await world.table.cancel(trigger_of(entry).key) is Cancelled.CANCELLED
    process = world.process()
    gate = process.faults.hold_before_next("add")
    await world.post(entry)
    process.start()
    await world.clock.advance(1)
    bucket = bucket_of_entry(entry)
    await world.own(0, read_mark_ms=(bucket + 1) * WIDTH_MS, retired_before=bucket + 1)
    gate.open()
    await world.clock.advance(60)
    assert world.delivered == []
    assert world.stored() == []
    assert world.inbound() == 0


# --- cancelled on the way -----------------------------------------------------------------------------------------


async def test_a_near_job_cancelled_in_the_inbound_queue_is_dropped(world: World) -> None:
    cancelled, other = world.entry(3.0), world.entry(3.0)
    assert await world.table.cancel(trigger_of(cancelled).key) is Cancelled.CANCELLED
    process = world.process()
    await world.post(cancelled, other)
    process.start()
    await world.clock.advance(10)
    assert world.times_delivered() == {other.token: 1}
    assert world.inbound() == 0
    assert process.counted() == {"held": 1, "cancelled": 1}


async def test_a_cancel_before_the_mark_is_up_wins(world: World) -> None:
    entry = world.entry(3.0)
    process = world.process()
    process.faults.hold_before_next("raise_hold_mark").open()  # the one by which it finds out that it may
    mark = process.faults.hold_before_next("raise_hold_mark")
    await world.post(entry)
    process.start()
    await world.clock.settle()
    assert mark.reached.is_set()
    assert await world.table.cancel(trigger_of(entry).key) is Cancelled.CANCELLED
    mark.open()
    await world.clock.advance(10)
    assert world.delivered == []


async def test_a_cancel_after_the_mark_is_up_is_too_late_and_the_job_is_sent(world: World) -> None:
    entry = world.entry(3.0)
    process = world.process()
    lookup = process.faults.hold_before_next("tombstones")
    await world.post(entry)
    process.start()
    await world.clock.advance(process.settings.tick_s)
    assert lookup.reached.is_set()
    assert await world.table.cancel(trigger_of(entry).key) is Cancelled.TOO_LATE
    lookup.open()
    await world.clock.advance(10)
    assert world.times_delivered() == {entry.token: 1}


class SlowToShow(FakeTriggerTable):
    """A cancel's tombstone shows half a second after the shard's record is free again."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock, bucket_width_ms=WIDTH_MS, shard_count=2)
        self._clock = clock
        self._shows_at: dict[TriggerKey, float] = {}

    async def cancel(self, key: TriggerKey) -> Cancelled | Tombstone:
        self._shows_at[key] = self._clock.monotonic() + 0.5
        return await super().cancel(key)

    async def tombstones(self, keys: Sequence[TriggerKey]) -> list[Tombstone]:
        return [tombstone for tombstone in await super().tombstones(keys) if self._shows(tombstone.key)]

    async def find(self, key: TriggerKey) -> Found:
        found = await super().find(key)
        return found if self._shows(key) else found._replace(tombstone=None)

    def _shows(self, key: TriggerKey) -> bool:
        return self._clock.monotonic() >= self._shows_at.get(key, 0.0)


@pytest.mark.parametrize("received_before", [False, True])
async def test_a_cancel_may_show_on_the_shard_s_record_before_its_tombstone_does(
    world: World, *, received_before: bool
) -> None:
    world.table = SlowToShow(world.clock)
    entry = world.entry(3.0)
    await world.post(entry)
    if received_before:
        world.queues.faults.duplicate_next()
        await world.queues.receive(world.queues.url(INBOUND), entries_max=1, wait_s=0, visibility_timeout_s=30)
    assert await world.table.cancel(trigger_of(entry).key) is Cancelled.CANCELLED
    process = world.process()
    process.start()
    await world.clock.advance(10)
    assert process.hold_marks() == 1
    assert world.delivered == []


async def test_what_waits_for_its_mark_is_not_late_while_the_shard_has_an_owner(world: World) -> None:
    entry, soon = world.entry(2.2), world.entry(0.3)
    now_ms = world.now_ms()
    await world.own(0, read_mark_ms=now_ms + 3000, settled_mark_ms=now_ms + 2000)
    await world.post(entry, soon)
    world.process().start()
    await world.clock.advance(10)
    assert [d.at_ms for d in world.delivered] == [due_of(soon), due_of(entry)]


async def test_a_far_job_cancelled_in_the_inbound_queue_meets_its_tombstone_in_the_store(world: World) -> None:
    entry = world.entry(HOUR_S)
    key = trigger_of(entry).key
    assert await world.table.cancel(key) is Cancelled.CANCELLED
    await world.post(entry)
    world.process().start()
    await world.clock.settle()
    found = await world.table.find(key)
    assert found.tombstone is not None
    page = await world.table.read(bucket_of(key.due_at_ms, WIDTH_MS), 0, from_ms=0, until_ms=key.due_at_ms, limit=10)
    assert [t.key for t in page.tombstones] == [t.key for t in page.triggers] == [key], "the dispatcher skips it"
    assert world.inbound() == 0


# --- prepared tokens ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("due_in_s", [2.0, HOUR_S])
async def test_two_creates_with_one_prepared_token_make_one_job(world: World, due_in_s: float) -> None:
    first = world.entry(due_in_s, prepared=True)
    again = world.entry(due_in_s, token=first.token)
    process = world.process()
    await world.post(first, again)
    await world.post(world.entry(due_in_s, token=first.token))
    process.start()
    await world.clock.advance(5)
    assert world.inbound() == 0
    assert process.counted()["duplicate"] == 2
    sent = world.times_delivered()[first.token]
    assert process.tallied() == Counts(accepted=-2, delivered=sent), "of three accepted creates two were repeats"
    assert world.stored().count(first.token) + world.times_delivered()[first.token] == 1


async def test_a_create_packed_twice_into_one_message_is_one_job(world: World) -> None:
    entry = world.entry(2.0, prepared=True)
    await world.post(entry, entry)
    world.process().start()
    await world.clock.advance(5)
    assert world.times_delivered() == {entry.token: 1}


async def test_a_prepared_job_created_again_after_it_was_sent_is_dropped(world: World) -> None:
    first = world.entry(2.0, prepared=True)
    await world.post(first)
    world.process().start()
    await world.clock.advance(5)
    await world.post(world.entry(2.0, token=first.token))
    await world.clock.advance(5)
    assert world.times_delivered() == {first.token: 1}
    assert world.inbound() == 0


async def test_a_repeated_create_is_taken_back_though_its_job_was_sent_at_an_earlier_receive(
    world: World,
) -> None:
    first = world.entry(2.0, prepared=True)
    process = world.process()
    process.faults.fail_next("add", RuntimeError("a bug"))
    await world.post(first, world.entry(2.0, token=first.token), world.entry(HOUR_S))
    process.start()
    await world.clock.advance(60)
    assert (world.times_delivered()[first.token], world.inbound()) == (1, 0)
    assert process.tallied() == Counts(accepted=-1, delivered=1)


async def test_a_prepared_job_received_twice_is_not_taken_for_a_second_create(world: World) -> None:
    entry = world.entry(HOUR_S, prepared=True)
    crashing = world.process("i1")
    crashing.faults.hold_before_next("add")
    await world.post(entry)
    crashing.start()
    await world.clock.settle()
    await crashing.kill()
    world.process("i2").start()
    await world.clock.advance(60)
    assert world.stored() == [entry.token]
    assert world.inbound() == 0


async def test_a_claim_that_meets_throttling_is_tried_again(world: World) -> None:
    entry = world.entry(HOUR_S, prepared=True)
    process = world.process()
    process.faults.fail_next("claim", Throttled("slow down"))
    await world.post(entry)
    process.start()
    await world.clock.advance(1)
    assert world.stored() == [entry.token]


# --- crashes and deletes ------------------------------------------------------------------------------------------


async def test_a_crash_between_store_and_delete_loses_and_doubles_nothing(world: World) -> None:
    entry = world.entry(HOUR_S)
    crashing = world.process("i1")
    gate = crashing.faults.hold_before_next("delete")
    await world.post(entry)
    crashing.start()
    await world.clock.settle()
    assert gate.reached.is_set()
    await crashing.kill()
    assert world.inbound() == 1
    world.process("i2").start()
    await world.clock.advance(60)
    assert world.stored() == [entry.token]
    assert world.inbound() == 0


async def test_a_crash_with_a_near_job_held_delays_it_by_the_visibility_timeout_at_most(world: World) -> None:
    entry = world.entry(3.0)
    crashing = world.process("i1")
    await world.post(entry)
    crashing.start()
    await world.clock.advance(1)
    await crashing.kill()
    world.process("i2").start()
    await world.clock.advance(35)
    assert world.times_delivered() == {entry.token: 1}
    assert world.delivered[0].at_ms <= due_of(entry) + 30_000
    assert world.inbound() == 0


async def test_a_failed_delete_is_tried_again(world: World) -> None:
    entry = world.entry(1.0)
    process = world.process()
    process.faults.fail_next("delete", Unavailable("no response"))
    process.faults.fail_entries_next("delete", [0])
    await world.post(entry)
    process.start()
    await world.clock.advance(3)
    assert process.calls("delete") == 3
    assert world.inbound() == 0
    assert process.inbound_failures("delete") == 0


async def test_a_message_whose_delete_keeps_failing_comes_again_and_is_not_acted_on_twice(world: World) -> None:
    entry = world.entry(1.0)
    process = world.process()
    process.faults.go_down(Unavailable("no response"), verb="delete")
    await world.post(entry)
    process.start()
    await world.clock.advance(60)
    assert process.inbound_failures("delete") >= 1
    process.faults.come_up()
    await world.clock.advance(60)
    assert world.inbound() == 0
    assert world.times_delivered() == {entry.token: 1}


async def test_a_delete_that_sqs_forgot_does_not_send_twice(world: World) -> None:
    entry = world.entry(1.0)
    process = world.process()
    process.faults.ignore_delete_next()
    await world.post(entry)
    process.start()
    await world.clock.advance(60)
    assert world.inbound() == 0
    assert world.times_delivered() == {entry.token: 1}


async def test_a_delete_that_sqs_forgot_does_not_bring_a_dispatched_job_back(world: World) -> None:
    entry = world.entry(20.0)
    process = world.process()
    process.faults.ignore_delete_next()
    await world.post(entry)
    process.start()
    await world.clock.advance(20)
    assert await world.table.remove([trigger_of(entry).key]) == [], "its dispatcher has sent it"
    await world.clock.advance(60)
    assert world.inbound() == 0
    assert world.delivered == []
    assert world.stored() == []


async def test_deletes_leave_together(world: World) -> None:
    process = world.process()
    for _ in range(20):
        await world.post(world.entry(HOUR_S))
    process.start()
    await world.clock.settle()
    assert world.inbound() == 0
    assert process.calls("delete") <= 4
    assert max(call.entries for call in process.faults.calls if call.verb == "delete") == 10


async def test_a_message_received_again_leaves_what_was_stored_to_its_dispatcher(world: World) -> None:
    """Stored by an ingester that crashed before the delete; near by the time it comes again."""
    stored = world.entry(32.0)
    crashing = world.process("i1")
    crashing.faults.hold_before_next("delete")
    await world.post(stored)
    crashing.start()
    await world.clock.settle()
    await crashing.kill()
    assert world.stored() == [stored.token]
    second = world.process("i2")
    second.start()
    await world.clock.advance(33)
    assert world.inbound() == 0
    assert world.delivered == []
    assert world.stored() == [stored.token]


async def test_a_message_received_twice_at_once_is_worked_on_once(world: World) -> None:
    entry = world.entry(5.0)
    process = world.process()
    process.faults.duplicate_next()
    await world.post(entry)
    process.start()
    await world.clock.advance(40)
    assert world.times_delivered() == {entry.token: 1}
    assert world.inbound() == 0, "deleted by its newest receipt"


# --- visibility ---------------------------------------------------------------------------------------------------


async def test_a_held_message_stays_invisible(world: World) -> None:
    entry = world.entry(50.0)
    process = world.process(hold_window_s=60.0, visibility_timeout_s=70)
    other = world.process("i2", hold_window_s=60.0, visibility_timeout_s=70)
    process.start()
    await world.clock.advance(1)
    await world.post(entry)
    other.start()
    await world.clock.advance(60)
    assert world.times_delivered() == {entry.token: 1}
    assert process.calls("extend") + other.calls("extend") == 1


async def test_a_lost_receipt_is_counted_and_the_work_goes_on(world: World) -> None:
    entry = world.entry(HOUR_S)
    process = world.process()
    process.faults.go_down(Throttled("slow down"), verb="add")
    process.faults.fail_entries_next("extend", [0], permanent=True)
    await world.post(entry)
    process.start()
    await world.clock.advance(25)
    assert process.inbound_failures("extend") == 1
    process.faults.come_up()
    await world.clock.advance(60)
    assert world.stored() == [entry.token]
    assert world.inbound() == 0


# --- poison -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["not json", '{"v":9,"jobs":[]}', '{"v":3,"mac":"x","jobs":[]}', "[" * 3000])
async def test_an_unreadable_message_is_dead_lettered_with_the_reason(world: World, body: str) -> None:
    process = world.process()
    await world.post_body(body)
    process.start()
    await world.clock.settle()
    (dead_letter,) = world.dead_letters()
    assert (dead_letter.kind, dead_letter.body) == (KIND_INBOUND, body)
    assert dead_letter.reason
    assert world.inbound() == 0
    assert process.counted() == {"poison": 1}


async def test_an_unreadable_message_is_left_while_the_dead_letter_queue_fails(world: World) -> None:
    process = world.process()
    process.faults.fail_next("send", Unavailable("no response"))
    await world.post_body("not json")
    process.start()
    await world.clock.advance(1)
    assert world.inbound() == 1
    await world.clock.advance(60)
    assert len(world.dead_letters()) == 1
    assert world.inbound() == 0


@pytest.mark.parametrize("due_in_s", [1.0, HOUR_S])
async def test_a_message_that_another_program_wrote_is_dead_lettered_and_its_jobs_are_not_done(
    world: World, due_in_s: float
) -> None:
    ours, foreign = world.entry(due_in_s), world.entry(due_in_s)
    body = pack([ours], SEAL)
    forged = [
        pack([foreign], Seal([b"another deployment's secret"])),
        body.replace(ours.token, foreign.token),  # one of our signatures, on another job
        body.replace('"jobs":', '"unsigned":'),
        re.sub(r'"mac":"[^"]*",', "", pack([foreign], SEAL)),
        body.replace('"v":3', '"v":2'),
    ]
    for text in forged:
        await world.post_body(text)
    await world.post_body(body)
    process = world.process()
    process.start()
    await world.clock.advance(2)
    assert {dead.body for dead in world.dead_letters()} == set(forged)
    reasons = [dead.reason for dead in world.dead_letters()]
    assert sum("signature is not this deployment's" in reason for reason in reasons) == 3
    assert sum("inbound format 2 is unknown" in reason for reason in reasons) == 1
    assert [*world.stored(), *world.times_delivered()] == [ours.token]
    assert world.inbound() == 0
    assert process.counted()["poison"] == len(forged)


async def test_what_the_api_signed_with_the_former_secret_is_ingested_while_that_is_kept(world: World) -> None:
    entry = world.entry(1.0)
    process = world.process(token_secrets="the secret that is new, " + SECRET)
    await world.post(entry)
    process.start()
    await world.clock.advance(2)
    assert world.times_delivered() == {entry.token: 1}


async def test_a_message_copied_and_sent_again_is_a_message_received_again(world: World) -> None:
    """Whoever may read and send can copy what is on the queue; that does no more than SQS does itself."""
    cancelled, stored, delivered = world.entry(HOUR_S), world.entry(HOUR_S), world.entry(1.0)
    process = world.process()
    await world.post(cancelled, stored, delivered)
    process.start()
    await world.clock.advance(2)
    assert await world.table.cancel(trigger_of(cancelled).key) is Cancelled.CANCELLED
    await world.post(cancelled, stored, delivered)
    await world.clock.advance(2)
    assert world.stored().count(stored.token) == 1
    assert (await world.table.find(trigger_of(cancelled).key)).tombstone is not None, "so no dispatcher sends it"
    assert world.times_delivered() == {delivered.token: 2}, "twice with one token, so that its consumer knows"
    assert world.dead_letters() == []


async def test_a_bad_entry_is_dead_lettered_alone_and_the_good_ones_are_done(world: World) -> None:
    near, far, bad = world.entry(1.0), world.entry(HOUR_S), world.entry(1.0, token="no token at all")
    process = world.process()
    await world.post(near, bad, far)
    process.start()
    await world.clock.advance(2)
    assert world.times_delivered() == {near.token: 1}
    assert world.stored() == [far.token]
    (dead_letter,) = world.dead_letters()
    assert (dead_letter.kind, dead_letter.body) == (KIND_INBOUND, pack([bad], SEAL))
    assert "an entry of an inbound message cannot be read: a job token has 52 characters" in dead_letter.reason
    assert world.inbound() == 0
    assert process.counted()["poison"] == 1


async def test_a_dead_letter_queue_that_fails_neither_delays_the_good_entries_nor_loses_the_bad_one(
    world: World,
) -> None:
    good, bad = world.entry(1.0), world.entry(1.0, token="no token at all")
    process = world.process()
    world.queues.remove("dead")
    await world.post(bad, good)
    process.start()
    await world.clock.advance(2)
    assert [d.at_ms for d in world.delivered] == [due_of(good)]
    assert world.inbound() == 1
    world.queues.create("dead")
    await world.clock.advance(20)
    assert len(world.dead_letters()) == 1
    assert world.inbound() == 0
    assert world.times_delivered() == {good.token: 1}


async def test_a_message_of_bad_entries_only_is_done_too(world: World) -> None:
    process = world.process()
    await world.post(*(world.entry(1.0, token="no token at all") for _ in range(3)))
    process.start()
    await world.clock.advance(2)
    assert len(world.dead_letters()) == 3
    assert world.inbound() == 0
    assert process.ingester.admission.slots == 0


async def test_an_unreadable_job_is_dead_lettered_alone(world: World) -> None:
    good, bad = world.entry(1.0), world.entry(1.0, record=b'{"nothing":"we know"}')
    process = world.process()
    await world.post(bad, good)
    process.start()
    await world.clock.advance(2)
    (dead_letter,) = world.dead_letters()
    assert (dead_letter.kind, dead_letter.token, dead_letter.due_at_ms) == (KIND_JOB, bad.token, due_of(bad))
    assert dead_letter.body == '{"nothing":"we know"}'
    assert "not a job record" in dead_letter.reason
    assert world.times_delivered() == {good.token: 1}
    assert world.inbound() == 0


async def test_a_dead_letter_queue_that_fails_does_not_delay_the_message_s_good_jobs(world: World) -> None:
    good, bad = world.entry(1.0), world.entry(1.0, record=b"{}")
    process = world.process()
    world.queues.remove("dead")
    await world.post(bad, good)
    process.start()
    await world.clock.advance(2)
    assert [d.at_ms for d in world.delivered] == [due_of(good)]
    assert world.inbound() == 1
    world.queues.create("dead")
    await world.clock.advance(20)
    assert len(world.dead_letters()) == 1
    assert world.inbound() == 0
    assert world.times_delivered() == {good.token: 1}


@pytest.mark.parametrize("due_in_s", [1.0, HOUR_S])
async def test_a_job_of_a_shard_that_does_not_exist_is_dead_lettered(world: World, due_in_s: float) -> None:
    entry, other = world.entry(due_in_s, shard=7), world.entry(due_in_s)
    process = world.process()
    await world.post(entry, other)
    process.start()
    await world.clock.advance(2)
    (dead_letter,) = world.dead_letters()
    assert dead_letter.token == entry.token
    assert "shard 7" in dead_letter.reason
    assert world.inbound() == 0
    assert len(world.stored()) + len(world.delivered) == 1


async def test_a_shard_added_while_we_run_is_learnt_of(world: World) -> None:
    process = world.process()
    process.start()
    await world.clock.advance(1)
    world.table.raise_shard_count(8)
    entry = world.entry(HOUR_S, shard=7)
    await world.post(entry)
    await world.clock.settle()
    assert world.stored() == [entry.token]


async def test_an_unexpected_error_leaves_the_message_and_spares_the_others(world: World) -> None:
    broken, near, good = world.entry(HOUR_S), world.entry(1.0), world.entry(HOUR_S, shard=1)
    process = world.process()
    process.faults.fail_next("add", RuntimeError("a bug"), times=2)
    await world.post(broken, near)
    process.start()
    await world.clock.advance(5)
    assert world.inbound() == 1
    await world.post(good)
    await world.clock.advance(90)
    assert sorted(world.stored()) == sorted([broken.token, good.token])
    assert world.inbound() == 0
    assert world.times_delivered() == {near.token: 1}, "what was sent is not sent again when the message comes back"


@pytest.mark.parametrize("verb", ["receive", "add", "beat", "raise_hold_mark"])
async def test_a_refused_credential_ends_the_run(world: World, verb: str) -> None:
    process = world.process()
    process.faults.fail_next(verb, AccessDenied(f"may not {verb}"))
    await world.post(world.entry(HOUR_S), world.entry(1.0))
    task = process.start()
    await world.clock.run_until(task.done, within_s=30)
    with pytest.raises(AccessDenied, match=verb):
        task.result()
    assert world.clock.sleepers == 0, "nothing is left running"


# --- lanes --------------------------------------------------------------------------------------------------------


async def test_a_full_lane_s_jobs_are_stored_and_others_are_not_held_up(world: World) -> None:
    jam = [world.entry(1.0, queue="a") for _ in range(30)]
    free = world.entry(1.5, queue="b")
    process = world.process(lane_waiting_max=5, lane_in_flight_max=1)
    process.faults.take_down("a", Throttled("slow down"))
    await world.post(*jam, free)
    process.start()
    await world.clock.advance(1.5)
    assert [(d.token, d.at_ms) for d in world.delivered] == [(free.token, due_of(free))]
    assert len(world.stored()) == 25, "30 less the 5 the lane took"
    await world.clock.advance(40)
    assert len(world.stored()) == 30, "those in the lane too, after a while"
    assert world.inbound() == 0
    assert process.ingester.near_jobs.jobs == 0


async def test_a_job_of_a_full_lane_in_a_retired_bucket_stays_in_memory_until_sent(world: World) -> None:
    entry = world.entry(0.0)
    bucket = bucket_of_entry(entry)
    await world.own(0, read_mark_ms=(bucket + 1) * WIDTH_MS, retired_before=bucket + 1)
    process = world.process(lane_waiting_max=1, lane_in_flight_max=1)
    process.faults.take_down("a", Throttled("slow down"))
    await world.post(entry)
    process.start()
    await world.clock.advance(120)
    assert world.inbound() == 1
    assert world.delivered == []
    process.faults.come_up()
    await world.clock.advance(30)
    assert world.times_delivered() == {entry.token: 1}
    assert world.stored() == []
    assert world.inbound() == 0


async def test_a_near_job_stored_late_is_reported(world: World) -> None:
    entry = world.entry(1.0)
    await world.own(0, read_mark_ms=due_of(entry) + 10_000)
    process = world.process()
    process.faults.take_down("a", Throttled("slow down"))
    await world.post(entry)
    process.start()
    await world.clock.advance(40)
    assert world.stored() == [entry.token]
    assert world.record(0).late_writes == 1
    assert world.inbound() == 0


# --- rate and bounds ----------------------------------------------------------------------------------------------


async def test_the_rate_is_kept(world: World) -> None:
    process = world.process(ingest_rate_per_s=10.0)
    for _ in range(20):
        await world.post(*[world.entry(HOUR_S) for _ in range(5)])
    process.start()
    await world.clock.settle()
    assert len(world.stored()) <= 15, "a second's burst, and the message that overdraws it"
    await world.clock.advance(4)
    assert 40 <= len(world.stored()) <= 60
    await world.clock.advance(8)
    assert len(world.stored()) == 100
    assert world.inbound() == 0


async def test_the_rate_is_shared_and_follows_joins_and_departures(world: World) -> None:
    first = world.process("i1", ingest_rate_per_s=100.0)
    first.start()
    await world.clock.settle()
    assert first.ingester.admission.rate_per_s == 100
    second = world.process("i2", ingest_rate_per_s=100.0)
    second.start()
    await world.clock.advance(2.5)
    assert (first.ingester.admission.rate_per_s, second.ingester.admission.rate_per_s) == (50, 50)
    await second.stop()
    await world.clock.advance(2.5)
    assert first.ingester.admission.rate_per_s == 100, "a clean departure counts at the next poll"
    third = world.process("i3", ingest_rate_per_s=100.0)
    third.start()
    await world.clock.advance(2.5)
    await third.kill()
    await world.clock.advance(5)
    assert first.ingester.admission.rate_per_s == 50, "not yet known to be dead"
    await world.clock.advance(6)
    assert first.ingester.admission.rate_per_s == 100


async def test_it_stops_receiving_when_its_memory_for_jobs_is_full(world: World) -> None:
    process = world.process(held_jobs_max=10, ingest_receivers=1)
    for _ in range(50):
        await world.post(*[world.entry(5.0) for _ in range(4)])
    process.start()
    await world.clock.advance(process.settings.tick_s)
    assert process.ingester.near_jobs.jobs == 8
    assert process.ingester.admission.slots == 8
    assert world.inbound_visible() >= 30, "what cannot be taken in is left to others"
    seen = 0
    for _ in range(100):
        await world.clock.advance(0.1)
        assert process.ingester.admission.slots <= 10
        seen = max(seen, len(process.ingester.visibility))
    assert seen <= 10 + 10, "one receive's worth besides what is inside"
    assert len(world.delivered) == 200
    assert world.inbound() == 0


async def test_when_its_memory_is_full_what_is_due_latest_is_stored_for_what_is_due_sooner(world: World) -> None:
    process = world.process(held_jobs_max=10, ingest_receivers=1)
    later = [world.entry(6.9) for _ in range(10)]
    await world.post(*later)
    process.start()
    await world.clock.advance(process.settings.tick_s)
    assert process.ingester.admission.slots == 0, "a dispatcher has more than a second to read them in time"
    soon = [world.entry(1.5) for _ in range(10)]
    await world.post(*soon)
    await world.clock.advance(2)
    assert [d.at_ms for d in world.delivered] == [due_of(entry) for entry in soon]
    assert sorted(world.stored()) == sorted(entry.token for entry in later)
    assert process.telemetry.late_writes._value.get() == 0


async def test_a_message_larger_than_the_bound_is_taken_in_alone(world: World) -> None:
    process = world.process(held_jobs_max=10)
    small = world.entry(5.0)
    await world.post(small)
    await world.post(*[world.entry(5.0) for _ in range(30)])
    process.start()
    await world.clock.advance(process.settings.tick_s)
    assert process.ingester.near_jobs.jobs in (1, 30)
    await world.clock.advance(10)
    assert len(world.delivered) == 31
    assert world.inbound() == 0


async def test_idle_short_polling_does_not_spin(world: World) -> None:
    process = world.process(receive_wait_s=0, ingest_receivers=1)
    process.start()
    await world.clock.advance(10)
    assert process.calls("receive") <= 25


async def test_what_is_near_is_decided_when_there_are_tokens_for_it(world: World) -> None:
    """A job that waited to be admitted until it was due soon is held, though it was far when it was received."""
    process = world.process(ingest_rate_per_s=1.0, ingest_receivers=1)
    first = [world.entry(HOUR_S) for _ in range(10)]
    entry = world.entry(12.0)
    await world.post(*first)
    await world.post(entry)
    process.start()
    await world.clock.advance(15)
    assert [(d.token, d.at_ms) for d in world.delivered] == [(entry.token, due_of(entry))]
    assert process.counted() == {"stored": 10, "held": 1}


# --- drain --------------------------------------------------------------------------------------------------------


async def test_a_drain_sends_what_is_due_soon_and_leaves_the_roster(world: World) -> None:
    entry = world.entry(5.0)
    process = world.process()
    await world.post(entry)
    process.start()
    await world.clock.advance(1)
    took_s = await process.stop()
    assert [d.at_ms for d in world.delivered] == [due_of(entry)]
    assert world.inbound() == 0
    assert await world.table.members("ingester") == {}
    assert took_s <= 5.1
    assert world.clock.sleepers == 0


async def test_a_drain_stores_what_is_due_later_instead_of_sending_it_early(world: World) -> None:
    sent, stored = world.entry(5.0), world.entry(50.0)
    process = world.process(hold_window_s=60.0, visibility_timeout_s=120)
    await world.post(sent, stored)
    process.start()
    await world.clock.advance(1)
    assert process.ingester.near_jobs.jobs == 2
    took_s = await process.stop()
    assert took_s <= process.settings.drain_s
    assert world.times_delivered() == {sent.token: 1}
    assert world.stored() == [stored.token]
    assert world.inbound() == 0


async def test_a_drain_holds_nothing_new_that_is_due_later(world: World) -> None:
    entry = world.entry(50.0)
    process = world.process(hold_window_s=60.0, visibility_timeout_s=120)
    lookup = process.faults.hold_before_next("tombstones")
    await world.post(entry)
    process.start()
    await world.clock.advance(process.settings.tick_s)
    assert lookup.reached.is_set()
    process.stopping.set()
    await world.clock.settle()
    lookup.open()
    await process.stop()
    assert world.stored() == [entry.token]
    assert world.inbound() == 0


async def test_a_drain_gives_back_at_once_what_it_cannot_finish(world: World) -> None:
    entry, near = world.entry(HOUR_S), world.entry(HOUR_S)
    process = world.process()
    process.faults.go_down(Unavailable("no response"), verb="add")
    await world.post(entry)
    await world.post(near)
    process.start()
    await world.clock.advance(1)
    took_s = await process.stop()
    assert took_s <= process.settings.drain_s
    assert world.inbound_visible() == 2
    world.process("i2").start()
    await world.clock.settle()
    assert sorted(world.stored()) == sorted([entry.token, near.token])
    assert world.inbound() == 0


async def test_a_drain_gives_back_what_it_receives_or_has_not_begun(world: World) -> None:
    process = world.process(ingest_rate_per_s=1.0)
    process.start()
    await world.clock.advance(1)
    await world.post(*[world.entry(HOUR_S) for _ in range(30)])
    await world.post(world.entry(HOUR_S))
    await world.post(world.entry(HOUR_S))
    await world.clock.advance(0.1)
    process.stopping.set()
    await world.clock.settle()
    await world.post(world.entry(HOUR_S))
    assert await process.stop() <= process.settings.receive_wait_s, "no longer than a receive under way"
    assert len(world.stored()) == 30
    assert world.inbound_visible() == world.inbound() == 3


async def test_a_drain_does_not_receive_again_what_it_is_giving_back(world: World) -> None:
    process = world.process()
    process.start()
    await world.clock.advance(1)
    process.stopping.set()
    await world.clock.settle()
    response = process.faults.hold_answer_next("extend")  # visible again, while other receives are still under way
    await world.post(world.entry(HOUR_S))
    await world.clock.settle()
    response.open()
    await process.stop()
    assert world.inbound_visible() == world.inbound() == 1


async def test_a_drain_stores_the_jobs_of_a_failing_destination(world: World) -> None:
    entry = world.entry(0.5)
    process = world.process(hold_window_s=60.0, visibility_timeout_s=120)
    process.faults.take_down("a", Throttled("slow down"))
    await world.post(entry)
    process.start()
    await world.clock.advance(3)
    took_s = await process.stop()
    assert took_s < 10
    assert world.stored() == [entry.token]
    assert world.inbound() == 0


async def test_a_drain_ends_in_time_even_if_no_service_responds(world: World) -> None:
    process = world.process()
    await world.post(world.entry(HOUR_S))
    process.faults.hold_before_next("add")
    process.start()
    await world.clock.settle()
    for verb in ("extend", "leave"):
        process.faults.hold_before_next(verb)
    assert await process.stop() <= process.settings.drain_s


async def test_a_killed_ingester_s_lanes_send_nothing_more(world: World) -> None:
    entries = [world.entry(1.0) for _ in range(30)]
    process = world.process(lane_in_flight_max=1)
    process.faults.take_down("a", Throttled("slow down"))
    await world.post(*entries)
    process.start()
    await world.clock.advance(2)
    await process.kill()
    process.faults.come_up()
    await world.clock.advance(20)
    assert world.delivered == []
    assert world.inbound() == 1


async def test_a_kill_leaves_no_task_behind(world: World) -> None:
    process = world.process()
    process.faults.go_down(Throttled("slow down"), verb="add")
    await world.post(world.entry(HOUR_S), world.entry(5.0))
    process.start()
    await world.clock.advance(1)
    await process.kill()
    await world.clock.settle()
    assert world.clock.sleepers == 0
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert [task for task in others if "ingest" in repr(task.get_coro()) or "GroupCommit" in repr(task)] == []


async def test_what_was_on_its_way_when_the_message_was_left_is_not_sent_again(world: World) -> None:
    """A job of it could not be stored, for a reason nobody expected; another's send was acknowledged after that."""
    process = world.process(lane_waiting_max=1)
    entries = [world.entry(1.0) for _ in range(3)]
    first_send = process.faults.hold_answer_next("send")
    process.faults.fail_next("add", RuntimeError("a bug"))
    await world.own(0, read_mark_ms=world.now_ms() + 3000, settled_mark_ms=world.now_ms() + 2000)
    for entry in entries:
        await world.post(entry, *([world.entry(1.0) for _ in range(12)] if entry is entries[0] else []))
    process.start()
    await world.clock.advance(5)
    assert first_send.reached.is_set()
    assert world.inbound() > 0, "left to come back"
    first_send.open()
    await world.clock.advance(60)
    assert set(world.times_delivered().values()) == {1}
    assert world.inbound() == 0


# --- a table out of reach -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["beat", "get", "find", "remove", "raise_hold_mark"])
async def test_an_ingester_that_may_not_use_the_table_receives_nothing_however_often_it_starts(
    world: World, verb: str
) -> None:
    await world.post(world.entry(HOUR_S))
    for start in range(60):
        process = world.process(f"i{start}")
        process.faults.go_down(AccessDenied("dynamodb"), verb=verb)
        task = process.start()
        await world.clock.run_until(task.done)
        with pytest.raises(AccessDenied):
            await task
        assert process.calls("receive") == 0
    assert world.dead_letters() == []
    assert world.inbound_visible() == 1


async def test_an_ingester_that_loses_the_table_stops_receiving_and_begins_again_with_it(world: World) -> None:
    process = world.process(receive_wait_s=0)
    process.start()
    await world.clock.advance(1)
    assert process.calls("receive") > 0
    process.faults.go_down(Unavailable("no response"), verb="beat")
    process.faults.go_down(Unavailable("no response"), verb="remove")
    await world.clock.advance(process.settings.member_ttl_s + 1)
    received = process.calls("receive")
    await world.post(world.entry(HOUR_S))
    await world.clock.advance(60)
    assert process.calls("receive") == received
    assert world.inbound_visible() == 1, "left to those that can store it"
    process.faults.come_up()
    await world.clock.advance(6)
    assert len(world.stored()) == 1


async def test_a_drain_does_not_wait_for_the_table_to_come_back(world: World) -> None:
    process = world.process()
    process.faults.go_down(Unavailable("no response"), verb="remove")
    process.start()
    await world.clock.advance(10)
    assert await process.stop() < 1.0
