from __future__ import annotations

import asyncio
import random

import pytest

from dynein.api.direct_sender import LANES_MAX, DirectJob, DirectSender
from dynein.core.queues import OutgoingMessage
from dynein.delivery.destinations import Destinations
from dynein.errors import Overloaded
from dynein.observability.telemetry import Telemetry
from dynein.runtime.context import Context
from dynein.settings import Settings
from dynein.testing import FakeQueues, ManualClock


async def test_lanes_are_bounded_and_idle_ones_make_room() -> None:
    clock = ManualClock()
    queues = FakeQueues(clock)
    sender = DirectSender(
        queues,
        Destinations(queues, clock, ttl_s=1),
        Context(clock, random.Random(1), Telemetry()),
        Settings(submit_waiting_max=10, submit_in_flight_max=1),
    )
    job = DirectJob(OutgoingMessage("x", {}), 1, None, "q")
    gates = [queues.faults.hold_before_next("send") for _ in range(LANES_MAX)]
    urls = [queues.create(f"q{i}") for i in range(LANES_MAX + 1)]
    results = [sender.submit(url, job) for url in urls[:LANES_MAX]]
    await clock.settle()
    with pytest.raises(Overloaded):
        sender.submit(urls[LANES_MAX], job)
    gates[500].open()
    assert await results[500] is None
    await clock.settle()
    last = sender.submit(urls[LANES_MAX], job)
    for gate in gates:
        gate.open()
    assert await asyncio.gather(*results, last) == [None] * (LANES_MAX + 1)
    await sender.drained()
