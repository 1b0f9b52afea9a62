"""Who sends for a shard: joining, leaving, dying, freezing, and handing over."""

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from dynein.errors import AccessDenied, Unavailable
from tests.unit.scheduler.world import Process, World

MakeWorld = Callable[..., World]


def shares(world: World) -> dict[str | None, int]:
    return dict(Counter(world.owners()))


class TestSharing:
    async def test_a_lone_dispatcher_owns_everything_at_once(self, make_world: MakeWorld) -> None:
        world = make_world(shard_count=16)
        (process,) = world.start("p")
        await world.clock.advance(0.1)
        assert process.shards == list(range(16))
        assert process.telemetry.leases._value.get() == 16

    async def test_a_newcomer_gets_its_share_within_seconds(self, make_world: MakeWorld) -> None:
        world = make_world(shard_count=16)
        world.start("p")
        await world.until_owned()
        world.start("q")
        await world.clock.advance(5.0)
        assert shares(world) == {"p": 8, "q": 8}
        world.start("r")
        await world.clock.advance(5.0)
        assert sorted(shares(world).values()) == [5, 5, 6]
        before = world.owners()
        await world.clock.advance(60.0)
        assert world.owners() == before, "no flapping"

    async def test_shards_added_live_are_taken_and_read(self, world: World) -> None:
        processes = world.start("p", "q")
        await world.clock.advance(10.0)
        world.table.raise_shard_count(10)
        await world.add(world.now_ms + 8_000, shard=9)
        await world.clock.advance(4.0)
        assert shares(world) == {"p": 5, "q": 5}
        await world.until_empty(within_s=10.0)
        assert world.landed[0].at_ms == world.now_ms
        assert sorted(shard for process in processes for shard in process.shards) == list(range(10))

    async def test_jobs_in_a_shard_that_changes_owners_are_sent_once(self, make_world: MakeWorld) -> None:
        world = make_world(shard_count=8)
        world.start("p")
        await world.until_owned()
        start = world.now_ms + 8_000
        triggers = [world.trigger(start + 20 * i, str(i), shard=i % 8) for i in range(1_000)]
        await world.store(*triggers)
        await world.clock.advance(12.0)
        (q,) = world.start("q")
        await world.clock.advance(5.0)
        assert len(q.shards) == 4
        await world.until_empty()
        assert Counter(map(int, world.bodies())) == Counter(range(1_000))
        late_ms = [landed.at_ms - start - 20 * int(landed.body) for landed in world.landed]
        assert min(late_ms) == 0
        assert max(late_ms) < 3_000


