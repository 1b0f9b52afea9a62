"""Group commit, sentence by sentence of `dynein.runtime.group_commit`'s docstrings."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynein.errors import Overloaded, Unavailable
from dynein.runtime.group_commit import Batch, GroupCommit


class Callee:
    """Records its calls; each waits until the test answers it."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.answers: list[asyncio.Future[None]] = []
        self.concurrent = 0
        self.concurrent_max = 0

    async def __call__(self, items: list[str]) -> Sequence[str]:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.calls.append(items)
        self.answers.append(answer)
        self.concurrent += 1
        self.concurrent_max = max(self.concurrent_max, self.concurrent)
        try:
            await answer
        finally:
            self.concurrent -= 1
        return [item.upper() for item in items]

    def answer(self, call: int) -> None:
        self.answers[call].set_result(None)

    def fail(self, call: int, error: BaseException) -> None:
        self.answers[call].set_exception(error)


async def turns() -> None:
    """Let every callback that is ready run: a handful of loop turns settles any chain in here."""
    for _ in range(10):
        await asyncio.wait_for(_turn(), 10)


async def _turn() -> None:
    passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(passed.set_result, None)
    await passed


def commit(callee: Callee, **options: Any) -> GroupCommit[str, str]:
    return GroupCommit(callee, **({"entries_max": 3, "waiting_max": 100} | options))


async def test_the_first_goes_at_once_and_the_rest_gather_while_it_flies() -> None:
    callee = Callee()
    batches = commit(callee)
    first = batches.submit("a")
    await turns()
    assert callee.calls == [["a"]]
    rest = [batches.submit("b"), batches.submit("c")]
    await turns()
    assert callee.calls == [["a"]], "they wait for the flight"
    callee.answer(0)
    await turns()
    assert callee.calls == [["a"], ["b", "c"]]
    callee.answer(1)
    assert [await first, *[await future for future in rest]] == ["A", "B", "C"]


async def test_submissions_of_one_loop_turn_share_the_first_flight() -> None:
    callee = Callee()
    batches = commit(callee)
    for item in "ab":
        batches.submit(item)
    await turns()
    assert callee.calls == [["a", "b"]]


async def test_a_batch_holds_at_most_entries_max_in_order_of_submission() -> None:
    callee = Callee()
    batches = commit(callee)
    for item in "abcdefg":
        batches.submit(item)
    for call in range(3):
        await turns()
        callee.answer(call)
    await turns()
    assert callee.calls == [["a", "b", "c"], ["d", "e", "f"], ["g"]]


async def test_a_batch_weighs_at_most_bytes_max_but_one_item_may_weigh_more() -> None:
    callee = Callee()
    batches = commit(callee, bytes_max=4, weigh=len)
    for item in ("aa", "bb", "c", "dddddd", "e"):
        batches.submit(item)
    for call in range(4):
        await turns()
        callee.answer(call)
    await turns()
    assert callee.calls == [["aa", "bb"], ["c"], ["dddddd"], ["e"]]


@given(
    st.lists(st.text("x", min_size=1, max_size=9), max_size=40),
    st.integers(1, 5),
    st.integers(1, 12),
    st.integers(1, 3),
)
def test_every_batch_keeps_both_bounds_and_every_item_gets_its_own_answer(
    sizes: list[str], entries_max: int, bytes_max: int, in_flight_max: int
) -> None:
    calls: list[list[str]] = []

    async def flush(items: list[str]) -> list[str]:
        calls.append(items)
        await _turn()
        return [f"<{item}>" for item in items]

    async def scenario() -> list[str]:
        batches = GroupCommit(
            flush,
            entries_max=entries_max,
            waiting_max=100,
            bytes_max=bytes_max,
            weigh=lambda item: item.count("x"),
            in_flight_max=in_flight_max,
        )
        futures = [batches.submit(item) for item in items]
        await batches.drained()
        assert batches.waiting == batches.in_flight == 0
        return [future.result() for future in futures]

    items = [f"{i}{size}" for i, size in enumerate(sizes)]
    assert asyncio.run(scenario()) == [f"<{item}>" for item in items]
    assert [item for call in calls for item in call] == items
    for call in calls:
        assert 1 <= len(call) <= entries_max
        assert len(call) == 1 or sum(item.count("x") for item in call) <= bytes_max


async def test_what_the_callee_raises_every_item_of_that_batch_gets_and_no_other() -> None:
    callee = Callee()
    batches = commit(callee)
    first = [batches.submit("a"), batches.submit("b")]
    await turns()
    second = batches.submit("c")
    callee.fail(0, Unavailable("gone"))
    await turns()
    for future in first:
        with pytest.raises(Unavailable, match="gone"):
            await future
    callee.answer(1)
    assert await second == "C"


async def test_a_result_too_few_fails_the_batch_rather_than_pairing_answers_with_the_wrong_items() -> None:
    async def flush(items: list[str]) -> list[str]:
        return items[1:]

    batches = GroupCommit(flush, entries_max=3, waiting_max=10)
    futures = [batches.submit("a"), batches.submit("b")]
    await batches.drained()
    for future in futures:
        assert isinstance(future.exception(), AssertionError)


async def test_a_second_call_flies_only_when_a_full_batch_waits() -> None:
    callee = Callee()
    batches = commit(callee, in_flight_max=2)
    batches.submit("a")
    await turns()
    batches.submit("b")
    batches.submit("c")
    await turns()
    assert callee.calls == [["a"]], "two of three: not full"
    batches.submit("d")
    await turns()
    assert callee.calls == [["a"], ["b", "c", "d"]]


