"""From the store to the queue: when, in what order, how often, and what leaves the store."""

import random
from collections import Counter
from collections.abc import Callable

import pytest

from dynein.core.job import Job, encode_job
from dynein.core.keys import TriggerKey
from dynein.core.ledger import Counts
from dynein.core.trigger import SLOT_BYTES, Trigger
from dynein.core.trigger_store import Cancelled
from dynein.delivery.dead_letter_queue import read_dead_letter
from dynein.errors import AccessDenied, Throttled, Unavailable, UnknownQueue
from dynein.scheduler.read_states import State
from dynein.testing.queues import Sent
from tests.unit.scheduler.world import DLQ, WIDTH_MS, World

MakeWorld = Callable[..., World]


class TestDueTime:
    async def test_each_job_lands_at_its_due_millisecond(self, world: World) -> None:
        rng = random.Random(3)
        due = sorted(world.now_ms + 5_000 + rng.randrange(150_000) for _ in range(200))
        await world.store(*[world.trigger(at, str(at), shard=i % 4) for i, at in enumerate(due)])
        world.start("p")
        await world.until_empty()
        assert [(int(landed.body), landed.at_ms) for landed in world.landed] == [(at, at) for at in due]

    async def test_after_a_pause_what_was_read_before_it_leads_on_a_fifo_queue(self, make_world: MakeWorld) -> None:
        """Found by the simulation, seed 26: a page that came in meanwhile went to the lane before the timer ran."""
        world = make_world(shard_count=1)
        world.queues.create("c.fifo")
        (p,) = world.start("p")
        await world.until_owned()
        due, bodies = world.now_ms + 8_000, [str(i) for i in range(20)]
        for i, body in enumerate(bodies):
            trigger = world.trigger(due + 100 * i)
            job = Job(queue="c.fifo", body=body, message_group_id="g")
            await world.store(trigger._replace(record=encode_job(job)))
        await world.clock.run_until(lambda: p.dispatcher.snapshot().read_ahead_jobs > 0)
        gate = p.table_faults.hold_answer_next("read")
        await world.clock.run_until(gate.reached.is_set)
        world.clock.step_wall_ms(due + 3_000 - world.now_ms)
        gate.open()
        await world.until_empty(within_s=5.0)
        assert world.bodies("c.fifo") == bodies

    async def test_a_stored_job_for_a_standard_queue_keeps_its_message_group(self, world: World) -> None:
        sent: list[Sent] = []
        world.queues.on_sent.append(sent.append)
        record = encode_job(Job(queue="a", body="x", message_group_id="tenant-7"))
        await world.store(world.trigger(world.now_ms + 8_000)._replace(record=record))
        world.start("p")
        await world.until_empty()
        messages = [each.message for each in sent if each.queue == "a"]
        assert [(message.message_group_id, message.deduplication_id) for message in messages] == [("tenant-7", None)]

    async def test_a_wall_clock_stepped_back_makes_nothing_early(self, world: World) -> None:
        world.start("p")
        await world.until_owned()
        due = world.now_ms + 8_000
        await world.add(due)
        await world.clock.advance(7.0)
        world.clock.step_wall_ms(-10_000)
        await world.until_empty()
        assert [landed.at_ms for landed in world.landed] == [due]

    async def test_a_wall_clock_stepped_forward_sends_what_became_due(self, world: World) -> None:
        world.start("p")
        await world.until_owned()
        due = world.now_ms + 40_000
        await world.add(due)
        await world.clock.advance(0.2)
        world.clock.step_wall_ms(60_000)
        await world.clock.advance(3.0)  # a tick until the mark is raised, a tick for it to stand
        assert len(world.landed) == 1

    async def test_a_job_added_later_but_due_sooner_is_not_kept_waiting(self, world: World) -> None:
        world.start("p")
        await world.until_owned()
        now = world.now_ms
        await world.add(now + 9_000, "later")
        await world.clock.advance(1.0)
        await world.add(now + 8_000, "sooner", shard=1)
        await world.until_empty()
        assert [landed.at_ms - now for landed in world.landed] == [8_000, 9_000]

    async def test_jobs_due_together_leave_in_full_batches(self, world: World) -> None:
        (process,) = world.start("p")
        due = world.now_ms + 8_000
        await world.store(*[world.trigger(due, shard=i % 4) for i in range(100)])
        await world.until_empty()
        assert process.sends() == [10] * 10


