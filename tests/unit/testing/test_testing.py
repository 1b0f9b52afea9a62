"""The fakes' own promises; what they share with the real engines is in the contract suites."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dynein.core.job import Attribute
from dynein.core.keys import TriggerKey
from dynein.core.queues import OutgoingMessage
from dynein.core.trigger import Trigger
from dynein.errors import Throttled, Unavailable, UnknownQueue
from dynein.testing import Call, FakeQueues, FakeTriggerTable, Faults, ManualClock
from dynein.testing.queues import Sent


def message(body: str = "b", **options: Any) -> OutgoingMessage:
    return OutgoingMessage(body, {})._replace(**options)


async def test_sleepers_wake_at_their_own_instants_in_order() -> None:
    clock = ManualClock(start_ms=1_000)
    woken: list[tuple[str, int]] = []

    async def sleeper(name: str, seconds: float, times: int) -> None:
        for _ in range(times):
            await clock.sleep(seconds)
            woken.append((name, clock.now_ms()))

    tasks = [asyncio.ensure_future(sleeper("slow", 2.5, 1)), asyncio.ensure_future(sleeper("quick", 1, 3))]
    await clock.advance(2.6)
    assert woken == [("quick", 2000), ("quick", 3000), ("slow", 3500)]
    assert clock.now_ms() == 3600
    await clock.advance(1)
    assert woken[-1] == ("quick", 4000)
    await asyncio.gather(*tasks)
    assert clock.sleepers == 0


async def test_stepping_the_wall_clock_wakes_nobody() -> None:
    clock = ManualClock(start_ms=1_000)
    task = asyncio.ensure_future(clock.sleep(1))
    await clock.settle()
    clock.step_wall_ms(5_000)
    await clock.settle()
    assert clock.now_ms() == 6_000
    assert clock.monotonic() == 0
    assert not task.done()
    await clock.advance(1)
    assert task.done()


async def test_a_cancelled_sleep_does_not_hold_time_up() -> None:
    clock = ManualClock()
    task = asyncio.ensure_future(clock.sleep(5))
    await clock.settle()
    task.cancel()
    await clock.settle()
    assert clock.sleepers == 0
    with pytest.raises(AssertionError, match="no task sleeps"):
        await clock.run_until(lambda: False, within_s=10)


async def test_a_long_poll_wakes_when_a_delayed_message_becomes_visible() -> None:
    clock = ManualClock()
    queues = FakeQueues(clock)
    url = queues.create("q")
    await queues.send(url, [message(delay_s=7)])
    began = clock.monotonic()
    receiving = queues.receive(url, entries_max=10, wait_s=20, visibility_timeout_s=30)
    (received,) = await clock.result_of(receiving)
    assert clock.monotonic() - began == 7
    assert (received.body, received.receive_count) == ("b", 1)


async def test_a_long_poll_learns_of_a_visibility_timeout_that_began_after_it() -> None:
    clock = ManualClock()
    queues = FakeQueues(clock)
    url = queues.create("q")
    await queues.send(url, [message(delay_s=2)])
    first = asyncio.ensure_future(queues.receive(url, entries_max=10, wait_s=20, visibility_timeout_s=3))
    await clock.settle()
    second = asyncio.ensure_future(queues.receive(url, entries_max=10, wait_s=20, visibility_timeout_s=3))
    await clock.advance(2)
    assert len(await first) == 1
    assert not second.done()
    await clock.advance(3)
    assert [m.receive_count for m in await second] == [2]


async def test_native_redrive_moves_what_was_received_too_often() -> None:
    clock = ManualClock()
    queues = FakeQueues(clock)
    queues.create("dead")
    url = queues.create("q", dead_letter_queue="dead", receives_max=2)
    await queues.send(url, [message("poison")])
    for _ in range(2):
        assert len(await queues.receive(url, entries_max=1, wait_s=0, visibility_timeout_s=0)) == 1
    assert await queues.receive(url, entries_max=1, wait_s=0, visibility_timeout_s=0) == []
    assert queues.messages("dead") == ["poison"]


async def test_a_full_queue_gives_nothing_until_something_is_deleted() -> None:
    clock = ManualClock()
    queues = FakeQueues(clock)
    url = queues.create("q", in_flight_max=3)
    await queues.send(url, [message(str(i)) for i in range(5)])
    received = await queues.receive(url, entries_max=10, wait_s=0, visibility_timeout_s=60)
    assert len(received) == 3
    with pytest.raises(Throttled, match="OverLimit"):
        await queues.receive(url, entries_max=10, wait_s=0, visibility_timeout_s=60)
    await queues.delete(url, [received[0].receipt])
    assert len(await queues.receive(url, entries_max=10, wait_s=0, visibility_timeout_s=60)) == 1


async def test_faults_strike_before_or_after_the_effect() -> None:
    clock = ManualClock()
    faults = Faults()
    queues = FakeQueues(clock, faults=faults)
    url = queues.create("q")
    faults.fail_next("send", Throttled("slow down"))
    with pytest.raises(Throttled):
        await queues.send(url, [message("a")])
    assert queues.messages("q") == []
    faults.lose_answer_next("send", Unavailable("connection reset"))
    with pytest.raises(Unavailable):
        await queues.send(url, [message("b")])
    assert queues.messages("q") == ["b"]
    faults.fail_entries_next("send", [1])
    assert [failure is None for failure in await queues.send(url, [message("c"), message("d")])] == [True, False]
    assert queues.messages("q") == ["b", "c"]
    assert faults.calls == [Call("queues", "send", "q", 1)] * 2 + [Call("queues", "send", "q", 2)]


async def test_a_gate_holds_the_response_but_not_the_effect() -> None:
    clock = ManualClock()
    queues = FakeQueues(clock)
    url = queues.create("q")
    gate = queues.faults.hold_answer_next("send")
    sending = asyncio.ensure_future(queues.send(url, [message()]))
    await gate.reached.wait()
    assert queues.messages("q") == ["b"]
    assert not sending.done()
    gate.open()
    assert await sending == [None]


async def test_duplicates_and_ignored_deletes() -> None:
    clock = ManualClock()
    queues = FakeQueues(clock)
    url = queues.create("q")
    await queues.send(url, [message()])
    queues.faults.duplicate_next()
    (first,) = await queues.receive(url, entries_max=10, wait_s=0, visibility_timeout_s=30)
    (second,) = await queues.receive(url, entries_max=10, wait_s=0, visibility_timeout_s=30)
    assert first.message_id == second.message_id
    queues.faults.ignore_delete_next()
    assert await queues.delete(url, [second.receipt]) == [None]
    await clock.advance(30)
    assert queues.messages("q") == ["b"]


async def test_two_connections_share_a_state_and_not_their_faults() -> None:
    clock = ManualClock()
    healthy = FakeQueues(clock)
    cut_off = healthy.connect(Faults())
    cut_off.faults.go_down(Unavailable("partition"))
    url = healthy.create("q")
    sent_to: list[Sent] = []
    healthy.on_sent.append(sent_to.append)
    with pytest.raises(Unavailable):
        await cut_off.resolve("q")
    assert (await healthy.resolve("q")).url == url
    cut_off.faults.come_up()
    await cut_off.send(url, [message(attributes={"a": Attribute("String", "v")})])
    assert healthy.messages("q") == ["b"]
    assert [sent.queue for sent in sent_to] == ["q"]
    healthy.remove("q")
    with pytest.raises(UnknownQueue):
        await cut_off.resolve("q")


async def test_the_table_leaves_chosen_entries_unprocessed() -> None:
    table = FakeTriggerTable(ManualClock())
    triggers = [Trigger(TriggerKey(1_000 + i, bytes([i]) * 12, 0), f"t{i}", b"{}") for i in range(3)]
    table.faults.fail_entries_next("add", [0, 2])
    assert await table.add(triggers) == [triggers[0], triggers[2]]
    assert table.triggers() == [triggers[1]]


async def test_raising_the_shard_count_keeps_the_records_there_are() -> None:
    table = FakeTriggerTable(ManualClock(), shard_count=2)
    (first, _) = await table.all()
    taken = await table.take(first, "a")
    table.raise_shard_count(4)
    records = await table.all()
    assert records[0] == taken
    assert [record.shard for record in records] == [0, 1, 2, 3]
    layout = await table.layout()
    assert layout is not None
    assert layout.shard_count == 4
