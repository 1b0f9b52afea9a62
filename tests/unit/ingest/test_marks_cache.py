"""`dynein.ingest.marks_cache` on its own, where a whole ingester would hide what it does."""

import asyncio
import random

from dynein.ingest.ingester import BACKOFF
from dynein.ingest.marks_cache import MarksCache
from dynein.runtime.retry import Retry
from dynein.settings import Settings
from dynein.testing import FakeTriggerTable, ManualClock


def marks_cache(table: FakeTriggerTable, clock: ManualClock) -> MarksCache:
    return MarksCache(table, clock, Retry(clock, random.Random(1), BACKOFF), Settings(hold_window_s=6.0))


async def test_concurrent_refreshes_share_the_read_that_begins_after_them() -> None:
    clock = ManualClock()
    table = FakeTriggerTable(clock, shard_count=4)
    marks = marks_cache(table, clock)
    gate = table.faults.hold_answer_next("get")
    first = asyncio.ensure_future(marks.refresh([0]))
    await clock.settle()
    assert gate.reached.is_set()
    record = await table.take(table.shards()[1], "d")
    assert record is not None
    await table.renew(
        record, settled_mark_ms=record.settled_mark_ms, read_mark_ms=clock.now_ms() + 77, retired_before=0
    )
    others = [asyncio.ensure_future(marks.refresh(shards)) for shards in ([1, 2], [1], [3])]
    gate.open()
    await clock.settle()
    assert all(task.done() for task in [first, *others])
    assert [call.entries for call in table.faults.calls if call.verb == "get"] == [1, 3]
    known = marks.known(1)
    assert known is not None
    assert known.read_mark_ms == clock.now_ms() + 77


async def test_a_response_that_was_overtaken_lowers_nothing() -> None:
    clock = ManualClock()
    table = FakeTriggerTable(clock, shard_count=1)
    marks = marks_cache(table, clock)
    gate = table.faults.hold_answer_next("get")
    reading = asyncio.ensure_future(marks.refresh([0]))
    await clock.settle()
    # The fake's response is made before the gate, so it has "no hold mark".
    await marks.cover({0: clock.now_ms()})
    before = marks.known(0)
    assert before is not None
    gate.open()
    await reading
    after = marks.known(0)
    assert after is not None
    assert after.hold_mark_ms == before.hold_mark_ms > 0


async def test_concurrent_holders_share_one_raise_and_a_later_due_time_gets_its_own() -> None:
    clock = ManualClock()
    table = FakeTriggerTable(clock, shard_count=1)
    marks = marks_cache(table, clock)
    now_ms = clock.now_ms()
    gate = table.faults.hold_before_next("raise_hold_mark")
    covering = [asyncio.ensure_future(marks.cover({0: now_ms + due})) for due in (0, 500, 3000, 7000)]
    await clock.settle()
    assert not any(task.done() for task in covering), "none is covered before the mark is up"
    gate.open()
    await clock.settle()
    assert all(task.done() for task in covering)
    assert [call.verb for call in table.faults.calls] == ["raise_hold_mark"]
    await marks.cover({0: now_ms + 7001})
    assert len(table.faults.calls) == 2


async def test_a_mark_that_the_owner_says_has_stood_needs_no_wait() -> None:
    clock = ManualClock()
    table = FakeTriggerTable(clock, shard_count=1)
    marks = marks_cache(table, clock)
    now_ms = clock.now_ms()
    record = await table.take(table.shards()[0], "d")
    assert record is not None
    await table.renew(record, read_mark_ms=now_ms + 4000, settled_mark_ms=now_ms + 3000, retired_before=0)
    await marks.refresh([0])
    assert marks.has_stood(0, now_ms + 3000)
    assert not marks.has_stood(0, now_ms + 3001)
    await asyncio.wait_for(marks.stood({0: now_ms + 3000}), 10)
    standing = asyncio.ensure_future(marks.stood({0: now_ms + 3001}))
    await clock.advance(0.999)
    assert not standing.done()
    await clock.advance(0.001)
    assert standing.done()


async def test_a_mark_covers_to_the_millisecond() -> None:
    clock = ManualClock()
    table = FakeTriggerTable(clock, shard_count=1)
    marks = marks_cache(table, clock)
    await marks.cover({0: clock.now_ms()})
    mark_ms = table.shards()[0].hold_mark_ms
    await marks.cover({0: mark_ms})
    assert table.shards()[0].hold_mark_ms == mark_ms, "it covers what is due at it"
    await marks.cover({0: mark_ms + 1})
    assert table.shards()[0].hold_mark_ms > mark_ms, "and nothing later"
