"""Removals and dead letters: repeated until none is left, and what ends that."""

from __future__ import annotations

import asyncio
import random
from typing import cast

import pytest

from dynein.core.job import Job
from dynein.core.keys import TriggerKey
from dynein.core.trigger import Trigger
from dynein.delivery.dead_letter_queue import DeadLetterQueue
from dynein.errors import AccessDenied, Throttled, Unavailable
from dynein.observability.telemetry import Telemetry
from dynein.runtime.context import Context
from dynein.scheduler.memory_budget import MemoryBudget
from dynein.scheduler.remover import Remover
from dynein.scheduler.shard_buffer import BufferedTrigger, ShardBuffer
from dynein.settings import Settings
from dynein.testing import ManualClock
from tests.unit.hot_partition import HotTable


class Validity:
    """A lease that is valid as long as the test says so."""

    def __init__(self) -> None:
        self.is_valid = True

    def valid(self) -> bool:
        return self.is_valid


class DeadLetters:
    """A dead-letter queue that refuses some records, and may be down."""

    def __init__(self) -> None:
        self.refused: set[bytes] = set()
        self.error: Exception | None = None
        self.accepted: list[bytes] = []

    async def add_job(self, record: bytes, token: str, due_at_ms: int, reason: str) -> None:
        del token, due_at_ms, reason
        if self.error is not None:
            raise self.error
        if record in self.refused:
            raise Throttled("not this one")
        self.accepted.append(record)


