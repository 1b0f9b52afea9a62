from __future__ import annotations

import asyncio

from dynein.runtime.clock import SystemClock
from dynein.runtime.time_slices import TimeSlices


class Stopped(SystemClock):
    """Time passes when the test says so."""

    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


async def test_others_have_their_turn_once_a_slice_is_over_and_not_before() -> None:
    clock = Stopped()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await clock.sleep(0)

    running = asyncio.ensure_future(other())
    await clock.sleep(0)
    slices = TimeSlices(clock, slice_s=0.25)
    for _ in range(3):
        seen = turns
        for _ in range(10):
            await slices.give_way()
        assert turns == seen
        clock.now_s += 0.25
        await slices.give_way()
        assert turns > seen
    running.cancel()
