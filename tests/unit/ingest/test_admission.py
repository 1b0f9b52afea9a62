"""`dynein.ingest.admission` on its own, where a whole ingester would hide what it does."""

import asyncio

from dynein.ingest.admission import Admission
from dynein.settings import Settings
from dynein.testing import ManualClock


async def enter(admission: Admission, jobs: int) -> bool:
    admission.announce()
    return await admission.enter(jobs, jobs)


async def test_messages_are_admitted_by_room_in_the_order_they_came() -> None:
    clock = ManualClock()
    admission = Admission(clock, Settings(held_jobs_max=10, ingest_rate_per_s=1000.0))
    assert await enter(admission, 6)
    big = asyncio.ensure_future(enter(admission, 8))
    small = asyncio.ensure_future(enter(admission, 1))
    await clock.settle()
    assert not big.done()
    assert not small.done(), "in the order they came"
    admission.leave(6)
    await clock.settle()
    assert big.done()
    assert small.done()
    assert admission.slots == 9


async def test_a_large_job_takes_the_room_of_many_and_pays_for_one() -> None:
    clock = ManualClock()
    admission = Admission(clock, Settings(held_jobs_max=10, ingest_rate_per_s=1.0))
    admission.announce()
    assert await admission.enter(1, 9)
    other = asyncio.ensure_future(enter(admission, 2))
    await clock.settle()
    assert not other.done()
    admission.leave(9)
    await clock.advance(1.0)
    assert other.done()


async def test_it_is_ready_only_when_no_message_waits_and_there_is_room() -> None:
    clock = ManualClock()
    admission = Admission(clock, Settings(held_jobs_max=10, ingest_rate_per_s=1000.0))
    assert await admission.until_ready()
    admission.announce()
    ready = asyncio.ensure_future(admission.until_ready())
    await clock.settle()
    assert not ready.done()
    assert await admission.enter(10, 10)
    await clock.settle()
    assert not ready.done(), "full"
    admission.leave(3)
    await clock.settle()
    assert ready.done()


async def test_it_is_not_ready_while_its_tokens_are_overdrawn() -> None:
    clock = ManualClock()
    admission = Admission(clock, Settings(held_jobs_max=1000, ingest_rate_per_s=10.0))
    assert await enter(admission, 50)
    ready = asyncio.ensure_future(admission.until_ready())
    await clock.advance(4.05)
    assert not ready.done()
    await clock.advance(0.1)
    assert ready.done()


async def test_once_closed_it_turns_every_message_away() -> None:
    clock = ManualClock()
    admission = Admission(clock, Settings(held_jobs_max=10, ingest_rate_per_s=1000.0))
    assert await enter(admission, 10)
    waiting = [asyncio.ensure_future(enter(admission, 1)) for _ in range(3)]
    ready = asyncio.ensure_future(admission.until_ready())
    await clock.settle()
    admission.close()
    await clock.settle()
    assert [task.result() for task in waiting] == [False] * 3
    assert ready.result() is False
    assert admission.slots == 10
