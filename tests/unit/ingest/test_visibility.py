"""`dynein.ingest.visibility` on its own, where a whole ingester would hide what it does."""

import asyncio
import random

from dynein.core.queues import OutgoingMessage
from dynein.errors import Unavailable
from dynein.ingest.visibility import Visibility
from dynein.observability.telemetry import Telemetry
from dynein.runtime.context import Context
from dynein.settings import Settings
from dynein.testing import FakeQueues, ManualClock


def visibility_of(queues: FakeQueues, url: str, clock: ManualClock) -> Visibility:
    context = Context(clock, random.Random(1), Telemetry())
    return Visibility(queues, url, context, Settings(visibility_timeout_s=30))


async def test_visibility_is_extended_after_half_of_the_timeout_ten_at_a_time() -> None:
    clock = ManualClock()
    queues = FakeQueues(clock)
    url = queues.create("inbound")
    visibility = visibility_of(queues, url, clock)
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
    queues.faults.fail_next("extend", Unavailable("no response"))
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
    visibility = visibility_of(queues, url, clock)
    await queues.send(url, [OutgoingMessage("{}", {})])
    (message,) = await queues.receive(url, entries_max=10, wait_s=0, visibility_timeout_s=30)
    visibility.keep(message.message_id, message.receipt)
    visibility.drop(message.message_id)
    await clock.advance(20)
    await visibility.run_once()
    await clock.advance(11)
    assert len(queues.peek("inbound")) == 1


async def test_a_response_for_an_old_receipt_does_not_count_for_the_new_one() -> None:
    clock = ManualClock()
    queues = FakeQueues(clock)
    url = queues.create("inbound")
    visibility = visibility_of(queues, url, clock)
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
    visibility = visibility_of(queues, url, clock)
    await queues.send(url, [OutgoingMessage("{}", {}), OutgoingMessage("{}", {})])
    for message in await queues.receive(url, entries_max=10, wait_s=0, visibility_timeout_s=30):
        visibility.keep(message.message_id, message.receipt)
    queues.faults.fail_entries_next("extend", [0], permanent=True)
    for _ in range(5):
        await clock.advance(16)
        await visibility.run_once()
    assert len(queues.peek("inbound")) == 1
