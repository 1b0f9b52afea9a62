from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import TriggerKey
from dynein.core.ports import Deployment
from dynein.core.queues import OutgoingMessage
from dynein.core.shard_records import Layout
from dynein.core.trigger import Trigger
from dynein.errors import AccessDenied, Unavailable
from dynein.fleet.forecast import MINUTE_MS
from dynein.fleet.observer import CHECK_S, Observer
from dynein.fleet.staleness import ShardsSeen
from dynein.observability.telemetry import Telemetry
from dynein.runtime.context import Context
from dynein.settings import Settings
from dynein.testing import FakeQueues, FakeTriggerTable, Faults, ManualClock

SIGNER = TokenSigner([b"0123456789abcdef"])
SHARDS = 4
T0 = 1_800_000_000_000
"""A full minute."""
SERIES = (
    "dynein_inbound_messages",
    "dynein_dead_letter_messages",
    "dynein_shards",
    "dynein_shards_unowned",
    "dynein_forecast_jobs",
    "dynein_forecast_timestamp_seconds",
)


class World:
    """Queues, a table, and one process that may be the observer."""

    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock(T0 + 10_000)
        self.faults = Faults()
        self.queues = FakeQueues(self.clock, faults=self.faults)
        self.table = FakeTriggerTable(self.clock, shard_count=SHARDS, faults=self.faults)
        self.telemetry = Telemetry()
        self.observing = True
        self.seen = ShardsSeen(SHARDS, 0)
        self.rng = random.Random(3)
        self.stopping = asyncio.Event()
        deployment = Deployment(
            Layout(60_000, SHARDS, SHARDS), self.queues.create("inbound"), self.queues.create("dead"), 262_144
        )
        context = Context(self.clock, self.rng, self.telemetry)
        self.observer = Observer(self, self.queues, self.table, deployment, context, Settings(**settings))
        self.task: asyncio.Task[None] | None = None

    async def advance(self, seconds: float) -> None:
        """Let time pass; the observer starts with the first."""
        self.task = self.task or asyncio.ensure_future(self.observer.run(self.stopping))
        await self.clock.advance(seconds)

    async def close(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    def owns(self, shard: int) -> bool:
        return self.observing and shard == 0

    def shards_seen(self) -> ShardsSeen:
        return self.seen

    async def store(self, due_at_ms: int, jobs: int) -> None:
        for _ in range(jobs):
            key = TriggerKey(due_at_ms, self.rng.randbytes(12), self.rng.randrange(SHARDS))
            trigger = Trigger(key, SIGNER.sign(JobRef(TokenKind.SCHEDULED, key)), b'{"q":"demo"}\nx')
            assert await self.table.add([trigger]) == []

    async def send(self, queue: str, messages: int) -> None:
        for _ in range(messages):
            await self.queues.send(self.queues.url(queue), [OutgoingMessage("x", {})])

    def shown(self, name: str) -> dict[str, float]:
        """By the value of its one label, or by ``""``."""
        samples = [s for metric in self.telemetry.registry.collect() for s in metric.samples if s.name == name]
        return {next(iter(sample.labels.values()), ""): sample.value for sample in samples}

    def nothing_shown(self) -> bool:
        return all(self.shown(name) == {} for name in SERIES)

    def asked(self, verb: str) -> int:
        return sum(call.verb == verb for call in self.faults.calls)


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.close()


async def test_queues_and_shards_are_looked_at_in_intervals(world: World) -> None:
    await world.send("inbound", 3)
    await world.queues.receive(world.queues.url("inbound"), entries_max=1, wait_s=0, visibility_timeout_s=60)
    await world.send("dead", 2)
    world.seen = ShardsSeen(4, 1)
    await world.advance(1)
    assert world.shown("dynein_inbound_messages") == {"visible": 2, "in_flight": 1, "delayed": 0}
    assert world.shown("dynein_dead_letter_messages") == {"": 2}
    assert world.shown("dynein_shards") == {"": 4}
    assert world.shown("dynein_shards_unowned") == {"": 1}
    await world.advance(58)
    assert world.asked("depth") == 2 * 4


async def test_the_forecast_is_what_is_stored_minute_by_minute(world: World) -> None:
    expected = {"0": 3, "1": 1, "7": 40, "29": 2}
    for minute, jobs in expected.items():
        await world.store(T0 + int(minute) * MINUTE_MS + 30_000, jobs)
    await world.store(T0 + 5_000, 9)  # of this minute, and past
    await world.store(T0 + 30 * MINUTE_MS, 9)
    await world.advance(1)
    forecast = world.shown("dynein_forecast_jobs")
    assert forecast == {str(minute): expected.get(str(minute), 0) for minute in range(30)}
    assert world.shown("dynein_forecast_timestamp_seconds") == {"": pytest.approx(T0 / 1000 + 10, abs=1)}


async def test_forecasts_are_made_at_the_full_minute(world: World) -> None:
    await world.advance(1)
    await world.store(T0 + 90_000, 5)
    await world.advance(45)
    assert world.shown("dynein_forecast_jobs")["1"] == 0, "as of the one made at the start"
    await world.advance(7)
    assert world.shown("dynein_forecast_jobs")["0"] == 5
    assert world.shown("dynein_forecast_timestamp_seconds") == {"": pytest.approx(T0 / 1000 + 60, abs=2 * CHECK_S)}


async def test_whoever_is_not_the_observer_asks_nothing_and_shows_nothing(world: World) -> None:
    world.observing = False
    await world.advance(120)
    assert world.nothing_shown()
    assert world.faults.calls == []


async def test_what_it_showed_vanishes_when_another_is_the_observer_and_comes_back_at_once(world: World) -> None:
    await world.advance(1)
    assert not any(world.shown(name) == {} for name in SERIES)
    world.observing = False
    await world.advance(1 + CHECK_S)
    assert world.nothing_shown()
    world.observing = True
    await world.advance(1 + CHECK_S)
    assert not any(world.shown(name) == {} for name in SERIES)


async def test_a_forecast_that_ends_after_the_observer_has_changed_is_not_shown(world: World) -> None:
    gate = world.faults.hold_before_next("count_due")
    await world.advance(1)
    await gate.reached.wait()
    world.observing = False
    await world.advance(1 + CHECK_S)
    gate.open()
    await world.advance(1)
    assert world.nothing_shown()
    assert world.asked("count_due") == 1


async def test_what_cannot_be_asked_is_not_shown_said_once_and_stops_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.advance(1)
    world.faults.fail_next("depth", AccessDenied("sqs:GetQueueAttributes on dead"), times=4)
    await world.advance(32)
    assert world.shown("dynein_dead_letter_messages") == {}
    assert world.shown("dynein_inbound_messages") == {}
    assert world.shown("dynein_shards") == {"": SHARDS}
    assert len([r for r in caplog.records if "the dead-letter queue" in r.getMessage()]) == 1
    await world.advance(15)
    assert world.shown("dynein_dead_letter_messages") == {"": 0}
    assert world.task is not None
    assert not world.task.done()


async def test_a_forecast_that_failed_leaves_the_last_one_with_its_age(world: World) -> None:
    await world.advance(1)
    (made_at,) = world.shown("dynein_forecast_timestamp_seconds").values()
    world.faults.fail_next("count_due", Unavailable("no response"))
    await world.advance(60)
    assert world.shown("dynein_forecast_timestamp_seconds") == {"": made_at}
    await world.advance(60)
    assert world.shown("dynein_forecast_timestamp_seconds") == {"": pytest.approx(T0 / 1000 + 120, abs=2 * CHECK_S)}


async def test_without_units_for_it_a_minute_is_not_shown() -> None:
    world = World(forecast_read_units_max=1)
    await world.advance(1)
    assert world.shown("dynein_forecast_jobs").keys() == {"0", "1"}, "a query costs half a unit at least"
    await world.close()


async def test_no_interval_no_forecast() -> None:
    world = World(forecast_interval_s=0)
    await world.advance(200)
    assert world.asked("count_due") == 0
    assert world.shown("dynein_shards") == {"": SHARDS}
    world.stopping.set()
    assert world.task is not None
    await world.clock.run_until(world.task.done, within_s=10)
    assert world.nothing_shown(), "nor after it has ended"