class Scene:
    """A remover, and triggers that are stored and buffered."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.table = HotTable(self.clock, bucket_width_ms=60_000, shard_count=2)
        self.dead_letters = DeadLetters()
        self.telemetry = Telemetry()
        self.memory = MemoryBudget(1_000, 100)
        self.lease = Validity()
        self.buffer = ShardBuffer(self.lease, self.memory, self.clock, 60_000)
        self.remover = Remover(
            self.table,
            cast("DeadLetterQueue", self.dead_letters),
            self.memory,
            Context(self.clock, random.Random(7), self.telemetry),
            Settings(backoff_first_s=0.1, backoff_max_s=1.0),
            bucket_width_ms=60_000,
        )

    async def stored(self, *records: bytes, readable: bool = True, shard: int = 0) -> list[BufferedTrigger]:
        entries = []
        for record in records:
            key = TriggerKey(self.clock.now_ms(), record.rjust(12, b"-"), shard)
            trigger = Trigger(key, "token", record)
            assert await self.table.add([trigger]) == []
            self.memory.take_more(1)
            entries.append(self.buffer.add(trigger, Job(queue="a", body="hello") if readable else None))
        return entries

    def removals(self) -> list[int]:
        """Triggers in each call."""
        return [call.entries for call in self.table.faults.calls if call.verb == "remove"]


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_removals_of_one_turn_share_calls_and_what_is_left_is_repeated(scene: Scene) -> None:
    scene.table.faults.fail_entries_next("remove", [1, 24])
    for entry in await scene.stored(*(b"%02d" % i for i in range(30))):
        scene.remover.remove(entry)
    await scene.clock.advance(1.0)
    assert scene.removals() == [25, 5, 2], "what is left waits, and the next call does not wait for it"
    assert scene.table.triggers() == []
    assert len(scene.buffer) == 0
    assert scene.memory.slots == 0
    assert scene.telemetry.removed._value.get() == 30


async def test_a_shard_that_takes_no_removals_delays_its_own_alone() -> None:
    scene = Scene()
    hot = await scene.stored(*(b"h%03d" % i for i in range(300)), shard=1)
    healthy = await scene.stored(*(b"%02d" % i for i in range(25)))
    scene.table.hot = frozenset([1])
    for entry in [*hot, *healthy]:
        scene.remover.remove(entry)
    await scene.clock.advance(1.0)
    assert {trigger.key.shard for trigger in scene.table.triggers()} == {1}
    scene.table.hot = frozenset()
    await scene.clock.advance(10.0)
    assert scene.table.triggers() == []


async def test_a_shard_without_a_valid_lease_keeps_no_other_s_dead_letters(scene: Scene) -> None:
    scene.lease.is_valid = False
    for entry in await scene.stored(b"invalid", readable=False):
        scene.remover.dead_letter(entry, "not a job")
    await scene.clock.advance(1.0)
    scene.buffer = ShardBuffer(Validity(), scene.memory, scene.clock, 60_000)
    for entry in await scene.stored(b"valid", readable=False, shard=1):
        scene.remover.dead_letter(entry, "not a job")
    await scene.clock.settle()
    assert scene.dead_letters.accepted == [b"valid"]


async def test_a_trigger_that_was_not_sent_is_removed_and_not_counted(scene: Scene) -> None:
    (entry,) = await scene.stored(b"cancelled", readable=False)
    scene.remover.remove(entry)
    await scene.clock.advance(1.0)
    assert scene.table.triggers() == []
    assert scene.telemetry.removed._value.get() == 0


async def test_an_error_that_needs_an_operator_is_raised_whenever_it_came(scene: Scene) -> None:
    (entry,) = await scene.stored(b"sent")
    scene.table.faults.go_down(AccessDenied("dynamodb:BatchWriteItem"), verb="remove")
    scene.remover.remove(entry)
    await scene.clock.advance(1.0)
    with pytest.raises(AccessDenied):
        await asyncio.wait_for(scene.remover.run(), 10)


async def test_so_is_one_of_the_dead_letter_queue(scene: Scene) -> None:
    running = asyncio.ensure_future(scene.remover.run())
    (entry,) = await scene.stored(b"broken", readable=False)
    scene.dead_letters.error = AccessDenied("sqs:SendMessage")
    scene.remover.dead_letter(entry, "not a job")
    await scene.clock.run_until(running.done)
    with pytest.raises(AccessDenied):
        await running
    assert len(scene.table.triggers()) == 1


async def test_after_the_kill_nothing_is_repeated(scene: Scene) -> None:
    (entry,) = await scene.stored(b"sent")
    scene.table.faults.go_down(Unavailable("no response"), verb="remove")
    scene.remover.remove(entry)
    await scene.clock.advance(5.0)
    tries = len(scene.removals())
    assert tries > 2
    scene.remover.kill()
    await scene.clock.advance(30.0)
    assert len(scene.removals()) == tries


async def test_one_record_that_the_dead_letter_queue_refuses_does_not_keep_the_others(scene: Scene) -> None:
    scene.dead_letters.refused.add(b"one")
    for entry in await scene.stored(b"one", b"two", b"three", readable=False):
        scene.remover.dead_letter(entry, "not a job")
    await scene.clock.advance(5.0)
    assert sorted(scene.dead_letters.accepted) == [b"three", b"two"]
    assert [trigger.record for trigger in scene.table.triggers()] == [b"one"]
    scene.dead_letters.refused.clear()
    await scene.clock.advance(5.0)
    assert scene.table.triggers() == []
    assert sorted(scene.dead_letters.accepted) == [b"one", b"three", b"two"], "each once"


async def test_nothing_is_dead_lettered_without_a_valid_lease(scene: Scene) -> None:
    scene.lease.is_valid = False
    (entry,) = await scene.stored(b"broken", readable=False)
    scene.remover.dead_letter(entry, "not a job")
    await scene.clock.advance(5.0)
    assert scene.dead_letters.accepted == []
    scene.lease.is_valid = True
    await scene.clock.advance(5.0)
    assert scene.dead_letters.accepted == [b"broken"]
    assert scene.table.triggers() == []


async def test_a_shard_that_was_given_up_has_nothing_dead_lettered(scene: Scene) -> None:
    scene.lease.is_valid = False
    (entry,) = await scene.stored(b"broken", readable=False)
    scene.remover.dead_letter(entry, "not a job")
    await scene.clock.advance(1.0)
    scene.buffer.close()
    scene.lease.is_valid = True
    await scene.clock.advance(5.0)
    assert scene.dead_letters.accepted == []
    assert len(scene.buffer) == 0
    assert len(scene.table.triggers()) == 1, "its next owner will read it"
