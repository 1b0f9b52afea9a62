from __future__ import annotations

import asyncio

import pytest

from dynein.delivery.destinations import Destinations
from dynein.errors import Throttled, UnknownQueue
from dynein.testing import FakeQueues, ManualClock


class Setting:
    def __init__(self, *, ttl_s: float = 300, entries_max: int = 10_000) -> None:
        self.clock = ManualClock()
        self.queues = FakeQueues(self.clock)
        self.destinations = Destinations(self.queues, self.clock, ttl_s=ttl_s, entries_max=entries_max)

    @property
    def asked(self) -> list[str]:
        return [call.target for call in self.queues.faults.calls]


async def test_a_destination_is_remembered_until_it_expires() -> None:
    s = Setting(ttl_s=300)
    s.queues.create("q.fifo")
    assert s.destinations.known("q.fifo") is None
    for _ in range(3):
        destination = await s.destinations.resolve("q.fifo")
    assert destination[:2] == (s.queues.url("q.fifo"), True)
    assert s.destinations.known("q.fifo") == destination
    assert s.asked == ["q.fifo"]
    await s.clock.advance(300)
    assert s.destinations.known("q.fifo") is None
    await s.destinations.resolve("q.fifo")
    assert s.asked == ["q.fifo"] * 2


async def test_a_name_and_its_url_are_the_same_queue() -> None:
    s = Setting()
    url = s.queues.create("q")
    assert await s.destinations.resolve(url) == await s.destinations.resolve("q")


async def test_concurrent_look_ups_share_a_call() -> None:
    s = Setting()
    s.queues.create("q")
    gate = s.queues.faults.hold_before_next("resolve")
    looking_up = [asyncio.ensure_future(s.destinations.resolve("q")) for _ in range(5)]
    await gate.reached.wait()
    looking_up[0].cancel()  # one who gives up must not take the others along
    gate.open()
    results = await asyncio.gather(*looking_up, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [await s.destinations.resolve("q")] * 4
    assert s.asked == ["q"]


async def test_a_missing_queue_is_refused_for_a_few_seconds_only() -> None:
    s = Setting()
    for _ in range(2):
        with pytest.raises(UnknownQueue):
            await s.destinations.resolve("late")
    assert s.asked == ["late"]
    assert s.destinations.known("late") is None
    s.queues.create("late")
    await s.clock.advance(5)
    assert (await s.destinations.resolve("late")).url == s.queues.url("late")


async def test_a_failed_look_up_is_not_remembered() -> None:
    s = Setting()
    s.queues.create("q")
    s.queues.faults.fail_next("resolve", Throttled("slow down"))
    with pytest.raises(Throttled):
        await s.destinations.resolve("q")
    await s.destinations.resolve("q")
    assert s.asked == ["q"] * 2


async def test_a_forgotten_queue_is_looked_up_anew() -> None:
    s = Setting()
    s.queues.create("q")
    await s.destinations.resolve("q")
    s.destinations.forget("q")
    s.destinations.forget("never seen")
    assert s.destinations.known("q") is None
    await s.destinations.resolve("q")
    assert s.asked == ["q"] * 2


async def test_it_remembers_so_many_and_no_more() -> None:
    s = Setting(entries_max=3)
    for i in range(5):
        s.queues.create(f"q{i}")
        await s.destinations.resolve(f"q{i}")
    assert [i for i in range(5) if s.destinations.known(f"q{i}")] == [2, 3, 4]


async def test_made_up_names_and_urls_push_out_no_queue_that_exists() -> None:
    s = Setting(entries_max=3)
    s.queues.create("q")
    s.queues.create("r")
    known = [await s.destinations.resolve(name) for name in ("q", "r")]
    for i in range(10):
        with pytest.raises(UnknownQueue):
            await s.destinations.resolve(f"made-up-{i}")
        await s.destinations.resolve(s.queues.create(f"by-url-{i}"))
    assert [s.destinations.known(name) for name in ("q", "r")] == known
    assert [s.destinations.is_missing(f"made-up-{i}") for i in range(10)] == [False] * 7 + [True] * 3


async def test_a_queue_in_use_outlasts_those_that_are_not() -> None:
    s = Setting(entries_max=3)
    for name in ("q", "a", "b", "c", "d"):
        s.queues.create(name)
        await s.destinations.resolve(name)
        assert s.destinations.known("q")
    assert s.asked == ["q", "a", "b", "c", "d"]


async def test_a_queue_that_was_deleted_is_missing_and_no_longer_known() -> None:
    s = Setting(ttl_s=300)
    s.queues.create("q")
    await s.destinations.resolve("q")
    await s.clock.advance(300)
    assert (s.destinations.known("q"), s.destinations.has_been_known("q")) == (None, True)
    s.queues.remove("q")
    with pytest.raises(UnknownQueue):
        await s.destinations.resolve("q")
    assert (s.destinations.is_missing("q"), s.destinations.has_been_known("q")) == (True, False)
