"""Writes of many messages share calls, and a partition that takes none delays its own alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from dynein.core.inbound_message import Arrival
from dynein.core.keys import TriggerKey
from dynein.core.shard_records import Layout
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import LOOKUP_MAX, Found, Tombstone
from dynein.errors import AccessDenied, Throttled
from dynein.ingest.batched_store import CALLS_IN_FLIGHT_MAX, BatchedStore
from dynein.runtime.retry import Backoff, Retry, RetryEnded
from dynein.settings import Settings
from dynein.testing import ManualClock
from tests.unit.hot_partition import HotTable

WIDTH_MS = 60_000
HOT, HEALTHY = 0, 1


class NothingToRead(HotTable):
    """Of a hot shard nothing can be read or claimed."""

    async def tombstones(self, keys: Sequence[TriggerKey]) -> list[Tombstone]:
        if any(key.shard in self.hot for key in keys):
            raise Throttled("hot")
        return await super().tombstones(keys)

    async def find(self, key: TriggerKey) -> Found:
        if key.shard in self.hot:
            raise Throttled("hot")
        return await super().find(key)

    async def claim(self, arrival: Arrival) -> bool:
        if arrival.key.shard in self.hot:
            raise Throttled("hot")
        return await super().claim(arrival)


class Scene:
    """A store of which shard 0 takes no writes."""

    def __init__(self, kind: type[HotTable] = HotTable) -> None:
        self.clock = ManualClock()
        self.table = kind(self.clock, bucket_width_ms=WIDTH_MS, shard_count=2)
        self.table.hot = frozenset([HOT])
        self.ended = asyncio.Event()
        retry = Retry(self.clock, random.Random(3), Backoff(0.05, 5.0), ended=self.ended)
        self.store = BatchedStore(self.table, Layout(WIDTH_MS, 2, 2), retry, Settings())
        self._jobs = 0
        self._due_at_ms = self.clock.now_ms() + 600_000

    def triggers(self, shard: int, count: int) -> list[Trigger]:
        keys = []
        for _ in range(count):
            self._jobs += 1
            keys.append(TriggerKey(self._due_at_ms, self._jobs.to_bytes(12, "big"), shard))
        return [Trigger(key, "token", b"record") for key in keys]


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_writes_to_a_healthy_partition_do_not_wait_for_one_that_takes_none(scene: Scene) -> None:
    hot = asyncio.ensure_future(scene.store.add(scene.triggers(HOT, 1000)))
    await scene.clock.advance(1.0)
    await asyncio.wait_for(scene.store.add(scene.triggers(HEALTHY, 25)), 10)
    assert {trigger.key.shard for trigger in scene.table.triggers()} == {HEALTHY}
    assert not hot.done()
    scene.table.hot = frozenset()
    await scene.clock.result_of(hot, within_s=20)
    assert len(scene.table.triggers()) == 1025


async def test_what_a_mixed_batch_has_written_is_settled(scene: Scene) -> None:
    hot, healthy = scene.triggers(HOT, 5), scene.triggers(HEALTHY, 5)
    waiting = asyncio.ensure_future(scene.store.add(hot))
    await asyncio.wait_for(scene.store.add(healthy), 10)
    await scene.clock.advance(30.0)
    assert not waiting.done()
    waiting.cancel()


async def test_removals_of_a_healthy_partition_do_not_wait_either(scene: Scene) -> None:
    scene.table.hot = frozenset()
    hot, healthy = scene.triggers(HOT, 300), scene.triggers(HEALTHY, 25)
    await scene.store.add(hot + healthy)
    scene.table.hot = frozenset([HOT])
    waiting = [asyncio.ensure_future(scene.store.remove(trigger.key)) for trigger in hot]
    await scene.clock.advance(1.0)
    removing = asyncio.gather(*[scene.store.remove(trigger.key) for trigger in healthy])
    await asyncio.wait_for(removing, 10)
    scene.table.hot = frozenset()
    await scene.clock.run_until(lambda: all(task.done() for task in waiting), within_s=20)
    assert scene.table.triggers() == []


async def test_a_hot_partition_is_tried_at_its_own_pace_however_much_waits_for_it(scene: Scene) -> None:
    waiting = asyncio.ensure_future(scene.store.add(scene.triggers(HOT, 2000)))
    await scene.clock.advance(60.0)
    refusals = scene.table.refusals
    more = asyncio.ensure_future(scene.store.add(scene.triggers(HOT, 500)))
    await scene.clock.advance(60.0)
    assert 0 < scene.table.refusals - refusals <= 25 * 60 / 2.5, "a batch at each end of a pause, and nothing else"
    for task in (waiting, more):
        task.cancel()


async def test_what_waits_for_a_partition_ends_with_the_run(scene: Scene) -> None:
    waiting = asyncio.ensure_future(scene.store.add(scene.triggers(HOT, 30)))
    await scene.clock.advance(1.0)
    scene.ended.set()
    with pytest.raises(RetryEnded):
        await asyncio.wait_for(waiting, 10)


async def test_an_error_that_needs_an_operator_reaches_those_that_wait_for_a_partition(scene: Scene) -> None:
    waiting = asyncio.ensure_future(scene.store.add(scene.triggers(HOT, 30)))
    await scene.clock.advance(1.0)
    scene.table.hot = frozenset()
    scene.table.faults.go_down(AccessDenied("denied"), verb="add")
    with pytest.raises(AccessDenied):
        await scene.clock.result_of(waiting, within_s=20)


async def test_reads_and_claims_that_are_tried_again_keep_no_other_waiting() -> None:
    scene = Scene(NothingToRead)
    store = scene.store
    keys = [trigger.key for trigger in scene.triggers(HOT, 2 * CALLS_IN_FLIGHT_MAX * LOOKUP_MAX)]
    waiting = [asyncio.ensure_future(store.find(key)) for key in keys[: 2 * CALLS_IN_FLIGHT_MAX]]
    looking_up = asyncio.ensure_future(store.tombstones(keys))
    await scene.clock.advance(1.0)
    (healthy,) = scene.triggers(HEALTHY, 1)
    assert await asyncio.wait_for(store.tombstones([healthy.key]), 10) == [None]
    assert await asyncio.wait_for(store.find(healthy.key), 10) == Found(None, None)
    assert await asyncio.wait_for(store.claim(Arrival(healthy, "create", prepared=True)), 10)
    for task in (*waiting, looking_up):
        task.cancel()