async def test_a_batch_is_full_by_bytes_too() -> None:
    callee = Callee()
    batches = commit(callee, in_flight_max=2, bytes_max=4, weigh=len)
    batches.submit("a")
    await turns()
    batches.submit("bbbb")
    await turns()
    assert callee.calls == [["a"], ["bbbb"]]


async def test_cancelled_submissions_do_not_make_a_batch_look_full() -> None:
    callee = Callee()
    batches = commit(callee, in_flight_max=2)
    batches.submit("a")
    await turns()
    batches.submit("b").cancel()
    batches.submit("c").cancel()
    batches.submit("d")
    await turns()
    assert callee.calls == [["a"]], "one live submission waits, so parallel flights would thin out batches"
    callee.answer(0)
    await turns()
    assert callee.calls == [["a"], ["d"]]


async def test_never_more_than_in_flight_max_calls() -> None:
    callee = Callee()
    batches = commit(callee, in_flight_max=2)
    futures = [batches.submit(str(i)) for i in range(20)]
    for call in range(7):
        await turns()
        assert batches.in_flight <= 2
        callee.answer(call)
    assert [await future for future in futures] == [str(i) for i in range(20)]
    assert callee.concurrent_max == 2


async def test_with_one_flight_items_leave_in_the_order_they_came() -> None:
    callee = Callee()
    batches = commit(callee, in_flight_max=1)
    for i in range(4):
        batches.submit(str(i))
    await turns()
    for i in range(4, 8):
        batches.submit(str(i))
    for call in range(3):
        callee.answer(call)
        await turns()
    assert [item for call in callee.calls for item in call] == [str(i) for i in range(8)]
    assert callee.concurrent_max == 1


async def test_waiting_max_turns_further_submissions_away_and_room_comes_back() -> None:
    callee = Callee()
    batches = commit(callee, waiting_max=2)
    batches.submit("a")
    await turns()
    batches.submit("b")
    batches.submit("c")
    with pytest.raises(Overloaded):
        batches.submit("d")
    assert batches.waiting == 2
    callee.answer(0)
    await turns()
    batches.submit("d")
    callee.answer(1)
    await turns()
    assert callee.calls == [["a"], ["b", "c"], ["d"]]


async def test_a_waiting_submitter_that_gives_up_is_not_sent() -> None:
    callee = Callee()
    batches = commit(callee, bytes_max=4, weigh=len)
    batches.submit("a")
    await turns()
    given_up = batches.submit("bb")
    kept = [batches.submit("cc"), batches.submit("dd")]
    given_up.cancel()
    callee.answer(0)
    await turns()
    assert callee.calls == [["a"], ["cc", "dd"]], "its weight does not count either"
    callee.answer(1)
    assert [await future for future in kept] == ["CC", "DD"]


async def test_a_submitter_that_gives_up_in_flight_does_not_disturb_its_neighbours() -> None:
    callee = Callee()
    batches = commit(callee)
    given_up, kept = batches.submit("a"), batches.submit("b")
    await turns()
    given_up.cancel()
    callee.answer(0)
    assert await kept == "B"
    await batches.drained()


async def test_all_waiting_submitters_gone_leaves_it_idle_without_a_call() -> None:
    callee = Callee()
    batches = commit(callee)
    batches.submit("a").cancel()
    await asyncio.wait_for(batches.drained(), 10)
    assert callee.calls == []
    assert batches.idle


async def test_drained_waits_for_what_waits_and_what_flies() -> None:
    callee = Callee()
    batches = commit(callee)
    await asyncio.wait_for(batches.drained(), 10)
    batches.submit("a")
    await turns()
    batches.submit("b")
    draining = asyncio.ensure_future(batches.drained())
    await turns()
    callee.answer(0)
    await turns()
    assert not draining.done()
    assert not batches.idle
    callee.answer(1)
    await asyncio.wait_for(draining, 10)


async def test_a_cancelled_call_cancels_its_submitters_and_the_next_batch_still_flies() -> None:
    callee = Callee()
    batches = commit(callee)
    doomed = batches.submit("a")
    await turns()
    waiting = batches.submit("b")
    callee.answers[0].cancel()
    await turns()
    assert doomed.cancelled()
    callee.answer(1)
    assert await waiting == "B"


async def test_an_item_may_be_answered_before_the_rest_of_its_batch() -> None:
    rest = asyncio.Event()

    async def flush(items: Batch[str, str]) -> list[str]:
        items.settle(1, "early")
        await rest.wait()
        return [f"late {item}" for item in items]

    commits: GroupCommit[str, str] = GroupCommit(flush, entries_max=3, waiting_max=10)
    first, second = commits.submit("a"), commits.submit("b")
    assert await second == "early"
    assert not first.done()
    rest.set()
    assert await first == "late a"
    assert second.result() == "early"


async def test_those_that_wait_are_sent_in_their_order_if_they_have_one() -> None:
    callee = Callee()
    batcher = commit(callee, order=lambda item: item[0])
    futures = [batcher.submit(item) for item in ("5", "3a")]
    await turns()
    futures += [batcher.submit(item) for item in ("9", "1", "3b", "3c", "2")]
    for call in range(3):
        callee.answer(call)
        await turns()
    assert callee.calls == [["3a", "5"], ["1", "2", "3b"], ["3c", "9"]]
    assert [await future for future in futures] == ["5", "3A", "9", "1", "3B", "3C", "2"]
