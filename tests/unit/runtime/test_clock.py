from __future__ import annotations

import asyncio
import time

from dynein.runtime.clock import SystemClock, sleep_unless
from dynein.testing import ManualClock


def test_wall_time_is_rounded_down() -> None:
    before = time.time_ns()  # noqa: TID251 - compared with the real clock
    now_ms = SystemClock().now_ms()
    after = time.time_ns()  # noqa: TID251
    assert before // 1_000_000 <= now_ms <= after // 1_000_000


async def test_sleeping_takes_at_least_as_long_as_asked() -> None:
    clock = SystemClock()
    began = clock.monotonic()
    await clock.sleep(0.01)
    assert clock.monotonic() - began >= 0.01


async def test_sleep_unless_ends_by_time() -> None:
    clock = ManualClock()
    event = asyncio.Event()
    sleeping = asyncio.ensure_future(sleep_unless(event, clock, 5))
    await clock.advance(4.999)
    assert not sleeping.done()
    await clock.advance(0.001)
    assert await sleeping is False
    assert clock.sleepers == 0


async def test_sleep_unless_ends_by_the_event_and_leaves_no_sleeper_behind() -> None:
    clock = ManualClock()
    event = asyncio.Event()
    sleeping = asyncio.ensure_future(sleep_unless(event, clock, 5))
    await clock.advance(1)
    event.set()
    await clock.settle()
    assert await sleeping is True
    assert clock.sleepers == 0


async def test_sleep_unless_does_not_wait_when_there_is_nothing_to_wait_for() -> None:
    clock = ManualClock()
    event = asyncio.Event()
    assert await sleep_unless(event, clock, 0) is False
    assert await sleep_unless(event, clock, -1) is False
    event.set()
    assert await sleep_unless(event, clock, 5) is True


async def test_a_cancelled_sleep_unless_cancels_what_it_started() -> None:
    clock = ManualClock()
    sleeping = asyncio.ensure_future(sleep_unless(asyncio.Event(), clock, 5))
    await clock.settle()
    assert clock.sleepers == 1
    sleeping.cancel()
    await clock.settle()
    assert clock.sleepers == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
