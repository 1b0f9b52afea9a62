"""Writes that are repeated: what is settled when, which errors come out, and how much is tried again at once."""

from __future__ import annotations

import asyncio
import random

import pytest

from dynein.errors import Overloaded, Throttled, Unavailable
from dynein.runtime.partitioned_commit import PartitionedCommit
from dynein.runtime.retry import Backoff, Retry
from dynein.testing import ManualClock


class Store:
    """Items are a partition's letter and a number. Takes what it is told to; notes each call's items."""

    def __init__(self) -> None:
        self.closed: set[str] = set()
        self.error: Exception | None = None
        self.calls: list[list[str]] = []

    async def write(self, items: list[str]) -> list[bool]:
        self.calls.append(items)
        if self.error is not None:
            raise self.error
        return [item[0] not in self.closed for item in items]

    def partitions(self) -> list[str]:
        """The partitions of each call's items."""
        return ["".join(sorted({item[0] for item in call})) for call in self.calls]


class Scene:
    def __init__(self, *, waiting_max: int = 1000) -> None:
        self.clock = ManualClock()
        self.store = Store()
        self.failures: list[int] = []
        retry = Retry(self.clock, random.Random(1), Backoff(0.1, 10.0), failed=self._failed)
        self.commit: PartitionedCommit[str] = PartitionedCommit(
            "write",
            self.store.write,
            partition_of=lambda item: item[0],
            retry=retry,
            entries_max=4,
            waiting_max=waiting_max,
            in_flight_max=2,
        )

    def _failed(self, what: str, error: Exception, failures: int, pause_s: float) -> None:
        del what, error, pause_s
        self.failures.append(failures)


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_what_was_written_is_settled_and_the_rest_is_tried_again(scene: Scene) -> None:
    scene.store.closed = {"a"}
    a, b = scene.commit.submit("a1"), scene.commit.submit("b1")
    await asyncio.wait_for(b, 10)
    assert not a.done()
    scene.store.closed.clear()
    await scene.clock.result_of(a, within_s=0.1)
    assert scene.store.calls == [["a1", "b1"], ["a1"]]


async def test_further_writes_of_a_slow_partition_wait_and_share_its_calls(scene: Scene) -> None:
    scene.store.closed = {"a"}
    futures = [scene.commit.submit("a1")]
    await scene.clock.settle()
    futures += [scene.commit.submit("a2"), scene.commit.submit("b1")]
    await scene.clock.settle()
    assert scene.store.calls == [["a1"], ["b1"]]
    scene.store.closed.clear()
    await scene.clock.result_of(asyncio.gather(*futures), within_s=0.1)
    assert scene.store.calls[2:] == [["a1", "a2"]]


async def test_a_partition_that_takes_writes_again_gets_more_each_time(scene: Scene) -> None:
    scene.store.closed = {"a"}
    futures = [scene.commit.submit(f"a{n:02}") for n in range(30)]
    await scene.clock.advance(0.01)
    first_tries = len(scene.store.calls)
    scene.store.closed.clear()
    await scene.clock.result_of(asyncio.gather(*futures), within_s=0.1)
    again = [item for call in scene.store.calls[first_tries:] for item in call]
    assert len(again) == len(set(again)) == 30
    await scene.commit.submit("a99")
    assert scene.store.calls[-1] == ["a99"], "and it is slow no more"


async def test_an_error_that_passes_delays_all_partitions_of_the_call(scene: Scene) -> None:
    scene.store.error = Unavailable("no response")
    futures = [scene.commit.submit("a1"), scene.commit.submit("b1")]
    await scene.clock.advance(1.0)
    assert scene.failures[:3] == [1, 2, 3]
    scene.store.error = None
    await scene.clock.result_of(asyncio.gather(*futures), within_s=2.0)


@pytest.mark.parametrize("waits", [False, True])
async def test_any_other_error_comes_out(scene: Scene, *, waits: bool) -> None:
    if waits:
        scene.store.error = Throttled("slow down")
    future = scene.commit.submit("a1")
    if waits:
        await scene.clock.settle()
    scene.store.error = ValueError("malformed")
    with pytest.raises(ValueError, match="malformed"):
        await scene.clock.result_of(future, within_s=1.0)


async def test_what_nobody_waits_for_any_more_is_not_tried_again(scene: Scene) -> None:
    scene.store.closed = {"a"}
    future, other = scene.commit.submit("a1"), scene.commit.submit("a2")
    await scene.clock.settle()
    future.cancel()
    scene.store.closed.clear()
    await scene.clock.result_of(other, within_s=1.0)
    assert scene.store.calls == [["a1", "a2"], ["a2"]]


async def test_what_waits_is_bounded() -> None:
    scene = Scene(waiting_max=4)
    scene.store.closed = {"a"}
    futures = [scene.commit.submit(f"a{n}") for n in range(4)]
    await scene.clock.settle()
    for item in ("a4", "b1"):
        with pytest.raises(Overloaded):
            scene.commit.submit(item)
    for future in futures:
        future.cancel()
    await scene.clock.advance(1.0)
    scene.store.closed.clear()
    await scene.clock.result_of(scene.commit.submit("a5"), within_s=1.0)


async def test_a_slow_partition_shares_no_call_with_first_tries(scene: Scene) -> None:
    scene.store.closed = {"a"}
    futures = [scene.commit.submit("a1")]
    await scene.clock.settle()
    for n in range(50):
        await asyncio.wait_for(scene.commit.submit(f"b{n}"), 10)
        await scene.clock.advance(0.1)
    assert set(scene.store.partitions()) == {"a", "b"}
    futures[0].cancel()
