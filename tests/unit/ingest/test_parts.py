"""The small parts on their own, where a whole ingester would hide what they do."""

import asyncio
import itertools
import random

import pytest

from dynein.core.keys import TriggerKey
from dynein.core.queues import OutgoingMessage
from dynein.errors import AccessDenied, Throttled, Unavailable
from dynein.ingest.admission import Gate
from dynein.ingest.crew import Crew
from dynein.ingest.marks_cache import ShardView
from dynein.ingest.receive_history import Memory
from dynein.ingest.retrying import Retrying, RunEnded, all_of
from dynein.ingest.visibility import Visibility
from dynein.observability.telemetry import Telemetry
from dynein.testing import FakeQueues, FakeTriggerTable, ManualClock


def retrying(clock: ManualClock, ended: asyncio.Event | None = None) -> Retrying:
    return Retrying(clock, random.Random(1), ended or asyncio.Event())


# --- retrying -----------------------------------------------------------------------------------------------------


async def test_a_call_is_repeated_until_it_succeeds_with_longer_pauses() -> None:
    clock = ManualClock()
    tried_at: list[float] = []

    async def attempt() -> str:
        tried_at.append(clock.monotonic())
        if len(tried_at) < 20:
            raise Throttled("slow down")
        return "done"

    assert await clock.result_of(retrying(clock).call("try", attempt)) == "done"
    pauses = [later - earlier for earlier, later in itertools.pairwise(tried_at)]
    assert pauses[0] <= 0.05
    assert 2.5 <= pauses[-1] <= 5.0


async def test_retries_end_with_the_run() -> None:
    clock, ended = ManualClock(), asyncio.Event()

    async def attempt() -> None:
        raise Unavailable("no answer")

    calling = asyncio.ensure_future(retrying(clock, ended).call("try", attempt))
    await clock.advance(10)
    assert not calling.done()
    ended.set()
    await clock.settle()
    with pytest.raises(RunEnded):
        calling.result()


async def test_all_of_lets_every_one_end_and_raises_the_gravest() -> None:
    ended: list[int] = []

    async def end(order: int, error: Exception | None) -> int:
        for _ in range(order):
            await ManualClock().sleep(0)
        ended.append(order)
        if error is not None:
            raise error
        return order

    assert await all_of([end(2, None), end(1, None)]) == [2, 1]
    ended.clear()
    with pytest.raises(AccessDenied):
        await all_of([end(0, RuntimeError("a bug")), end(2, AccessDenied("no")), end(4, None)])
    assert ended == [0, 2, 4]


# --- crew ---------------------------------------------------------------------------------------------------------


