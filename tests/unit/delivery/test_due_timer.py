"""`dynein.delivery.due_timer`, sentence by sentence."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynein.delivery.due_timer import ITEMS_A_TURN_MAX, RECHECK_S, DueTimer
from dynein.testing import ManualClock


class World:
    """A timer, and what it has passed on: each item with its wall time."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.passed_on: list[tuple[str, int]] = []
        self.timer: DueTimer[str] = DueTimer(self.clock, lambda item: self.passed_on.append((item, self.in_ms())))
        self._began_ms = self.clock.now_ms()
        self.running: asyncio.Future[None] | None = None

    def in_ms(self) -> int:
        """Wall time since the test began."""
        return self.clock.now_ms() - self._began_ms

    def add(self, due_in_ms: int, item: str, order: bytes = b"") -> None:
        self.timer.add(self._began_ms + due_in_ms, item, order)

    def due(self, due_in_ms: int) -> bool:
        return self.timer.is_due(self._began_ms + due_in_ms)

    def start(self) -> None:
        self.running = asyncio.ensure_future(self.timer.run())

    async def stop(self) -> None:
        if self.running is not None:
            assert not self.running.done(), "it runs until cancelled"
            self.running.cancel()
            await asyncio.wait([self.running])


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.stop()


async def test_what_is_due_at_once_is_passed_on_in_its_order_however_it_came(world: World) -> None:
    for due_in_ms, order in ((5, b"2"), (5, b"3"), (4, b"9"), (5, b"1")):
        world.add(due_in_ms, f"{due_in_ms} {order.decode()}", order)
    world.start()
    await world.clock.advance(1)
    assert [item for item, _ in world.passed_on] == ["4 9", "5 1", "5 2", "5 3"]


async def test_each_item_is_passed_on_at_its_due_millisecond_in_due_order(world: World) -> None:
    world.start()
    for due_in_ms in (1500, 3, 977, 978, 61_001, 1):
        world.add(due_in_ms, str(due_in_ms))
    await world.clock.advance(62)
    assert world.passed_on == [(str(ms), ms) for ms in (1, 3, 977, 978, 1500, 61_001)]


async def test_among_equals_the_first_in_is_the_first_out(world: World) -> None:
    names = [str(n) for n in range(50)]
    for name in names:
        world.add(1000, name)
    world.start()
    await world.clock.advance(1)
    assert [item for item, _ in world.passed_on] == names


async def test_what_is_overdue_is_passed_on_at_once(world: World) -> None:
    world.start()
    await world.clock.advance(5)
    world.add(-3000, "overdue")
    await world.clock.settle()
    assert world.passed_on == [("overdue", 5000)]


async def test_an_item_due_before_the_one_it_sleeps_for_wakes_it(world: World) -> None:
    world.add(700, "later")
    world.start()
    await world.clock.advance(0.4)
    world.add(500, "sooner")
    await world.clock.advance(1)
    assert world.passed_on == [("sooner", 500), ("later", 700)]


async def test_a_wall_clock_set_back_passes_nothing_on_early(world: World) -> None:
    world.add(800, "a")
    world.start()
    await world.clock.advance(0.5)
    world.clock.step_wall_ms(-10_000)
    await world.clock.advance(20)
    assert world.passed_on == [("a", 800)]


async def test_a_wall_clock_set_forward_is_noticed_at_the_next_recheck(world: World) -> None:
    world.add(60_000, "a")
    world.start()
    await world.clock.advance(0.1)
    world.clock.step_wall_ms(60_000)
    await world.clock.advance(RECHECK_S)
    assert [item for item, _ in world.passed_on] == ["a"]


async def test_an_empty_timer_sleeps_until_there_is_something(world: World) -> None:
    world.start()
    await world.clock.settle()
    assert world.clock.sleepers == 0
    world.add(10, "a")
    await world.clock.advance(0.01)
    assert world.passed_on == [("a", 10)]
    await world.clock.settle()
    assert world.clock.sleepers == 0