class TestRemoval:
    async def test_a_trigger_stays_until_its_send_is_acknowledged(self, world: World) -> None:
        (process,) = world.start("p")
        trigger = await world.add(world.now_ms + 5_000)
        gate = process.queue_faults.hold_before_next("send")
        await world.clock.advance(6.0)
        assert gate.reached.is_set()
        assert world.table.triggers() == [trigger]
        gate.open()
        await world.clock.settle()
        assert world.table.triggers() == []
        assert world.bodies() == ["hello"]

    async def test_entries_that_sqs_refused_are_sent_again_and_only_they(self, world: World) -> None:
        (process,) = world.start("p")
        await world.store(*[world.trigger(world.now_ms + 5_000, str(i)) for i in range(10)])
        process.queue_faults.fail_entries_next("send", [2, 5])
        await world.until_empty()
        assert sorted(world.bodies()) == [str(i) for i in range(10)]
        assert process.sends() == [10, 2]

    async def test_a_removal_that_fails_is_repeated_and_the_job_not_sent_again(self, world: World) -> None:
        (process,) = world.start("p")
        await world.store(*[world.trigger(world.now_ms + 5_000, str(i)) for i in range(10)])
        process.table_faults.fail_next("remove", Throttled("slow down"), times=3)
        process.table_faults.fail_entries_next("remove", [0, 9])
        await world.until_empty()
        assert sorted(world.bodies()) == [str(i) for i in range(10)]
        assert process.dispatcher.snapshot().read_ahead_jobs == 0

    async def test_a_job_whose_removal_takes_long_is_not_read_and_sent_again(self, world: World) -> None:
        (process,) = world.start("p")
        trigger = await world.add(world.now_ms + 5_000)
        process.table_faults.go_down(Unavailable("no response"), verb="remove")
        await world.clock.advance(30.0)
        assert await world.table.report_late(0, world.bucket())
        await world.clock.advance(30.0)
        assert world.table.triggers() == [trigger]
        process.table_faults.come_up()
        await world.until_empty()
        assert world.bodies() == ["hello"]

    async def test_an_error_that_needs_an_operator_ends_the_run(self, world: World) -> None:
        (process,) = world.start("p")
        await world.add(world.now_ms + 5_000)
        process.table_faults.go_down(AccessDenied("dynamodb:BatchWriteItem"), verb="remove")
        await world.clock.run_until(process.task.done)
        with pytest.raises(AccessDenied):
            await process.task


class TestTombstones:
    async def test_a_job_cancelled_before_it_is_ingested_is_not_sent(self, world: World) -> None:
        (process,) = world.start("p")
        await world.until_owned()
        trigger = world.trigger(world.now_ms + 20_000)
        assert await world.table.cancel(trigger.key) is Cancelled.CANCELLED
        await world.store(trigger)
        other = await world.add(world.now_ms + 20_000, "other")
        await world.until_empty()
        assert world.bodies() == ["other"]
        assert process.tallied() == Counts(delivered=1), "the API has counted the cancel"
        assert (await world.table.find(trigger.key)).tombstone is not None, "the tombstone stays"
        assert other.key != trigger.key

    async def test_a_tombstone_at_the_end_of_a_page_stops_the_trigger_on_the_next(self, make_world: MakeWorld) -> None:
        world = make_world(page_jobs_max=1)
        world.start("p")
        await world.until_owned()
        trigger = world.trigger(world.now_ms + 20_000)
        assert await world.table.cancel(trigger.key) is Cancelled.CANCELLED
        await world.store(trigger)
        await world.until_empty()
        assert world.landed == []

    async def test_what_was_read_can_no_longer_be_cancelled(self, world: World) -> None:
        """The mark covers whatever is in memory, at every moment; so a cancel that succeeds is always in time."""
        (process,) = world.start("p")
        await world.until_owned()
        triggers = [world.trigger(world.now_ms + 5_000 + 100 * i, str(i)) for i in range(100)]
        await world.store(*triggers)
        cancelled = set()
        for i, trigger in enumerate(triggers):
            await world.clock.advance(0.13)
            if await world.table.cancel(trigger.key) is Cancelled.CANCELLED:
                cancelled.add(str(i))
        await world.until_empty()
        assert 10 < len(cancelled) < 90
        assert sorted(world.bodies(), key=int) == [str(i) for i in range(100) if str(i) not in cancelled]
        assert process.dispatcher.snapshot().read_ahead_jobs == 0


