"""When following a queue ends; what it shows is in ``tests/acceptance/test_cli.py``."""

from __future__ import annotations

import asyncio

from dynein.admin.tail import Arrived, tail
from dynein.core.queues import OutgoingMessage
from dynein.testing import FakeQueues, ManualClock

WAIT_S = 5


async def test_told_to_stop_it_ends_with_the_receive_that_is_under_way() -> None:
    clock, stopping = ManualClock(), asyncio.Event()
    queues = FakeQueues(clock)
    url = queues.create("a")

    async def follow() -> list[Arrived]:
        return [one async for one in tail(queues, url, "a", clock, keep=False, stopping=stopping, wait_s=WAIT_S)]

    following = asyncio.ensure_future(follow())
    await queues.send(url, [OutgoingMessage("shown", {})])
    await clock.advance(20.5)
    assert not following.done()
    stopped_at = clock.monotonic()
    stopping.set()
    await clock.run_until(following.done)
    assert clock.monotonic() - stopped_at <= WAIT_S
    assert [arrived.body for arrived in await following] == ["shown"]
