"""`dynein.runtime.tasks`, sentence by sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dynein.errors import AccessDenied, Unavailable
from dynein.runtime.tasks import (
    Tasks,
    all_ended,
    all_of,
    any_set,
    cancel_all,
    first_of,
    run_until_drained,
    until,
    within,
)
from dynein.testing import ManualClock


def others() -> list[asyncio.Task[object]]:
    """Tasks that run beside the test."""
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def fail(error: Exception) -> None:
    raise error


async def turns(count: int) -> None:
    """End after so many turns of the event loop."""
    for _ in range(count):
        await ManualClock().sleep(0)


class Endless:
    """Tasks that end only when cancelled, and the order in which they were."""

    def __init__(self) -> None:
        self.ended: list[int] = []

    async def run(self, number: int, cleaning_up: int = 0) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await turns(cleaning_up)
            self.ended.append(number)


# --- Tasks ----------------------------------------------------------------------------------------------------------


async def test_a_started_task_runs_at_once_and_has_its_result() -> None:
    tasks = Tasks()

    async def work() -> str:
        return "done"

    task = tasks.start(work())
    await ManualClock().settle()
    assert task.done()
    assert await task == "done"
    await tasks.cancel_all()


async def test_tasks_are_cancelled_in_the_order_they_were_started_and_to_the_last() -> None:
    tasks, endless = Tasks(), Endless()
    started = [tasks.start(endless.run(number)) for number in range(20)]
    await ManualClock().settle()
    await tasks.cancel_all()
    assert endless.ended == list(range(20))
    assert all(task.cancelled() for task in started)
    assert others() == []


async def test_cancelling_waits_for_what_a_task_still_does() -> None:
    tasks, endless = Tasks(), Endless()
    tasks.start(endless.run(1, cleaning_up=5))
    await ManualClock().settle()
    await tasks.cancel_all()
    assert endless.ended == [1]


async def test_cancelling_waits_for_tasks_that_a_dying_task_starts() -> None:
    tasks, endless = Tasks(), Endless()

    async def leave_a_note() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            tasks.start(turns(3))

    tasks.start(leave_a_note())
    tasks.start(endless.run(1))
    await ManualClock().settle()
    await tasks.cancel_all()
    assert others() == []


async def test_failure_gets_the_first_error_and_no_other() -> None:
    unhandled: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    tasks = Tasks()
    tasks.start(turns(1))
    tasks.start(fail(AccessDenied("first")))
    tasks.start(fail(AccessDenied("second")))
    with pytest.raises(AccessDenied, match="first"):
        await tasks.failure
    await ManualClock().settle()
    assert unhandled == []
    await tasks.cancel_all()


async def test_tasks_that_end_well_or_are_cancelled_are_no_failure() -> None:
    tasks, endless = Tasks(), Endless()
    tasks.start(turns(1))
    cancelled = tasks.start(endless.run(1))
    await ManualClock().settle()
    cancelled.cancel()
    await ManualClock().settle()
    assert not tasks.failure.done()
    await tasks.cancel_all()
    assert not tasks.failure.done()


async def test_what_a_task_raises_while_it_is_cancelled_is_dropped() -> None:
    tasks = Tasks()
    unseen: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))

    async def die_badly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("while dying")

    tasks.start(die_badly())
    await ManualClock().settle()
    await tasks.cancel_all()
    del tasks
    assert unseen == [], "nor does asyncio complain that it was never retrieved"


# --- waiting for several --------------------------------------------------------------------------------------------


async def test_first_of_returns_with_the_first_and_leaves_the_others_running() -> None:
    tasks = Tasks()
    quick, slow = tasks.start(turns(1)), tasks.start(Endless().run(1))
    await first_of(quick, slow)
    assert quick.done()
    assert not slow.done()
    await tasks.cancel_all()


async def test_first_of_raises_the_error_of_one_that_failed() -> None:
    tasks = Tasks()
    with pytest.raises(AccessDenied, match="no"):
        await first_of(tasks.start(Endless().run(1)), tasks.start(fail(AccessDenied("no"))))
    await tasks.cancel_all()


async def test_all_ended_waits_for_the_last_however_they_end() -> None:
    tasks, endless = Tasks(), Endless()
    cancelled = tasks.start(endless.run(1))
    waited_for = [tasks.start(turns(3)), tasks.start(fail(RuntimeError("a bug"))), cancelled]
    waiting = asyncio.ensure_future(all_ended(iter(waited_for)))
    await ManualClock().settle()
    assert not waiting.done()
    cancelled.cancel()
    await waiting
    assert all(task.done() for task in waited_for)
    await tasks.cancel_all()


async def test_all_ended_of_nothing_returns() -> None:
    await all_ended([])


async def test_until_waits_for_its_end_though_the_others_end_before_it() -> None:
    tasks = Tasks()
    end = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(until(end, [tasks.start(turns(1)), tasks.start(turns(2))]))
    await ManualClock().settle()
    assert not waiting.done()
    end.set_result(None)
    await waiting
    await tasks.cancel_all()


async def test_until_raises_at_once_when_another_fails() -> None:
    end = asyncio.get_running_loop().create_future()
    tasks = Tasks()
    with pytest.raises(AccessDenied):
        await until(end, [tasks.start(turns(1)), tasks.start(fail(AccessDenied("no")))])
    await tasks.cancel_all()


async def test_until_raises_the_error_of_its_end_even_if_it_is_done_already() -> None:
    end = asyncio.get_running_loop().create_future()
    end.set_exception(AccessDenied("no"))
    with pytest.raises(AccessDenied):
        await until(end, [])


async def test_any_set_returns_with_the_first_event_and_leaves_no_task_behind() -> None:
    one, other = asyncio.Event(), asyncio.Event()
    waiting = asyncio.ensure_future(any_set(one, other))
    await ManualClock().settle()
    assert not waiting.done()
    other.set()
    await waiting
    assert others() == []


async def test_any_set_that_is_cancelled_leaves_no_task_behind() -> None:
    waiting = asyncio.ensure_future(any_set(asyncio.Event(), asyncio.Event()))
    await ManualClock().settle()
    await cancel_all([waiting])
    assert others() == []


# --- within ---------------------------------------------------------------------------------------------------------


async def test_within_has_the_result_of_work_that_ends_in_time_and_leaves_no_sleeper() -> None:
    clock = ManualClock()

    async def work() -> str:
        await clock.sleep(1.9)
        return "done"

    assert await clock.result_of(within(2.0, clock, work())) == "done"
    assert clock.sleepers == 0


async def test_within_raises_what_the_work_raises() -> None:
    with pytest.raises(AccessDenied):
        await within(2.0, ManualClock(), fail(AccessDenied("no")))


async def test_within_cancels_work_that_takes_longer_and_waits_until_it_has_ended() -> None:
    clock, cleaned_up = ManualClock(), asyncio.Event()
    cancelled_at: list[float] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled_at.append(clock.monotonic())
            await cleaned_up.wait()

    waiting = asyncio.ensure_future(within(2.0, clock, work()))
    await clock.advance(1.999)
    assert cancelled_at == []
    await clock.advance(0.001)
    assert cancelled_at == [2.0]
    assert not waiting.done()
    cleaned_up.set()
    with pytest.raises(Unavailable, match=r"no response within 2\.0 s"):
        await waiting


async def test_within_that_is_cancelled_cancels_its_work() -> None:
    clock, endless = ManualClock(), Endless()
    waiting = asyncio.ensure_future(within(2.0, clock, endless.run(1)))
    await clock.settle()
    await cancel_all([waiting])
    assert endless.ended == [1]
    assert clock.sleepers == 0


# --- ending several -------------------------------------------------------------------------------------------------


async def test_cancel_all_waits_for_each_and_drops_what_they_raise() -> None:
    endless = Endless()
    tasks = [
        asyncio.ensure_future(endless.run(1, cleaning_up=4)),
        asyncio.ensure_future(fail(RuntimeError("a bug"))),
        asyncio.ensure_future(endless.run(2)),
    ]
    await ManualClock().settle()
    await cancel_all(tasks)
    assert sorted(endless.ended) == [1, 2]
    assert others() == []


async def test_all_of_has_the_results_in_order() -> None:
    async def result(number: int) -> int:
        await turns(number)
        return number

    assert await all_of([result(2), result(1)]) == [2, 1]
    assert await all_of([result(3)]) == [3]
    assert await all_of([]) == []


async def test_all_of_lets_every_one_end_and_raises_a_fatal_error_before_others() -> None:
    ended: list[int] = []

    async def end(order: int, error: Exception | None) -> int:
        await turns(order)
        ended.append(order)
        if error is not None:
            raise error
        return order

    with pytest.raises(AccessDenied):
        await all_of([end(0, RuntimeError("a bug")), end(2, AccessDenied("no")), end(4, None)])
    assert ended == [0, 2, 4]
    with pytest.raises(RuntimeError, match="first"):
        await all_of([end(1, RuntimeError("first")), end(0, RuntimeError("second"))])
    with pytest.raises(RuntimeError, match="only"):
        await all_of([end(0, RuntimeError("only"))])


# --- the life of a process ------------------------------------------------------------------------------------------


class Worker:
    """An agent that works until it is told to stop, then drains for a while."""

    def __init__(self, drain: Callable[[], Awaitable[None]], fails_at_once: Exception | None = None) -> None:
        self._drain = drain
        self._fails_at_once = fails_at_once
        self.drained = False
        self.cancelled = False

    async def run(self, stopping: asyncio.Event) -> None:
        if self._fails_at_once is not None:
            raise self._fails_at_once
        try:
            await stopping.wait()
            await self._drain()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        self.drained = True


class Life:
    """A process of some agents."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.stopping = asyncio.Event()
        self.draining_at: list[float] = []

    def worker(self, drain_s: float, **failing: Exception) -> Worker:
        return Worker(lambda: self.clock.sleep(drain_s), **failing)

    async def run(self, *agents: Worker) -> tuple[float, bool]:
        took_s, late = await run_until_drained(
            agents,
            self.stopping,
            self.clock,
            drain_s=10.0,
            draining=lambda: self.draining_at.append(self.clock.monotonic()),
        )
        return took_s, late