class TestDying:
    async def test_a_dead_dispatcher_s_shards_are_taken_once_its_lease_is_stale(self, world: World) -> None:
        p, q = world.start("p", "q")
        await world.clock.advance(10.0)
        dead_shards = p.shards
        await p.kill()
        await world.store(*[world.trigger(world.now_ms + 5_000, str(shard), shard=shard) for shard in range(4)])
        killed_ms = world.now_ms
        await world.clock.advance(world.settings.lease_ttl_s - 1.5)
        assert set(world.bodies()) == {str(shard) for shard in range(4) if shard not in dead_shards}
        await world.until_empty()
        assert sorted(world.bodies()) == ["0", "1", "2", "3"]
        assert world.now_ms - killed_ms <= (world.settings.lease_ttl_s + 2 * world.settings.tick_s + 1) * 1000
        assert q.shards == [0, 1, 2, 3]

    async def test_what_was_sent_and_not_removed_is_all_that_is_sent_twice(self, world: World) -> None:
        (p,) = world.start("p")
        await world.until_owned()
        start = world.now_ms + 8_000
        await world.store(*[world.trigger(start + i, str(i), shard=i % 4) for i in range(3_000)])
        await world.clock.advance(9.5)
        p.table_faults.go_down(Unavailable("no response"), verb="remove")
        await world.clock.advance(0.1)
        await p.kill()
        sent_not_removed = Counter(world.bodies()) & Counter(
            str(trigger.key.due_at_ms - start) for trigger in world.table.triggers()
        )
        assert sent_not_removed
        world.start("q")
        await world.until_empty()
        twice = {body for body, times in Counter(world.bodies()).items() if times > 1}
        assert twice == set(sent_not_removed)
        assert len(set(world.bodies())) == 3_000

    async def test_one_that_cannot_reach_the_table_does_not_send_after_its_lease(self, world: World) -> None:
        """Nor after another took over, when its destination, down until then, comes up again."""
        p, q = world.start("p", "q")
        await world.clock.advance(10.0)
        shard = p.shards[0]
        due = world.now_ms + 6_000
        await world.store(*[world.trigger(due + i, str(i), shard=shard) for i in range(50)])
        await world.clock.run_until(lambda: p.dispatcher.snapshot().read_ahead_jobs == 50)
        p.table_faults.go_down(Unavailable("partitioned"))
        p.queue_faults.go_down(Unavailable("partitioned"), verb="send")
        cut_off_at = world.clock.monotonic()
        tries: list[float] = []
        seen = len(p.queue_faults.calls)
        while world.table.triggers():
            await world.clock.advance(0.1)
            now_sent = [call for call in p.queue_faults.calls[seen:] if call.verb == "send"]
            seen = len(p.queue_faults.calls)
            tries += [world.clock.monotonic() - cut_off_at] * len(now_sent)
            assert world.clock.monotonic() - cut_off_at < 60
        assert tries, "it did try while it could"
        assert max(tries) <= world.settings.lease_ttl_s - world.settings.call_timeout_s
        assert shard in q.shards
        p.queue_faults.come_up()
        p.table_faults.come_up()
        await world.clock.advance(30.0)
        assert Counter(world.bodies()) == Counter(map(str, range(50)))
        assert sorted(p.shards + q.shards) == [0, 1, 2, 3]
        assert p.telemetry.lease_events.labels("lost")._value.get() >= 1

    async def test_a_short_outage_of_the_table_costs_no_lease_and_no_job(self, world: World) -> None:
        (p,) = world.start("p")
        await world.until_owned()
        fences = [record.fence for record in world.table.shards()]
        due = world.now_ms + 8_000
        await world.store(*[world.trigger(due + 10 * i, str(i), shard=i % 4) for i in range(600)])
        await world.clock.advance(6.0)
        p.table_faults.go_down(Unavailable("no response"))
        await world.clock.advance(7.0)
        assert len(world.landed) < 400, "sending stopped when the lease could no longer be trusted"
        p.table_faults.come_up()
        await world.until_empty()
        assert Counter(world.bodies()) == Counter(map(str, range(600)))
        assert [record.fence for record in world.table.shards()] == fences

    async def test_one_renewal_that_hangs_does_not_stop_the_sending(self, world: World) -> None:
        (p,) = world.start("p")
        await world.until_owned()
        due = world.now_ms + 8_000
        await world.store(*[world.trigger(due + 50 * i, str(i)) for i in range(200)])
        await world.clock.advance(9.5)
        gate = p.table_faults.hold_before_next("renew")
        await world.clock.advance(10.0)
        assert gate.reached.is_set()
        assert [landed.at_ms - due - 50 * int(landed.body) for landed in world.landed] == [0] * len(world.landed)
        assert len(world.landed) > 200 - 20
        gate.open()

    async def test_a_take_whose_response_was_lost_is_taken_again_at_once(self, world: World) -> None:
        (p,) = world.start("p")
        p.table_faults.lose_answer_next("take", Unavailable("no response"), times=4)
        await world.clock.advance(3.0)
        assert p.shards == [0, 1, 2, 3]


