"""Queues that fail leave room for those that work."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynein.aws import turns as turns_module
from dynein.aws.turns import Turns

CALLS_MAX = 16


class World:
    """Calls that are under way until they are told to end, as `SqsQueues` makes them."""

    def __init__(self, calls_max: int = CALLS_MAX, trusted: tuple[str, ...] = ()) -> None:
        self.turns = Turns(calls_max, trusted)
        self.under_way: dict[asyncio.Future[bool], str] = {}
        self.tasks: list[asyncio.Task[bool]] = []

    def ask(self, queue: str, calls: int = 1) -> list[asyncio.Task[bool]]:
        """Begin these calls, or wait for their turn."""
        asked = [asyncio.ensure_future(self._call(queue)) for _ in range(calls)]
        self.tasks += asked
        return asked

    async def _call(self, queue: str) -> bool:
        works = False
        try:
            works = await self.turns.take(queue, lambda: self._respond(queue))
            return works
        finally:
            self.turns.heard(queue, works=works)

    async def _respond(self, queue: str) -> bool:
        response: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.under_way[response] = queue
        try:
            return await response
        finally:
            del self.under_way[response]

    @property
    def calls(self) -> Counter[str]:
        """Calls under way, by queue."""
        return Counter(self.under_way.values())

    async def settle(self) -> None:
        """Let everything happen that can."""
        for _ in range(20):
            await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop

    async def respond(self, queue: str, *, works: bool) -> None:
        """End all that is under way for ``queue``."""
        for response, of in list(self.under_way.items()):
            if of == queue and not response.done():
                response.set_result(works)
        await self.settle()

    async def known_to_work(self, *queues: str) -> None:
        for queue in queues:
            self.ask(queue)
            await self.settle()
            await self.respond(queue, works=True)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_a_queue_that_was_never_heard_of_is_tried_once_before_it_gets_more() -> None:
    world = World()
    world.ask("a", 8)
    await world.settle()
    assert world.calls == {"a": 1}
    await world.respond("a", works=True)
    assert world.calls == {"a": 7}
    await world.close()


async def test_a_queue_that_fails_has_one_call_at_a_time() -> None:
    world = World()
    await world.known_to_work("a")
    world.ask("a", 8)
    await world.settle()
    assert world.calls == {"a": 8}
    await world.respond("a", works=False)
    world.ask("a", 8)
    await world.settle()
    assert world.calls == {"a": 1}
    await world.respond("a", works=False)
    assert world.calls == {"a": 1}
    await world.close()


async def test_queues_that_do_not_respond_leave_half_of_the_connections() -> None:
    world = World()
    await world.known_to_work("healthy")
    for number in range(100):
        world.ask(f"silent-{number}", 8)
    await world.settle()
    assert sum(world.calls.values()) == CALLS_MAX // 2
    world.ask("healthy", 4)
    await world.settle()
    assert world.calls["healthy"] == 4
    await world.close()


async def test_a_queue_that_begins_to_fail_leaves_room_at_once() -> None:
    """Its calls under way cannot be taken back; but there is a quarter that none of them may have."""
    world = World()
    await world.known_to_work("healthy", "failing")
    world.ask("failing", 100)
    await world.settle()
    assert world.calls == {"failing": CALLS_MAX * 3 // 4}
    world.ask("healthy")
    await world.settle()
    assert world.calls["healthy"] == 1
    await world.close()


async def test_our_own_queues_wait_for_no_other() -> None:
    world = World(trusted=("ours",))
    for number in range(100):
        world.ask(f"silent-{number}")
    world.ask("http://sqs/0/ours", 4)
    await world.settle()
    assert world.calls["http://sqs/0/ours"] == 4
    await world.respond("http://sqs/0/ours", works=False)
    world.ask("http://sqs/0/ours", 4)
    await world.settle()
    assert world.calls["http://sqs/0/ours"] == 4
    await world.close()


async def test_queues_take_turns() -> None:
    world = World(calls_max=4)
    await world.known_to_work("busy", "other")
    world.ask("busy", 100)
    await world.settle()
    world.ask("other", 2)
    await world.settle()
    assert world.calls == {"busy": 3, "other": 1}
    seen = []
    for _ in range(3):
        response = next(response for response, queue in world.under_way.items() if queue == "busy")
        response.set_result(True)
        await world.settle()
        seen.append((world.calls["busy"], world.calls["other"]))
    # The first place to become free is that of the quarter for first calls; then each gets one.
    assert seen == [(2, 1), (2, 1), (1, 2)]
    await world.close()


@pytest.mark.parametrize("order", ["the holder first", "the waiter first"])
async def test_giving_up_in_the_moment_of_ones_turn(order: str) -> None:
    world = World(calls_max=1)
    [first] = world.ask("a")
    await world.settle()
    [second], [third] = world.ask("b"), world.ask("c")
    await world.settle()
    for task in (first, second) if order == "the holder first" else (second, first):
        task.cancel()
    await world.settle()
    assert world.calls == {"c": 1}
    assert first.cancelled()
    assert second.cancelled()
    assert not third.done()
    await world.close()


async def test_only_so_many_queues_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "QUEUES_MAX", 2)
    world = World()
    await world.known_to_work("a", "b", "c")
    world.ask("a", 2)
    world.ask("c", 2)
    await world.settle()
    assert world.calls == {"a": 1, "c": 2}, "a was forgotten"
    await world.close()


@settings(max_examples=200, deadline=None)
@given(
    calls_max=st.integers(1, 8),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("ask"), st.integers(0, 5), st.integers(1, 6)),
            st.tuples(st.just("respond"), st.integers(0, 5), st.booleans()),
            st.tuples(st.just("cancel"), st.integers(0, 60), st.just(0)),
        ),
        max_size=40,
    ),
)
def test_bounds_hold_and_everybody_gets_a_turn(calls_max: int, steps: list[tuple[str, int, int]]) -> None:
    async def scenario() -> None:
        world = World(calls_max)
        for what, which, more in steps:
            if what == "ask":
                world.ask(f"q{which}", more)
            elif what == "respond":
                await world.respond(f"q{which}", works=bool(more))
            elif which < len(world.tasks):
                world.tasks[which].cancel()
            await world.settle()
            assert len(world.under_way) <= calls_max
        while world.under_way:
            for queue in set(world.under_way.values()):
                await world.respond(queue, works=True)
        assert all(task.done() for task in world.tasks)

    asyncio.run(scenario())
