"""The rules for sharing memory among shards and destinations."""

from hypothesis import given
from hypothesis import strategies as st

from dynein.scheduler.memory_budget import lane_has_share, page_size


@given(st.integers(1, 1_000), st.integers(1, 1_000), st.integers(1, 8))
def test_shards_that_want_more_share_memory_evenly_and_never_pass_its_bound(
    page_jobs_max: int, jobs_max: int, shards: int
) -> None:
    held = [0] * shards
    for _ in range(10_000):
        sizes = [page_size(page_jobs_max, slots_max=jobs_max, slots=sum(held), shard_slots=jobs) for jobs in held]
        if not any(sizes):
            break
        wanting = next(i for i in sorted(range(shards), key=held.__getitem__) if sizes[i])
        held[wanting] += sizes[wanting]
        assert sum(held) <= jobs_max
    assert any(held), "an empty memory always takes a page"
    page = page_size(page_jobs_max, slots_max=jobs_max, slots=0, shard_slots=0)
    assert max(held) - min(held) <= page


@given(st.integers(8, 400), st.integers(1, 40))
def test_any_number_of_failing_destinations_leaves_memory_to_read_for_the_rest(jobs_max: int, failing: int) -> None:
    lanes = [0] * failing
    while growing := [
        i for i, jobs in enumerate(lanes) if lane_has_share(jobs, slots_max=jobs_max, lanes_slots=sum(lanes))
    ]:
        lanes[min(growing, key=lanes.__getitem__)] += 1
    assert sum(lanes) <= jobs_max * 3 // 4
    assert page_size(10**9, slots_max=jobs_max, slots=sum(lanes), shard_slots=0) > 0