async def test_a_crew_is_dismissed_in_order_and_to_the_last() -> None:
    crew = Crew()
    ended: list[int] = []

    async def work(order: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(order)

    tasks = [crew.start(work(order)) for order in range(20)]
    await ManualClock().settle()
    await crew.dismiss()
    assert ended == list(range(20))
    assert all(task.cancelled() for task in tasks)


async def test_a_crew_tells_its_first_failure() -> None:
    crew = Crew()

    async def fail(error: Exception) -> None:
        raise error

    crew.start(fail(AccessDenied("first")))
    crew.start(fail(AccessDenied("second")))
    with pytest.raises(AccessDenied, match="first"):
        await crew.failure
    await crew.dismiss()


# --- gate ---------------------------------------------------------------------------------------------------------


async def enter(gate: Gate, jobs: int) -> bool:
    gate.announce()
    return await gate.enter(jobs, jobs)


async def test_a_gate_lets_in_by_room_in_order() -> None:
    clock = ManualClock()
    gate = Gate(clock, slots_max=10, rate_per_s=1000.0)
    assert await enter(gate, 6)
    big = asyncio.ensure_future(enter(gate, 8))
    small = asyncio.ensure_future(enter(gate, 1))
    await clock.settle()
    assert not big.done()
    assert not small.done(), "in the order they came"
    gate.leave(6)
    await clock.settle()
    assert big.done()
    assert small.done()
    assert gate.slots == 9


async def test_a_large_job_takes_the_room_of_many_and_pays_for_one() -> None:
    clock = ManualClock()
    gate = Gate(clock, slots_max=10, rate_per_s=1.0)
    gate.announce()
    assert await gate.enter(1, 9)
    other = asyncio.ensure_future(enter(gate, 2))
    await clock.settle()
    assert not other.done()
    gate.leave(9)
    await clock.advance(1.0)
    assert other.done()


async def test_a_gate_invites_only_when_nobody_is_outside_and_there_is_room() -> None:
    clock = ManualClock()
    gate = Gate(clock, slots_max=10, rate_per_s=1000.0)
    assert await gate.until_inviting()
    gate.announce()
    inviting = asyncio.ensure_future(gate.until_inviting())
    await clock.settle()
    assert not inviting.done()
    assert await gate.enter(10, 10)
    await clock.settle()
    assert not inviting.done(), "full"
    gate.leave(3)
    await clock.settle()
    assert inviting.done()


async def test_a_gate_invites_nobody_while_in_debt() -> None:
    clock = ManualClock()
    gate = Gate(clock, slots_max=1000, rate_per_s=10.0)
    assert await enter(gate, 50)
    inviting = asyncio.ensure_future(gate.until_inviting())
    await clock.advance(4.05)
    assert not inviting.done()
    await clock.advance(0.1)
    assert inviting.done()


async def test_a_closed_gate_turns_everybody_away() -> None:
    clock = ManualClock()
    gate = Gate(clock, slots_max=10, rate_per_s=1000.0)
    assert await enter(gate, 10)
    waiting = [asyncio.ensure_future(enter(gate, 1)) for _ in range(3)]
    inviting = asyncio.ensure_future(gate.until_inviting())
    await clock.settle()
    gate.close()
    await clock.settle()
    assert [task.result() for task in waiting] == [False] * 3
    assert inviting.result() is False
    assert gate.slots == 10


# --- shard view ---------------------------------------------------------------------------------------------------


async def test_readers_of_marks_share_the_read_that_begins_after_they_asked() -> None:
    clock = ManualClock()
    table = FakeTriggerTable(clock, shard_count=4)
    view = ShardView(table, clock, retrying(clock), hold_window_ms=6000)
    gate = table.faults.hold_answer_next("get")
    first = asyncio.ensure_future(view.fresh([0]))
    await clock.settle()
    assert gate.reached.is_set()
    record = await table.take(table.shards()[1], "d")
    assert record is not None
    await table.renew(
        record, settled_mark_ms=record.settled_mark_ms, read_mark_ms=clock.now_ms() + 77, retired_before=0
    )
    others = [asyncio.ensure_future(view.fresh(shards)) for shards in ([1, 2], [1], [3])]
    gate.open()
    await clock.settle()
    assert all(task.done() for task in [first, *others])
    assert [call.entries for call in table.faults.calls if call.verb == "get"] == [1, 3]
    known = view.known(1)
    assert known is not None
    assert known.read_mark_ms == clock.now_ms() + 77


async def test_an_answer_that_was_overtaken_lowers_nothing() -> None:
    clock = ManualClock()
    table = FakeTriggerTable(clock, shard_count=1)
    view = ShardView(table, clock, retrying(clock), hold_window_ms=6000)
    gate = table.faults.hold_answer_next("get")
    reading = asyncio.ensure_future(view.fresh([0]))
    await clock.settle()
    # The fake's answer is made before the gate, so it says "no hold mark".
    await view.cover({0: clock.now_ms()})
    before = view.known(0)
    assert before is not None
    gate.open()
    await reading
    after = view.known(0)
    assert after is not None
    assert after.hold_mark_ms == before.hold_mark_ms > 0


async def test_concurrent_holders_share_one_raise_and_a_later_due_time_gets_its_own() -> None:
    clock = ManualClock()
    table = FakeTriggerTable(clock, shard_count=1)
    view = ShardView(table, clock, retrying(clock), hold_window_ms=6000)
    now_ms = clock.now_ms()
    gate = table.faults.hold_before_next("raise_hold_mark")
    covering = [asyncio.ensure_future(view.cover({0: now_ms + due})) for due in (0, 500, 3000, 7000)]
    await clock.settle()
    assert not any(task.done() for task in covering), "none is covered before the mark is up"
    gate.open()
    await clock.settle()
    assert all(task.done() for task in covering)
    assert [call.verb for call in table.faults.calls] == ["raise_hold_mark"]
    await view.cover({0: now_ms + 7001})
    assert len(table.faults.calls) == 2


# --- visibility ---------------------------------------------------------------------------------------------------


async def test_visibility_is_extended_after_half_of_the_timeout_ten_at_a_time() -> None:
    clock = ManualClock()
    queues = FakeQueues(clock)
    url = queues.create("inbound")
    visibility = Visibility(queues, url, clock, Telemetry(), timeout_s=30)
    for _ in range(25):
        await queues.send(url, [OutgoingMessage("{}", {})])
    for _ in range(3):
        for message in await queues.receive(url, entries_max=10, wait_s=0, visibility_timeout_s=30):
            visibility.keep(message.message_id, message.receipt)

    async def passes() -> None:
        while True:
            await clock.sleep(await visibility.run_once())

    loop = asyncio.ensure_future(passes())
    await clock.advance(14)
    calls = [call.entries for call in queues.faults.calls if call.verb == "extend"]
    assert calls == []
    queues.faults.fail_next("extend", Unavailable("no answer"))
    await clock.advance(2)
    await clock.advance(300)
    assert queues.peek("inbound") == []
    calls = [call.entries for call in queues.faults.calls if call.verb == "extend"]
    assert calls[:3] == [10, 10, 5]
    assert max(calls) == 10
    assert len(calls) <= 3 * 2 * 25, "one round each half timeout or so"
    loop.cancel()


async def test_what_is_dropped_becomes_visible() -> None:
    clock = ManualClock()
    queues = FakeQueues(clock)
    url = queues.create("inbound")
    visibility = Visibility(queues, url, clock, Telemetry(), timeout_s=30)
    await queues.send(url, [OutgoingMessage("{}", {})])
    (message,) = await queues.receive(url, entries_max=10, wait_s=0, visibility_timeout_s=30)
    visibility.keep(message.message_id, message.receipt)
    visibility.drop(message.message_id)
    await clock.advance(20)
    await visibility.run_once()
    await clock.advance(11)
    assert len(queues.peek("inbound")) == 1


async def test_an_answer_for_an_old_receipt_says_nothing_of_the_new_one() -> None:
    clock = ManualClock()
    queues = FakeQueues(clock)
    url = queues.create("inbound")
    visibility = Visibility(queues, url, clock, Telemetry(), timeout_s=30)
    await queues.send(url, [OutgoingMessage("{}", {})])
    (message,) = await queues.receive(url, entries_max=10, wait_s=0, visibility_timeout_s=30)
    visibility.keep(message.message_id, message.receipt)
    await clock.advance(29)
    gate = queues.faults.hold_before_next("extend")
    extending = asyncio.ensure_future(visibility.run_once())
    await clock.advance(2)
    (again,) = await queues.receive(url, entries_max=10, wait_s=0, visibility_timeout_s=30)
    visibility.keep(again.message_id, again.receipt)
    gate.open()
    await extending
    assert visibility.receipt(message.message_id) == again.receipt
    await clock.advance(16)
    await visibility.run_once()
    await clock.advance(20)
    assert queues.peek("inbound") == []


async def test_a_message_that_is_lost_takes_no_other_of_its_batch_with_it() -> None:
    clock = ManualClock()
    queues = FakeQueues(clock)
    url = queues.create("inbound")
    visibility = Visibility(queues, url, clock, Telemetry(), timeout_s=30)
    await queues.send(url, [OutgoingMessage("{}", {}), OutgoingMessage("{}", {})])
    for message in await queues.receive(url, entries_max=10, wait_s=0, visibility_timeout_s=30):
        visibility.keep(message.message_id, message.receipt)
    queues.faults.fail_entries_next("extend", [0], permanent=True)
    for _ in range(5):
        await clock.advance(16)
        await visibility.run_once()
    assert len(queues.peek("inbound")) == 1


# --- memory -------------------------------------------------------------------------------------------------------


def test_memory_keeps_the_last_messages_only() -> None:
    memory = Memory(messages_max=2)
    memory.recall("a").sent[TriggerKey(1, bytes(12), 0)] = None
    memory.finish("b")
    assert memory.recall("a").sent
    memory.recall("c")
    assert memory.recall("a").sent
    assert not memory.recall("b").finished, "forgotten: the least lately touched"