class TestStopping:
    async def stop(self, world: World, process: Process) -> float:
        """Ask it to stop; returns how long that took, seconds."""
        began = world.clock.monotonic()
        process.stopping.set()
        await world.clock.run_until(process.task.done)
        await process.task
        return world.clock.monotonic() - began

    async def test_a_successor_owns_the_shards_within_seconds_and_nothing_is_sent_twice(self, world: World) -> None:
        p, q = world.start("p", "q")
        await world.clock.advance(10.0)
        start = world.now_ms + 6_000
        await world.store(*[world.trigger(start + 10 * i, str(i), shard=i % 4) for i in range(1_000)])
        await world.clock.advance(8.0)
        assert await self.stop(world, p) < 1.0
        assert None in world.owners() or set(world.owners()) == {"q"}
        assert "p" not in world.owners()
        await world.clock.advance(3 * world.settings.tick_s)
        assert q.shards == [0, 1, 2, 3]
        await world.until_empty()
        assert Counter(world.bodies()) == Counter(map(str, range(1_000)))

    async def test_sends_under_way_end_and_are_removed_first(self, world: World) -> None:
        (p,) = world.start("p")
        trigger = await world.add(world.now_ms + 5_000)
        other = await world.add(world.now_ms + 7_000)
        gate = p.queue_faults.hold_answer_next("send")
        await world.clock.advance(5.5)
        assert gate.reached.is_set()
        p.stopping.set()
        await world.clock.advance(3.0)
        assert world.owners() == ["p", None, None, None], "only what is still in use"
        gate.open()
        await world.clock.run_until(p.task.done)
        assert world.table.triggers() == [other], "sent ones are removed, others left to the successor"
        assert trigger not in world.table.triggers()
        assert world.owners() == [None] * 4
        assert len(world.landed) == 1
        assert await world.table.members("dispatcher") == {}

    async def test_it_ends_within_the_drain_time_whatever_hangs(self, make_world: MakeWorld) -> None:
        world = make_world(drain_s=4.0)
        (p,) = world.start("p")
        await world.add(world.now_ms + 5_000)
        p.queue_faults.hold_answer_next("send")
        await world.clock.advance(5.5)
        p.table_faults.go_down(Unavailable("no response"))
        assert await self.stop(world, p) <= 4.0

    async def test_a_failing_destination_does_not_hold_up_the_end(self, make_world: MakeWorld) -> None:
        world = make_world(backoff_max_s=5.0)
        (p,) = world.start("p")
        p.queue_faults.take_down("a", Unavailable("no response"))
        await world.store(*[world.trigger(world.now_ms + 5_000) for _ in range(500)])
        await world.clock.advance(30.0)
        tries = len(p.queue_faults.calls)
        await world.clock.run_until(lambda: len(p.queue_faults.calls) > tries)
        assert await self.stop(world, p) < 1.5
        assert world.owners() == [None] * 4
        assert len(world.table.triggers()) == 500

    async def test_it_can_be_stopped_before_it_has_joined(self, world: World) -> None:
        (p,) = world.start("p")
        p.table_faults.go_down(Unavailable("no response"))
        await world.clock.advance(3.0)
        assert await self.stop(world, p) < 10.0

    async def test_an_error_that_needs_an_operator_ends_the_run(self, world: World) -> None:
        (p,) = world.start("p")
        await world.until_owned()
        p.table_faults.go_down(AccessDenied("dynamodb:UpdateItem"), verb="renew")
        await world.clock.run_until(p.task.done)
        with pytest.raises(AccessDenied):
            await p.task

    async def test_so_does_one_that_comes_while_it_drains(self, world: World) -> None:
        (p,) = world.start("p")
        await world.add(world.now_ms + 5_000)
        gate = p.queue_faults.hold_answer_next("send")
        await world.clock.advance(5.5)
        assert gate.reached.is_set()
        p.stopping.set()
        await world.clock.advance(1.0)
        p.table_faults.go_down(AccessDenied("dynamodb:BatchWriteItem"), verb="remove")
        gate.open()
        await world.clock.run_until(p.task.done, within_s=5.0)
        with pytest.raises(AccessDenied):
            await p.task

    async def test_a_cancelled_run_leaves_no_task_behind(self, world: World) -> None:
        before = asyncio.all_tasks()
        (p,) = world.start("p")
        p.queue_faults.take_down("a", Unavailable("no response"))
        p.table_faults.go_down(Unavailable("no response"), verb="remove")
        await world.store(*[world.trigger(world.now_ms + 5_000, queue="ab"[i % 2]) for i in range(100)])
        await world.clock.advance(8.0)
        p.task.cancel()
        await asyncio.gather(p.task, return_exceptions=True)
        calls = len(p.queue_faults.calls)
        await world.clock.advance(20.0)
        assert len(p.queue_faults.calls) == calls
        assert asyncio.all_tasks() == before
        assert len(world.bodies("b")) == 50
