"""No trigger is stranded: late writes are found, and buckets are retired only when that is safe."""

from collections import Counter
from collections.abc import Callable

from dynein.core.keys import bucket_of
from dynein.core.shard_records import NEW_SHARD_LOOK_BACK_MS
from dynein.core.trigger import Trigger
from dynein.errors import Unavailable
from dynein.scheduler.read_states import State
from tests.unit.scheduler.world import WIDTH_MS, World

MakeWorld = Callable[..., World]


async def store_late(world: World, trigger: Trigger) -> bool:
    """What an ingester does whose write came behind the read mark."""
    await world.store(trigger)
    return await world.table.report_late(trigger.key.shard, bucket_of(trigger.key.due_at_ms, WIDTH_MS))


class TestLateWrites:
    async def test_one_that_is_due_soon_is_sent_on_time(self, world: World) -> None:
        world.start("p")
        await world.clock.advance(5.0)
        trigger = world.trigger(world.now_ms + 2_500)
        assert await store_late(world, trigger)
        await world.until_empty(within_s=5.0)
        assert world.landed[0].at_ms == trigger.key.due_at_ms

    async def test_one_that_is_overdue_in_an_old_open_bucket_is_sent_at_the_next_tick(self, world: World) -> None:
        world.start("p")
        await world.clock.advance(400.0)
        trigger = world.trigger(world.now_ms - 250_000)
        assert await store_late(world, trigger)
        written_ms = world.now_ms
        await world.until_empty(within_s=5.0)
        assert world.landed[0].at_ms - written_ms <= 1_500

    async def test_one_written_behind_a_page_being_read_is_found(self, make_world: MakeWorld) -> None:
        world = make_world(shard_count=1, page_jobs_max=10)
        (p,) = world.start("p")
        await world.until_owned()
        due = world.now_ms + 8_000
        await world.store(*[world.trigger(due + 100 + i, str(i)) for i in range(50)])
        await world.clock.run_until(lambda: p.dispatcher.snapshot().read_ahead_jobs > 0)
        gate = p.table_faults.hold_before_next("read")
        await world.clock.run_until(gate.reached.is_set)
        assert await store_late(world, world.trigger(due, "late"))
        await world.clock.advance(1.2)
        gate.open()
        await world.until_empty(within_s=20.0)
        assert Counter(world.bodies()) == Counter(["late", *map(str, range(50))])

    async def test_one_moved_there_is_found_though_its_count_shows_before_it_does(self, world: World) -> None:
        """A move is a transaction, and a read may see it half done: the count of late writes, not yet the trigger."""
        world.start("p")
        await world.clock.advance(5.0)
        trigger = world.trigger(world.now_ms)
        assert await world.table.report_late(0, world.bucket(trigger.key.due_at_ms))
        seen = world.record().heartbeat
        await world.clock.run_until(lambda: world.record().heartbeat > seen)
        await world.clock.advance(0.3)
        await world.store(trigger)
        await world.until_empty(within_s=2.0)
        assert len(world.landed) == 1

    async def test_one_moved_there_is_found_though_its_count_shows_before_it_does_to_a_new_owner(
        self, world: World
    ) -> None:
        """Found by the simulation, seed 9412: the count was in the record that the new owner took, so no news to it."""
        (p,) = world.start("p")
        await world.clock.advance(5.0)
        p.stopping.set()
        await world.clock.result_of(p.task)
        trigger = world.trigger(world.now_ms)
        assert await world.table.report_late(0, world.bucket(trigger.key.due_at_ms))
        (q,) = world.start("q")
        await world.until_owned()
        await world.clock.run_until(lambda: q.reads() > 0)
        await world.clock.advance(0.3)
        await world.store(trigger)
        await world.until_empty(within_s=2.5)
        assert len(world.landed) == 1

    async def test_what_is_buffered_is_not_sent_again(self, world: World) -> None:
        (p,) = world.start("p")
        await world.until_owned()
        await world.store(*[world.trigger(world.now_ms + 8_000, str(i)) for i in range(100)])
        await world.clock.run_until(lambda: p.dispatcher.snapshot().read_ahead_jobs > 0)
        for i in range(5):
            assert await store_late(world, world.trigger(world.now_ms + 1_000, f"late{i}"))
            await world.clock.advance(0.5)
        await world.until_empty()
        assert max(Counter(world.bodies()).values()) == 1
        assert len(world.bodies()) == 105

    async def test_what_is_removed_while_a_read_is_on_its_way_is_not_sent_again(self, make_world: MakeWorld) -> None:
        """The page read still shows the trigger; by the time it arrives, that is sent and removed."""
        world = make_world(shard_count=1)
        (p,) = world.start("p")
        await world.until_owned()
        bucket = world.bucket((await world.add(world.now_ms + 9_000, "once")).key.due_at_ms)
        await world.clock.advance(6.5)
        reader = p.dispatcher._readers[0]
        await world.table.report_late(0, bucket)
        while True:
            gate = p.table_faults.hold_answer_next("read")
            await world.clock.run_until(gate.reached.is_set, within_s=3.0)
            read = reader.plan.last_read
            if read is not None and read.state is not State.FORWARD and read.scan.request.bucket == bucket:
                break
            gate.open()
        assert world.landed == []
        while world.table.triggers():
            await world.clock.advance(0.1)
        gate.open()
        await world.clock.advance(10.0)
        assert world.bodies() == ["once"]

    async def test_counted_before_a_takeover_it_is_found_after(self, world: World) -> None:
        (p,) = world.start("p")
        await world.clock.advance(100.0)
        await p.kill()
        assert await store_late(world, world.trigger(world.now_ms - 30_000))
        world.start("q")
        await world.until_empty(within_s=20.0)
        assert len(world.landed) == 1

    async def test_a_failed_read_is_repeated(self, world: World) -> None:
        (p,) = world.start("p")
        await world.until_owned()
        await world.store(*[world.trigger(world.now_ms + 8_000 + i, str(i), shard=i % 4) for i in range(100)])
        await world.clock.advance(5.0)
        p.table_faults.fail_next("read", Unavailable("no answer"), times=6)
        await world.until_empty()
        assert Counter(world.bodies()) == Counter(map(str, range(100)))
        assert max(landed.at_ms for landed in world.landed) == world.now_ms


