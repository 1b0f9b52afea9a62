from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

import pytest

from dynein.errors import NotBootstrapped, Throttled
from dynein.runtime.periodic import run_periodically
from dynein.testing import ManualClock


class Agent:
    """Does what its script says, pass by pass, and notes when."""

    def __init__(self, clock: ManualClock, script: list[float | Exception]) -> None:
        self.clock = clock
        self.script = script
        self.passes: list[float] = []

    async def run_once(self) -> float:
        self.passes.append(self.clock.monotonic())
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


def start(clock: ManualClock, run_once: Callable[[], object]) -> tuple[asyncio.Task[None], asyncio.Event]:
    stopping = asyncio.Event()
    return asyncio.ensure_future(
        run_periodically("agent", run_once, clock, stopping, random.Random(1))  # type: ignore[arg-type]
    ), stopping


async def test_it_pauses_as_the_pass_says() -> None:
    clock = ManualClock()
    agent = Agent(clock, [1, 0, 2.5, 100])
    running, stopping = start(clock, agent.run_once)
    await clock.advance(10)
    assert agent.passes == [0, 1, 1, 3.5]
    stopping.set()
    await clock.settle()
    assert running.done()
    assert clock.sleepers == 0


async def test_it_backs_off_from_errors_and_recovers(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    agent = Agent(clock, [Throttled("slow down"), ValueError("a bug"), RuntimeError(), 1, Throttled("again"), 100])
    with caplog.at_level(logging.WARNING):
        running, stopping = start(clock, agent.run_once)
        await clock.advance(10)
    pauses = [b - a for a, b in zip(agent.passes, agent.passes[1:], strict=False)]
    assert 0.05 <= pauses[0] <= 0.1
    assert 0.1 <= pauses[1] <= 0.2
    assert 0.2 <= pauses[2] <= 0.4
    assert pauses[3] == pytest.approx(1)
    assert 0.05 <= pauses[4] <= 0.1, "a good pass starts the backoff anew"
    assert "slow down" in caplog.messages[0]
    assert not caplog.records[0].exc_info
    assert caplog.records[1].exc_info, "an error nobody foresaw is logged with where it came from"
    assert "RuntimeError" in caplog.messages[2], "an error without words is named by its type"
    stopping.set()
    await running


async def test_a_stop_ends_the_loop() -> None:
    clock = ManualClock()
    agent = Agent(clock, [NotBootstrapped("run dynein bootstrap")])
    running, _ = start(clock, agent.run_once)
    await clock.settle()
    with pytest.raises(NotBootstrapped):
        await running


async def test_no_pass_begins_after_it_was_told_to_stop() -> None:
    clock = ManualClock()
    gate = asyncio.Event()
    begun: list[int] = []

    async def run_once() -> float:
        begun.append(1)
        await gate.wait()
        return 0.0

    running, stopping = start(clock, run_once)
    await clock.settle()
    stopping.set()
    await clock.settle()
    assert not running.done(), "the pass under way is finished, not cut off"
    gate.set()
    await running
    assert begun == [1]