async def test_agents_run_side_by_side_until_told_to_stop_and_then_all_drain() -> None:
    life = Life()
    agents = [life.worker(3.0), life.worker(5.0)]
    running = asyncio.ensure_future(life.run(*agents))
    await life.clock.advance(60)
    assert not running.done()
    assert life.draining_at == []
    life.stopping.set()
    assert await life.clock.result_of(running) == (5.0, False)
    assert life.draining_at == [60.0], "called once, when the drain began"
    assert all(agent.drained for agent in agents)
    assert others() == []


async def test_agents_that_drain_too_long_are_cancelled() -> None:
    life = Life()
    quick, slow = life.worker(3.0), life.worker(11.0)
    running = asyncio.ensure_future(life.run(slow, quick))
    await life.clock.settle()
    life.stopping.set()
    assert await life.clock.result_of(running) == (10.0, True)
    assert quick.drained
    assert slow.cancelled
    assert life.clock.sleepers == 0


async def test_an_agent_that_fails_stops_the_others_and_its_error_is_raised_once_all_have_drained() -> None:
    life = Life()
    healthy = life.worker(5.0)
    running = asyncio.ensure_future(life.run(healthy, life.worker(0.0, fails_at_once=AccessDenied("no"))))
    await life.clock.advance(4.9)
    assert life.stopping.is_set()
    assert not running.done()
    await life.clock.advance(0.1)
    assert healthy.drained
    with pytest.raises(AccessDenied):
        await running


async def test_an_agent_that_ends_stops_the_others() -> None:
    life = Life()

    class Brief(Worker):
        async def run(self, stopping: asyncio.Event) -> None:  # noqa: ARG002
            await life.clock.sleep(2.0)

    healthy = life.worker(1.0)
    assert await life.clock.result_of(life.run(healthy, Brief(lambda: turns(0)))) == (1.0, False)
    assert life.clock.monotonic() == 3.0
    assert healthy.drained


async def test_of_several_errors_that_of_the_first_agent_is_raised() -> None:
    life = Life()
    agents = [life.worker(0.0, fails_at_once=AccessDenied(name)) for name in ("first", "second")]
    with pytest.raises(AccessDenied, match="first"):
        await life.clock.result_of(life.run(*agents))


async def test_a_process_that_is_killed_cancels_its_agents() -> None:
    life = Life()
    agent = life.worker(5.0)
    running = asyncio.ensure_future(life.run(agent))
    await life.clock.settle()
    await cancel_all([running])
    assert agent.cancelled
    assert others() == []
