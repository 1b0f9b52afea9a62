"""Where a trigger lives, and the key codec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynein.core.keys import (
    DUE_MAX_MS,
    JOB_ID_BYTES,
    FifoGroup,
    Kind,
    TriggerKey,
    bucket_of,
    fifo_shard_of,
    make_job_id,
    parse_partition_key,
    parse_sort_key,
    partition_key,
    range_after,
    range_from,
    shard_of,
    sort_key,
)

due_times = st.integers(0, DUE_MAX_MS)
job_ids = st.binary(min_size=JOB_ID_BYTES, max_size=JOB_ID_BYTES)
keys = st.builds(TriggerKey, due_times, job_ids, st.integers(0, 65_535))
kinds = st.sampled_from(Kind)


@given(st.integers(0, 1 << 48), st.integers(0, 65_535))
def test_partition_keys_round_trip(bucket: int, shard: int) -> None:
    assert parse_partition_key(partition_key(bucket, shard)) == (bucket, shard)


@pytest.mark.parametrize(
    "text",
    ["", "t#", "t#1", "t#1#", "t##2", "t#1#2#3", "t#1#2 ", "t#-1#2", "t#1#2\n", "T#1#2", "t#\u0661#2", "shard#1"],
)
def test_other_partitions_are_no_buckets(text: str) -> None:
    assert parse_partition_key(text) is None


@given(keys, kinds)
def test_sort_keys_round_trip(key: TriggerKey, kind: Kind) -> None:
    assert parse_sort_key(sort_key(key, kind), key.shard) == (key, kind)


@given(keys, kinds, keys, kinds)
def test_byte_order_is_due_order(one: TriggerKey, kind: Kind, other: TriggerKey, other_kind: Kind) -> None:
    by_bytes = sort_key(one, kind) < sort_key(other, other_kind)
    assert by_bytes == ((one.due_at_ms, one.job_id, kind) < (other.due_at_ms, other.job_id, other_kind))


@given(keys)
def test_a_tombstone_sorts_right_before_its_trigger(key: TriggerKey) -> None:
    tombstone, trigger = sort_key(key, Kind.TOMBSTONE), sort_key(key, Kind.TRIGGER)
    assert tombstone < trigger
    assert int.from_bytes(trigger, "big") - int.from_bytes(tombstone, "big") == 1


@given(st.binary(max_size=40))
def test_any_bytes_are_a_sort_key_or_refused(raw: bytes) -> None:
    try:
        key, kind = parse_sort_key(raw, 3)
    except ValueError:
        return
    assert sort_key(key, kind) == raw


@given(keys, kinds, st.integers(0, DUE_MAX_MS - 1), st.integers(0, DUE_MAX_MS - 1))
def test_ranges_hold_what_is_due_in_them(key: TriggerKey, kind: Kind, from_ms: int, until_ms: int) -> None:
    held = range_from(from_ms) <= sort_key(key, kind) < range_after(until_ms)
    assert held == (from_ms <= key.due_at_ms <= until_ms)


@given(due_times, st.integers(1, 10**9))
def test_a_bucket_holds_its_width(due_at_ms: int, width_ms: int) -> None:
    bucket = bucket_of(due_at_ms, width_ms)
    assert bucket * width_ms <= due_at_ms < (bucket + 1) * width_ms


@given(
    st.integers(0, 1 << 50),
    st.integers(1, 1 << 20),
    st.binary(min_size=5, max_size=5),
    st.binary(min_size=5, max_size=5),
)
def test_ids_sort_by_when_the_jobs_were_accepted(us: int, later_us: int, random: bytes, other: bytes) -> None:
    assert len(make_job_id(us, random)) == JOB_ID_BYTES
    assert make_job_id(us, random) < make_job_id(us + later_us, other)


def test_message_groups_are_spread_over_all_of_their_shards() -> None:
    groups = [FifoGroup("orders.fifo", f"customer-{i}") for i in range(500)]
    shards = [fifo_shard_of(group, 16) for group in groups]
    assert set(shards) == set(range(16))
    assert shards == [fifo_shard_of(group, 16) for group in groups]
    assert fifo_shard_of(FifoGroup("a", "bc"), 1 << 16) != fifo_shard_of(FifoGroup("ab", "c"), 1 << 16)


@given(job_ids, st.integers(1, 65_536))
def test_a_shard_is_one_of_the_shards(job_id: bytes, shard_count: int) -> None:
    assert 0 <= shard_of(job_id, shard_count) < shard_count
