"""Due triggers whose lane is full: parked in order, let in as the lane drains, evicted when that takes too long."""

from __future__ import annotations

from typing import cast

import pytest

from dynein.core.job import Job
from dynein.core.keys import TriggerKey
from dynein.core.trigger import Trigger
from dynein.delivery.delivery import Delivery
from dynein.scheduler.memory_budget import LaneShares, MemoryBudget
from dynein.scheduler.overflow import PARKED_MAX_S, Overflow
from dynein.scheduler.shard_buffer import BufferedTrigger, ShardBuffer
from dynein.testing import ManualClock

SLOTS_MAX = 100


class Validity:
    """A lease that is valid as long as the test says so."""

    def __init__(self) -> None:
        self.is_valid = True

    def valid(self) -> bool:
        return self.is_valid


class Lanes:
    """What the overflow asks of `Delivery`."""

    def __init__(self) -> None:
        self.when_failing: list[object] = []
        self.failing: set[str] = set()
        self.room = 0

    def has_room(self, queue: str) -> bool:
        del queue
        return self.room > 0

    def is_failing(self, queue: str) -> bool:
        return queue in self.failing


class Scene:
    """An overflow, with eight jobs in the full lane of "a"."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.lanes = Lanes()
        self.memory = MemoryBudget(SLOTS_MAX, 10)
        self.shares = LaneShares(SLOTS_MAX)
        self.sent: list[BufferedTrigger] = []
        self.drained: list[str] = []
        self.overflow = Overflow(
            cast("Delivery", self.lanes), self.shares, self.clock, send=self._send, has_drained=self.drained.append
        )
        for _ in range(8):
            self.shares.enter("a", 1)
        self.lease = Validity()
        self.buffer = self.new_buffer()
        self._jobs = 0

    def new_buffer(self) -> ShardBuffer:
        return ShardBuffer(self.lease, self.memory, self.clock, 1_000)

    def trigger(self, buffer: ShardBuffer | None = None) -> BufferedTrigger:
        self._jobs += 1
        key = TriggerKey(self._jobs, self._jobs.to_bytes(12, "big"), 0)
        buffer = self.buffer if buffer is None else buffer
        self.memory.take_more(1)
        return buffer.add(Trigger(key, "token", b"record"), Job(queue="a", body="hello"))

    def park(self, count: int) -> list[BufferedTrigger]:
        entries = [self.trigger() for _ in range(count)]
        for entry in entries:
            self.overflow.add(entry, "a")
        return entries

    def delivery_ends(self) -> None:
        self.lanes.room += 1
        self.overflow.lane_drained("a", self.shares.leave("a", 1))

    def _send(self, entry: BufferedTrigger, job: Job) -> bool:
        if not self.lanes.room:
            return False
        self.lanes.room -= 1
        self.shares.enter(job.queue, entry.slots)
        self.sent.append(entry)
        return True


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_those_that_wait_go_to_the_lane_in_order_one_for_each_delivery_that_ends(scene: Scene) -> None:
    parked = scene.park(3)
    assert "a" in scene.overflow
    assert len(scene.overflow) == 3
    for count in (1, 2, 3):
        scene.delivery_ends()
        assert scene.sent == parked[:count]
    assert "a" not in scene.overflow
    assert scene.buffer.evicted == {}


def test_one_that_has_left_its_buffer_is_passed_over(scene: Scene) -> None:
    first, second = scene.park(2)
    scene.buffer.drop(first)
    scene.delivery_ends()
    assert scene.sent == [second]


def test_one_whose_lease_has_expired_is_evicted_not_sent(scene: Scene) -> None:
    first, _ = scene.park(2)
    scene.lease.is_valid = False
    scene.delivery_ends()
    assert scene.sent == []
    assert scene.buffer.evicted == {"a": first.trigger.key.due_at_ms}
    assert len(scene.overflow) == 0


def test_a_failing_destination_has_nothing_parked(scene: Scene) -> None:
    first = scene.park(2)[0]
    scene.lanes.failing.add("a")
    (tell,) = scene.lanes.when_failing
    tell("a")  # type: ignore[operator]
    assert "a" not in scene.overflow
    scene.park(1)
    assert "a" not in scene.overflow
    assert scene.buffer.evicted == {"a": first.trigger.key.due_at_ms}
    assert len(scene.buffer) == 0


def test_nothing_waits_for_a_lane_without_a_delivery_that_could_end(scene: Scene) -> None:
    entry = scene.trigger()
    scene.overflow.add(entry, "b")
    assert "b" not in scene.overflow
    assert len(scene.buffer) == 0


async def test_a_slow_destination_keeps_what_is_parked_for_so_long_and_no_longer(scene: Scene) -> None:
    scene.park(1)
    await scene.clock.advance(PARKED_MAX_S / 2)
    scene.park(1)
    scene.overflow.evict_slow()
    assert len(scene.overflow) == 2
    await scene.clock.advance(PARKED_MAX_S / 2 + 0.1)
    scene.overflow.evict_slow()
    assert len(scene.overflow) == 0, "all of them: the oldest go first when they are read again"
    assert list(scene.buffer.evicted) == ["a"]


def test_it_is_read_for_again_once_a_quarter_is_left_in_its_lane(scene: Scene) -> None:
    scene.overflow.evict(scene.trigger(), "a")
    for _ in range(5):
        scene.delivery_ends()
    assert scene.drained == []
    scene.delivery_ends()
    assert scene.drained == ["a"]
    scene.delivery_ends()
    assert scene.drained == ["a"], "once"


def test_whoever_finds_no_room_is_called_when_there_is(scene: Scene) -> None:
    assert not scene.overflow.has_room("a")
    for _ in range(6):
        scene.delivery_ends()
    assert scene.drained == ["a"]
    assert scene.overflow.has_room("a")


def test_a_shard_that_is_given_up_leaves_nothing_behind(scene: Scene) -> None:
    other = scene.new_buffer()
    scene.park(2)
    left = scene.trigger(other)
    scene.overflow.add(left, "a")
    scene.overflow.discard(scene.buffer)
    assert len(scene.overflow) == 1
    scene.delivery_ends()
    assert scene.sent == [left]
