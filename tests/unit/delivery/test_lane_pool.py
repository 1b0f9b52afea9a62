"""`dynein.delivery.lane_pool`, sentence by sentence."""

from __future__ import annotations

import asyncio

import pytest

from dynein.delivery.lane_pool import LanePool
from dynein.errors import Overloaded
from dynein.testing import ManualClock


class FakeLane:
    """A lane that is busy and failing as the test sets it."""

    def __init__(self, destination: str) -> None:
        self.destination = destination
        self.failing = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def idle(self) -> bool:
        return self._idle.is_set()

    def begin(self) -> None:
        self._idle.clear()

    def finish(self) -> None:
        self._idle.set()

    async def drained(self) -> None:
        await self._idle.wait()


def pool_of(lanes_max: int) -> LanePool[FakeLane]:
    return LanePool(lanes_max, FakeLane)


def known(pool: LanePool[FakeLane], destinations: str) -> str:
    """Those of ``destinations``, a letter each, that have a lane."""
    return "".join(destination for destination in destinations if pool.known(destination) is not None)


async def test_a_lane_is_opened_when_first_needed_and_then_kept() -> None:
    pool = pool_of(2)
    assert pool.known("a") is None
    lane = pool.lane("a")
    assert lane.destination == "a"
    assert pool.lane("a") is lane
    assert pool.known("a") is lane
    assert pool.lane("b") is not lane


async def test_for_a_further_one_the_least_recently_used_idle_lane_is_forgotten() -> None:
    pool = pool_of(3)
    for destination in "abc":
        pool.lane(destination)
    pool.lane("a")
    pool.lane("d")
    assert known(pool, "abcd") == "acd"


async def test_asking_what_is_known_is_no_use_of_a_lane() -> None:
    pool = pool_of(2)
    pool.lane("a")
    pool.lane("b")
    assert pool.known("a") is not None
    pool.lane("c")
    assert known(pool, "abc") == "bc"


async def test_a_busy_lane_is_never_forgotten() -> None:
    pool = pool_of(2)
    pool.lane("a").begin()
    pool.lane("b")
    pool.lane("c")
    assert known(pool, "abc") == "ac"


async def test_a_failing_lane_is_remembered_while_there_is_a_healthy_idle_one() -> None:
    pool = pool_of(3)
    pool.lane("a").failing = True
    pool.lane("b").begin()
    pool.lane("c")
    pool.lane("d")
    assert known(pool, "abcd") == "abd"


async def test_of_idle_lanes_that_all_fail_the_least_recently_used_is_forgotten() -> None:
    pool = pool_of(3)
    pool.lane("a").begin()
    for destination in "bc":
        pool.lane(destination).failing = True
    pool.lane("d")
    assert known(pool, "abcd") == "acd"


async def test_without_an_idle_lane_there_is_no_room_for_another() -> None:
    pool = pool_of(2)
    assert pool.has_room()
    lanes = [pool.lane(destination) for destination in "ab"]
    assert pool.has_room(), "an idle one makes room"
    for lane in lanes:
        lane.begin()
    assert not pool.has_room()
    with pytest.raises(Overloaded, match="2 destination queues"):
        pool.lane("c")
    assert known(pool, "abc") == "ab", "and none was forgotten for it"
    assert pool.lane("a") is lanes[0], "one that is open is there all the same"
    lanes[1].finish()
    assert pool.has_room()
    pool.lane("c")
    assert known(pool, "abc") == "ac"


async def test_it_is_drained_once_all_its_lanes_are_idle() -> None:
    pool = pool_of(3)
    a, b, _ = (pool.lane(destination) for destination in "abc")
    a.begin()
    b.begin()
    draining = asyncio.ensure_future(pool.drained())
    await ManualClock().settle()
    assert not draining.done()
    a.finish()
    await ManualClock().settle()
    assert not draining.done()
    a.begin()
    b.finish()
    await ManualClock().settle()
    assert not draining.done(), "a lane that has become busy meanwhile counts"
    a.finish()
    await draining


async def test_a_pool_without_lanes_is_drained() -> None:
    await pool_of(1).drained()