class TestBrokenRecords:
    async def test_a_record_that_is_no_job_goes_to_the_dead_letter_queue_with_the_reason(self, world: World) -> None:
        (process,) = world.start("p")
        good = world.trigger(world.now_ms + 5_000)
        key = TriggerKey(good.key.due_at_ms, b"x" * 12, 0)
        await world.store(good, Trigger(key, good.token, b'{"not": "a job"}'))
        process.queue_faults.take_down(DLQ, Unavailable("no response"))
        await world.clock.advance(10.0)
        assert [trigger.key for trigger in world.table.triggers()] == [key], "not acknowledged yet"
        process.queue_faults.come_up()
        await world.until_empty()
        (dead_letter,) = (read_dead_letter(message) for message in world.queues.peek(DLQ))
        assert dead_letter.body == '{"not": "a job"}'
        assert "not a job record" in dead_letter.reason
        assert world.bodies() == ["hello"]
        assert process.tallied() == Counts(delivered=1, dead_lettered=1)

    async def test_a_record_that_is_no_trigger_is_left_alone_and_blocks_nothing(self, world: World) -> None:
        (process,) = world.start("p")
        due = world.now_ms + 5_000
        await world.add(due)
        world.table.spoil(TriggerKey(due, b"\0" * 12, 0))
        bucket = world.bucket(due)
        await world.until_empty()
        await world.clock.run_until(lambda: world.record().retired_before > bucket)
        assert (bucket, 0) in await world.table.buckets()
        assert process.dispatcher.snapshot().undecodable == 1


class TestBurst:
    async def test_more_than_a_lane_holds_goes_out_without_waiting_for_a_tick(self, make_world: MakeWorld) -> None:
        world = make_world(lane_waiting_max=100, page_jobs_max=25, shard_count=8)
        (process,) = world.start("p")
        await world.until_owned()
        due = world.now_ms + 8_000
        await world.store(*[world.trigger(due, str(i), shard=i % 8) for i in range(4_000)])
        for faults in (process.queue_faults, process.table_faults):
            faults.takes_s = 0.01
        await world.until_empty(within_s=60.0)
        assert sorted(map(int, world.bodies())) == list(range(4_000))
        # Eight calls of ten jobs under way at once, each of 10 ms: half a second, were nothing else to be done.
        assert max(landed.at_ms for landed in world.landed) < due + 1_500