async def test_many_due_items_leave_other_tasks_their_turn(world: World) -> None:
    seen: list[int] = []

    async def other() -> None:
        while len(world.passed_on) < 3 * ITEMS_A_TURN_MAX:
            seen.append(len(world.passed_on))
            await world.clock.sleep(0)

    for n in range(3 * ITEMS_A_TURN_MAX):
        world.add(0, str(n))
    watching = asyncio.ensure_future(other())
    world.start()
    await world.clock.settle()
    assert watching.done()
    assert {0, ITEMS_A_TURN_MAX, 2 * ITEMS_A_TURN_MAX} <= set(seen)
    assert len(world.passed_on) == 3 * ITEMS_A_TURN_MAX


async def test_what_on_due_adds_is_passed_on_as_well(world: World) -> None:
    again = ["second", "third"]

    def on_due(item: str) -> None:
        world.passed_on.append((item, world.in_ms()))
        if again:
            timer.add(world.clock.now_ms() + 5, again.pop(0))

    timer: DueTimer[str] = DueTimer(world.clock, on_due)
    timer.add(world.clock.now_ms() + 5, "first")
    running = asyncio.ensure_future(timer.run())
    await world.clock.advance(1)
    assert world.passed_on == [("first", 5), ("second", 10), ("third", 15)]
    running.cancel()


async def test_one_pass_passes_on_what_is_due_now_and_no_more(world: World) -> None:
    world.add(0, "due")
    world.add(1, "not yet")
    await world.timer.pass_on_due()
    assert world.passed_on == [("due", 0)]
    assert len(world.timer) == 1


async def test_its_length_and_its_next_due_time_follow_what_is_in_it(world: World) -> None:
    assert (len(world.timer), world.timer.next_due_ms) == (0, None)
    assert not world.due(10**6)
    for due_in_ms in (20, 10):
        world.add(due_in_ms, str(due_in_ms))
    assert (len(world.timer), world.timer.next_due_ms) == (2, world.clock.now_ms() + 10)
    assert not world.due(9)
    assert world.due(10)
    assert world.due(11)
    await world.clock.advance(0.015)
    await world.timer.pass_on_due()
    assert (len(world.timer), world.timer.next_due_ms) == (1, world.clock.now_ms() + 5)


async def test_what_is_discarded_is_returned_in_due_order_and_never_passed_on(world: World) -> None:
    world.start()
    dues = list(range(1, 100))
    random.Random(1).shuffle(dues)
    for due_in_ms in dues:
        world.add(due_in_ms, str(due_in_ms))
    await world.clock.settle()
    kept = list(range(3, 100, 3))
    discarded = [str(ms) for ms in range(1, 100) if ms not in kept]
    assert world.timer.discard(lambda item: int(item) not in kept) == discarded
    assert len(world.timer) == len(kept)
    await world.clock.advance(1)
    assert world.passed_on == [(str(ms), ms) for ms in kept]


async def test_after_a_discard_what_is_added_is_on_time_whenever_it_is_due(world: World) -> None:
    world.start()
    world.add(100, "drop")
    await world.clock.settle()
    world.timer.discard(lambda _: True)
    world.add(50, "sooner")
    world.add(150, "later")
    await world.clock.advance(1)
    assert world.passed_on == [("sooner", 50), ("later", 150)]


async def test_discarding_nothing_changes_nothing(world: World) -> None:
    world.add(5, "a")
    assert world.timer.discard(lambda _: False) == []
    world.start()
    await world.clock.advance(1)
    assert world.passed_on == [("a", 5)]


@settings(deadline=None)  # a busy machine is no failure
@given(steps=st.lists(st.tuples(st.integers(0, 2500), st.integers(-50, 3000)), max_size=40))
async def test_whenever_items_come_none_is_early_and_none_late(steps: list[tuple[int, int]]) -> None:
    world = World()
    world.start()
    expected: list[tuple[str, int]] = []
    for number, (wait_ms, due_in_ms) in enumerate(steps):
        await world.clock.advance(wait_ms / 1000)
        due_at = world.in_ms() + due_in_ms
        world.add(due_at, str(number))
        expected.append((str(number), max(due_at, world.in_ms())))
    await world.clock.advance(10)
    assert sorted(world.passed_on) == sorted(expected)
    await world.stop()
