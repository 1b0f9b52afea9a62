"""When buckets found empty may be retired, and when that is asked for without waiting for a tick."""

from dynein.core.shard_records import ShardRecord, new_shard_record
from dynein.scheduler.range_scan import Empty
from dynein.scheduler.retirement import Retirement, retire_before


def record(retired_before: int, late_writes: int) -> ShardRecord:
    return new_shard_record(0, 0, 1)._replace(retired_before=retired_before, late_writes=late_writes)


def test_retiring_stops_at_the_first_bucket_not_known_to_be_empty() -> None:
    assert retire_before(7, {7: 3, 8: 3, 10: 3}, 3) == 9
    assert retire_before(7, {8: 3}, 3) == 7
    assert retire_before(7, {7: 3, 8: 2, 9: 3}, 3) == 8, "a late write since"
    assert retire_before(7, {7: 3, 8: 3}, 3, buffered={8: 1}) == 8


def test_one_refusal_of_a_tick_allows_one_renewal_at_once() -> None:
    retirement = Retirement(7)
    retirement.found(Empty(7, 1))
    assert not retirement.should_retire_at_once(record(7, 1), ()), "the tick will do"
    assert retirement.retire_before(record(7, 1), ()) == 8
    retirement.renewed(record(7, 2))
    assert not retirement.should_retire_at_once(record(7, 2), ()), "refused, but nothing is known to be empty now"
    retirement.found(Empty(7, 2))
    assert not retirement.should_retire_at_once(record(7, 2), {7}), "or of that something is buffered"
    assert retirement.should_retire_at_once(record(7, 2), ())
    assert retirement.should_retire_at_once(record(7, 2), ()), "the renewal failed: it is asked for again"
    assert retirement.retire_before(record(7, 2), ()) == 8
    retirement.renewed(record(7, 3))
    retirement.found(Empty(7, 3))
    assert not retirement.should_retire_at_once(record(7, 3), ()), "refused again: the next chance is the tick's"
    assert retirement.retire_before(record(7, 3), ()) == 8
    retirement.renewed(record(8, 3))
    retirement.found(Empty(8, 3))
    assert not retirement.should_retire_at_once(record(8, 3), ()), "nothing was refused"


def test_what_is_retired_is_forgotten() -> None:
    retirement = Retirement(7)
    for bucket in (7, 8, 9):
        retirement.found(Empty(bucket, 1))
    assert retirement.retire_before(record(7, 1), ()) == 10
    retirement.renewed(record(9, 1))
    assert retirement.oldest_unproven(record(9, 1)) == 10
    assert retirement.oldest_unproven(record(7, 1)) == 7