class TestFailingDestination:
    async def test_it_delays_no_other_and_its_jobs_arrive_after_recovery(self, make_world: MakeWorld) -> None:
        world = make_world(lane_waiting_max=20, backoff_max_s=2.0)
        (process,) = world.start("p")
        start = world.now_ms + 5_000
        failing = [world.trigger(start + 10 * i, f"a{i:03}", queue="a", shard=i % 4) for i in range(300)]
        healthy = [world.trigger(start + 10 * i + 5, f"b{i:03}", queue="b", shard=i % 4) for i in range(300)]
        await world.store(*failing, *healthy)
        process.queue_faults.take_down("a", Unavailable("no response"))
        await world.clock.advance(20.0)
        late_ms = [landed.at_ms - start - 10 * int(landed.body[1:]) - 5 for landed in world.landed]
        assert late_ms == [0] * 300
        assert process.dispatcher.snapshot().full_queues == ["a"]
        assert process.dispatcher.snapshot().read_ahead_jobs <= 20 + 8 * 10, "the rest stays in the store"
        process.queue_faults.come_up()
        await world.until_empty(within_s=60.0)
        assert sorted(world.bodies("a")) == [f"a{i:03}" for i in range(300)]

    async def test_what_was_evicted_is_found_though_a_later_one_is_evicted_meanwhile(
        self, make_world: MakeWorld
    ) -> None:
        """The scan that reads "a" again is among jobs of "b" when "a" has no room any more, for jobs due much later."""
        world = make_world(lane_waiting_max=10, lane_in_flight_max=1, page_jobs_max=4, backoff_max_s=1.0, shard_count=1)
        (p,) = world.start("p")
        await world.until_owned()
        start = world.now_ms + 8_000
        await world.store(
            *[world.trigger(start + i, "first") for i in range(25)],
            *[world.trigger(start + 100 + i, queue="b") for i in range(60)],
            *[world.trigger(start + 200 + i, "beyond") for i in range(5)],
            *[world.trigger(start + 4_000, "meanwhile") for _ in range(40)],
        )
        p.queue_faults.go_down(Unavailable("no response"), verb="send")
        await world.clock.advance(9.5)
        p.queue_faults.come_up()
        p.queue_faults.take_down("b", Unavailable("no response"))
        reader = p.dispatcher._readers[0]
        for _ in range(1_000):
            read = p.table_faults.hold_before_next("read")
            await world.clock.run_until(read.reached.is_set, within_s=3.0)
            reread = reader.plan.last_read
            assert reread is not None
            if reread.state is State.EVICTED and start + 100 < reread.scan.passed_ms < start + 150:
                break
            read.open()
        assert reread is not None
        assert reread.queues == frozenset({"a"})
        send = p.queue_faults.hold_before_next("send")
        while p.dispatcher.snapshot().full_queues != ["a", "b"]:
            await world.clock.advance(0.1)
            assert world.now_ms < start + 30_000
        assert "beyond" not in world.bodies()
        read.open()
        send.open()
        await world.clock.advance(5.0)
        assert Counter(world.bodies("a")) == {"first": 25, "beyond": 5, "meanwhile": 40}

    async def test_the_oldest_go_first_after_recovery(self, make_world: MakeWorld) -> None:
        world = make_world(lane_waiting_max=20, lane_in_flight_max=1, shard_count=1, backoff_max_s=1.0)
        (p,) = world.start("p")
        await world.until_owned()
        start = world.now_ms + 5_000
        await world.store(*[world.trigger(start + 10 * i, str(i)) for i in range(2_000)])
        p.queue_faults.take_down("a", Unavailable("no response"))
        await world.clock.advance(10.0)
        p.queue_faults.come_up()
        while world.table.triggers():
            gate = p.queue_faults.hold_before_next("send")  # each call takes a while, so the lane is full for long
            await world.clock.run_until(gate.reached.is_set, within_s=5.0)
            await world.clock.advance(0.03)
            gate.open()
            await world.clock.settle()
            assert world.now_ms < start + 60_000
        order = [int(body) for body in world.bodies()]
        assert sorted(order) == list(range(2_000))
        assert max(abs(place - job) for place, job in enumerate(order)) <= 50, "some two lanes full"

    async def test_a_full_lane_is_not_read_for_again_and_again(self, make_world: MakeWorld) -> None:
        world = make_world(lane_waiting_max=20, shard_count=1)
        (process,) = world.start("p")
        await world.store(*[world.trigger(world.now_ms + 5_000) for _ in range(300)])
        process.queue_faults.take_down("a", Unavailable("no response"))
        await world.clock.advance(10.0)
        before = process.reads()
        await world.clock.advance(20.0)
        assert process.reads() - before <= 22, "the forward read of each tick, and a bucket's end"

    async def test_a_deleted_queue_ends_in_the_dead_letter_queue(self, make_world: MakeWorld) -> None:
        world = make_world(lane_waiting_max=20, retry_budget_s=10.0, backoff_max_s=2.0)
        world.start("p")
        world.queues.remove("a")
        due = world.now_ms + 5_000
        await world.store(*[world.trigger(due, str(i)) for i in range(150)])
        await world.until_empty()
        dead_letters = [read_dead_letter(message) for message in world.queues.everything(DLQ)]
        assert len(dead_letters) == 150
        assert all(UnknownQueue.__name__ in dead_letter.reason for dead_letter in dead_letters)

    async def test_many_failing_destinations_leave_memory_for_the_others(self, make_world: MakeWorld) -> None:
        world = make_world(read_ahead_jobs_max=100, page_jobs_max=10)
        for i in range(12):
            world.queues.create(f"bad{i}")
        (process,) = world.start("p")
        for i in range(12):
            process.queue_faults.take_down(f"bad{i}", Unavailable("no response"))
        due = world.now_ms + 5_000
        await world.store(*[world.trigger(due + i, queue=f"bad{i % 12}", shard=i % 4) for i in range(600)])
        await world.store(*[world.trigger(due + 20_000 + i, queue="b", shard=i % 4) for i in range(100)])
        await world.clock.advance(40.0)
        assert len(world.bodies("b")) == 100
        assert max(landed.at_ms for landed in world.landed) <= due + 20_000 + 2_000