class TestRetiring:
    async def test_a_bucket_is_retired_after_its_grace_and_not_before(self, world: World) -> None:
        world.start("p")
        await world.clock.advance(60.0)
        bucket = world.bucket()
        end_ms = (bucket + 1) * WIDTH_MS
        grace_ms = int(world.settings.retire_grace_s * 1000)
        await world.clock.run_until(lambda: world.record().retired_before > bucket)
        assert 0 < world.now_ms - (end_ms + grace_ms) <= 3_000

    async def test_every_bucket_is_retired_in_its_time_with_few_reads(self, make_world: MakeWorld) -> None:
        world = make_world(shard_count=1)
        (p,) = world.start("p")
        await world.clock.advance(600.0)
        before, reads = world.record().retired_before, p.reads()
        await world.clock.advance(1_200.0)
        assert world.record().retired_before == before + 20
        assert p.reads() - reads <= 1_200 + 2 * 20 + 5, "one a tick, and two a bucket: across its end, and to retire it"

    async def test_one_that_holds_a_trigger_is_not_retired(self, world: World) -> None:
        (p,) = world.start("p")
        trigger = await world.add(world.now_ms + 5_000)
        p.table_faults.go_down(Unavailable("no answer"), verb="remove")
        bucket = world.bucket(trigger.key.due_at_ms)
        await world.clock.advance(world.settings.retire_grace_s + 200)
        assert world.record(0).retired_before == bucket
        assert world.record(1).retired_before > bucket
        p.table_faults.come_up()
        await world.clock.advance(20.0)
        assert world.record(0).retired_before > bucket

    async def test_one_whose_jobs_wait_for_their_destination_is_not_retired(self, make_world: MakeWorld) -> None:
        world = make_world(lane_waiting_max=10, retry_budget_s=2_000.0, lane_in_flight_max=1)
        (p,) = world.start("p")
        p.queue_faults.take_down("a", Unavailable("no answer"))
        triggers = [world.trigger(world.now_ms + 5_000, str(i)) for i in range(50)]
        await world.store(*triggers)
        await world.clock.advance(700.0)
        reads = p.reads()
        await world.clock.advance(100.0)
        assert p.reads() - reads < 4 * 110, "nor read for nothing at every tick"
        assert world.record(0).retired_before == world.bucket(triggers[0].key.due_at_ms)
        p.queue_faults.come_up()
        await world.until_empty()
        assert Counter(world.bodies()) == Counter(map(str, range(50)))

    async def test_a_late_write_counted_after_the_read_keeps_it_open(self, make_world: MakeWorld) -> None:
        """The write comes between the empty read and the renewal that would retire the bucket."""
        world = make_world(shard_count=1)
        (p,) = world.start("p")
        await world.clock.advance(60.0)
        bucket = world.bucket()
        trigger = world.trigger(bucket * WIDTH_MS + 30_000, "late")
        grace_end_ms = (bucket + 1) * WIDTH_MS + int(world.settings.retire_grace_s * 1000)
        await world.clock.advance((grace_end_ms - world.now_ms - 500) / 1000)
        assert world.record().retired_before == bucket
        reader = p.dispatcher._readers[0]
        while True:
            gate = p.table_faults.hold_before_next("renew")
            await world.clock.run_until(gate.reached.is_set, within_s=10.0)
            if reader.plan._retirement.asked > bucket:
                break
            gate.open()
        assert await store_late(world, trigger), "it learns that the bucket is open"
        gate.open()
        await world.clock.settle()
        assert world.record().retired_before == bucket
        await world.until_empty(within_s=5.0)
        assert world.bodies() == ["late"]
        await world.clock.advance(5.0)
        assert world.record().retired_before > bucket

    async def test_steady_late_writes_do_not_keep_buckets_open_for_ever(self, make_world: MakeWorld) -> None:
        world = make_world(shard_count=1)
        world.start("p")
        await world.clock.advance(400.0)
        before = world.record().retired_before
        for i in range(2_400):
            assert await world.table.report_late(0, world.bucket() + (i % 2))
            await world.clock.advance(0.25)
        assert world.record().retired_before >= before + 8

    async def test_a_renewal_between_ticks_does_not_put_off_the_next_read_mark(self, world: World) -> None:
        (p,) = world.start("p")
        await world.clock.advance(5.3)
        lease = p.dispatcher._readers[0].lease
        for _ in range(20):
            await p.dispatcher._keeper.renew(lease, read_on=False)
            before = world.record().read_mark_ms
            await world.clock.advance(world.settings.tick_s)
            assert world.record().read_mark_ms - before == world.settings.tick_s * 1000

    async def test_tombstones_do_not_keep_a_bucket_open(self, world: World) -> None:
        world.start("p")
        await world.until_owned()
        trigger = await world.add(world.now_ms + 20_000)
        await world.table.cancel(trigger.key)
        await world.clock.advance(world.settings.retire_grace_s + 200)
        assert world.record(0).retired_before > world.bucket(trigger.key.due_at_ms)


class TestBeginning:
    async def test_a_new_shard_begins_with_what_lies_within_the_look_back(self, make_world: MakeWorld) -> None:
        world = make_world(shard_count=2)
        await world.add(world.now_ms - NEW_SHARD_LOOK_BACK_MS, "an hour")
        await world.add(world.now_ms - 60_000, "a minute", shard=1)
        (p,) = world.start("p")
        await world.until_empty(within_s=10.0)
        assert sorted(world.bodies()) == ["a minute", "an hour"]
        assert p.reads() < 300, "and not with 1970"
