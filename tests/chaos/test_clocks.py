"""A process whose wall clock is wrong: that shows, and one that is minutes off ends before it sends anything.

What a clock that is off by less does to jobs, `test_chaos` checks.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.acceptance.fleet import QUICK, Fleet, Process, fleet, until
from tests.chaos.clocks import HOW_TO_GET_IT, Clock, library
from tests.chaos.signatures import OFF_MAX_S, checked_signatures

pytestmark = pytest.mark.skipif(library() is None, reason=HOW_TO_GET_IT)

METRIC = "dynein_clock_offset_seconds"
AHEAD_S = 30
ALERTED_S = 2
"""docs/runbooks/DyneinClockSkew.md"""


async def offset_is(running: Fleet, process: Process, wanted_s: float) -> None:
    """Return once the process shows that its clock is ahead by so much, within what an alert allows for."""

    async def shown() -> bool:
        return abs(await running.metric(process, METRIC) - wanted_s) < ALERTED_S

    await until(shown, f"{METRIC} is {wanted_s}")


async def test_the_offset_shows_and_is_gone_when_the_clock_is_right_again(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        running.environment |= QUICK
        clock = Clock(tmp_path / "clock")
        right, wrong = await asyncio.gather(
            running.start("dispatcher"), running.start("dispatcher", **clock.environment)
        )
        for ahead_s in (AHEAD_S, -AHEAD_S, 0):
            clock.set(ahead_s * 1000)
            await offset_is(running, wrong, ahead_s)
            await offset_is(running, right, 0)
        assert [await process.terminate() for process in (right, wrong)] == [0, 0]


async def test_a_process_whose_clock_is_minutes_off_ends_and_says_why_and_sends_nothing(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running, running.sqs() as sqs, checked_signatures(running.endpoint) as checking:
        running.environment |= QUICK
        url = (await sqs.create_queue(QueueName="work"))["QueueUrl"]
        api, ingester = await asyncio.gather(running.start("api"), running.start("ingester"))
        job = {"queue": "work", "body": "not yet", "policy": "SCHEDULED", "delay": 2 * OFF_MAX_S - 60}
        async with running.http.post(f"{api.url}/v1/jobs", json=job) as answer:
            token = (await answer.json())["token"]

        async def stored() -> bool:
            return token in await running.stored_tokens()

        await until(stored, "the job is stored")
        clock = Clock(tmp_path / "clock")
        dispatcher = await running.start("dispatcher", DYNEIN_ENDPOINT_URL=checking, **clock.environment)
        clock.set(2 * OFF_MAX_S * 1000)
        assert await dispatcher.ended() != 0
        assert "clock" in dispatcher.log.read_text().splitlines()[-1], dispatcher.log.read_text()
        assert token in await running.stored_tokens()
        assert "Messages" not in await sqs.receive_message(QueueUrl=url)
        assert [await process.terminate() for process in (api, ingester)] == [0, 0]