class TestMemory:
    async def test_the_bound_is_never_passed_and_everything_goes_out(self, make_world: MakeWorld) -> None:
        world = make_world(read_ahead_jobs_max=120, page_jobs_max=30, shard_count=8)
        (process,) = world.start("p")
        due = world.now_ms + 8_000
        await world.store(*[world.trigger(due + i // 10, str(i), shard=i % 8) for i in range(2_000)])
        most = 0
        while world.table.triggers():
            await world.clock.advance(0.01)
            most = max(most, process.dispatcher.snapshot().read_ahead_jobs)
            assert world.now_ms < due + 600_000
        assert 60 < most <= 120
        assert sorted(map(int, world.bodies())) == list(range(2_000))

    async def test_large_jobs_take_the_room_of_many(self, make_world: MakeWorld) -> None:
        world = make_world(read_ahead_jobs_max=220, page_jobs_max=5, shard_count=4)
        (process,) = world.start("p")
        due = world.now_ms + 8_000
        body = "x" * 10 * SLOT_BYTES
        await world.store(*[world.trigger(due + i, body, shard=i % 4) for i in range(200)])
        most = 0
        while world.table.triggers():
            await world.clock.advance(0.01)
            most = max(most, process.dispatcher.snapshot().read_ahead_jobs)
            assert world.now_ms < due + 600_000
        # 220 places hold 20 jobs of eleven places each, and each shard may have had one page under way.
        assert 10 < most <= 20 + 4 * 5
        assert len(world.bodies()) == 200

    async def test_one_busy_shard_leaves_room_for_the_others(self, make_world: MakeWorld) -> None:
        world = make_world(read_ahead_jobs_max=200, page_jobs_max=20)
        (process,) = world.start("p")
        await world.until_owned()
        due = world.now_ms + 8_000
        await world.store(*[world.trigger(due, "busy", shard=0) for _ in range(1_000)])
        await world.clock.run_until(lambda: process.dispatcher.snapshot().read_ahead_jobs > 80)
        quiet_ms = world.now_ms + 1_500
        assert quiet_ms < due
        await world.store(*[world.trigger(quiet_ms, "quiet", queue="b", shard=shard) for shard in (1, 2, 3)])
        for shard in (1, 2, 3):
            await world.table.report_late(shard, world.bucket(quiet_ms))
        await world.until_empty()
        assert [landed.at_ms for landed in world.landed if landed.queue == "b"] == [quiet_ms] * 3


class TestBacklog:
    async def test_it_goes_out_oldest_first_in_full_batches(self, make_world: MakeWorld) -> None:
        world = make_world(shard_count=1, page_jobs_max=100, lane_in_flight_max=1)
        start = world.now_ms - 20 * WIDTH_MS
        await world.store(*[world.trigger(start + i * 100, str(i)) for i in range(5_000)])
        (process,) = world.start("p")
        await world.until_empty()
        assert [int(body) for body in world.bodies()] == list(range(5_000))
        assert process.sends().count(10) >= 490
        assert world.landed[-1].at_ms - world.landed[0].at_ms < 10_000

    async def test_a_day_of_empty_buckets_is_read_and_retired_at_once(self, make_world: MakeWorld) -> None:
        world = make_world(shard_count=2)
        (process,) = world.start("p")
        await world.until_owned()
        await world.clock.run_until(lambda: world.record().retired_before > 0)
        await process.kill()
        first_open = world.record().retired_before
        world.clock.step_wall_ms(24 * 3_600_000)
        await world.add(world.now_ms - 3_600_000, "an hour late")
        began_ms = world.now_ms
        world.start("q")
        await world.until_empty()
        assert world.landed[0].at_ms - began_ms < 15_000, "the lease's time and a few ticks"
        await world.clock.advance(3.0)
        for shard in (0, 1):
            assert world.record(shard).retired_before >= first_open + 24 * 60 - 6
