from __future__ import annotations

from dynein.errors import Unavailable
from dynein.observability.metrics.dispatcher import SHARD_LABELS_MAX
from dynein.scheduler.lag import Lag, oldest_ages_s
from tests.unit.scheduler.world import Process, World

SHARDS = ["0", "1", "2", "3"]


def ages(process: Process) -> dict[str, float]:
    """By shard."""
    (metric,) = process.telemetry.oldest_overdue_age.collect()
    return {sample.labels["shard"]: sample.value for sample in metric.samples}


def overdue(process: Process) -> float | None:
    return process.telemetry.registry.get_sample_value("dynein_overdue_jobs")


async def test_nothing_is_late_while_jobs_are_sent_in_time(world: World) -> None:
    (process,) = world.start("a")
    await world.until_owned()
    for second in range(3, 8):
        await world.add(world.now_ms + second * 1000)
    await world.clock.advance(10)
    assert len(world.landed) == 5
    assert ages(process) == dict.fromkeys(SHARDS, 0.0)
    assert overdue(process) == 0


async def test_what_a_failing_destination_keeps_in_memory_is_late_since_its_due_time(world: World) -> None:
    (process,) = world.start("a")
    await world.until_owned()
    process.queue_faults.fail_next("send", Unavailable("down"), times=10_000)
    due_at_ms = world.now_ms + 5000
    for _ in range(3):
        await world.add(due_at_ms, shard=2)
    await world.clock.advance(5.9)
    assert overdue(process) == 0, "within a second of its due time nothing is called late"
    await world.clock.advance(30)
    assert overdue(process) == 3
    late_s = (world.now_ms - due_at_ms) / 1000
    assert late_s - 1.5 <= ages(process)["2"] <= late_s, "as of the last tick"
    assert [ages(process)[shard] for shard in ("0", "1", "3")] == [0, 0, 0]


async def test_a_shard_that_cannot_be_read_is_late_by_how_far_its_reading_lags(world: World) -> None:
    (process,) = world.start("a")
    await world.until_owned()
    await world.clock.advance(10)
    process.table_faults.fail_next("read", Unavailable("down"), times=10_000)
    await world.clock.advance(60)
    assert overdue(process) == 0, "none that it knows of"
    assert all(50 < age <= 60 for age in ages(process).values())


async def test_what_was_evicted_counts_from_its_due_time(world: World) -> None:
    world.settings = world.settings.model_copy(update={"lane_waiting_max": 1})
    (process,) = world.start("a")
    await world.until_owned()
    process.queue_faults.fail_next("send", Unavailable("down"), times=10_000)
    due_at_ms = world.now_ms + 5000
    for i in range(40):
        await world.add(due_at_ms + i, shard=1)
    await world.clock.advance(40)
    assert process.dispatcher.snapshot().full_queues == ["a"]
    assert ages(process)["1"] > 30


async def test_a_released_shard_has_no_series(world: World) -> None:
    (first,) = world.start("a")
    await world.until_owned()
    await world.clock.advance(5)
    assert sorted(ages(first)) == SHARDS
    (second,) = world.start("b")
    await world.clock.run_until(lambda: len(second.shards) == 2, within_s=60)
    await world.clock.advance(5)
    assert len(ages(first)) == len(ages(second)) == 2
    assert sorted([*ages(first), *ages(second)]) == SHARDS
    second.stopping.set()
    await world.clock.run_until(second.task.done, within_s=60)
    assert ages(second) == {}


def test_shards_past_the_bound_share_a_label_which_shows_the_worst() -> None:
    lags = [Lag(shard, 10_000 - shard, 0) for shard in range(SHARD_LABELS_MAX + 2)]
    shown = oldest_ages_s(lags, 10_000)
    assert len(shown) == SHARD_LABELS_MAX + 1
    assert shown["1"] == 0.001
    assert shown["other"] == (SHARD_LABELS_MAX + 1) / 1000
    assert oldest_ages_s([Lag(3, 99_999, 0)], 10_000) == {"3": 0.0}, "read ahead is not late"
