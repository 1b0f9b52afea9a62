"""A lease's states, for how long it is valid, and what its renewals allow to be read."""

from __future__ import annotations

import itertools

import pytest

from dynein.core.shard_records import ShardRecord
from dynein.scheduler.lease import TRANSITIONS, Lease, LeaseState, LeaseTimes
from dynein.settings import Settings
from dynein.testing import ManualClock

RECORD = ShardRecord(
    3,
    owner="p",
    fence=1,
    heartbeat=0,
    read_mark_ms=200,
    settled_mark_ms=100,
    hold_mark_ms=0,
    retired_before=0,
    late_writes=5,
)
PATHS = {
    LeaseState.HELD: (),
    LeaseState.CLOSING: (LeaseState.CLOSING,),
    LeaseState.RELEASED: (LeaseState.CLOSING, LeaseState.RELEASED),
    LeaseState.LOST: (LeaseState.LOST,),
}


def lease_in(state: LeaseState) -> Lease:
    lease = Lease(RECORD, 7.0, ManualClock())
    for step in PATHS[state]:
        lease.become(step)
    return lease


@pytest.mark.parametrize(("state", "following"), list(itertools.product(LeaseState, repeat=2)))
def test_it_changes_as_the_table_says_and_in_no_other_way(state: LeaseState, following: LeaseState) -> None:
    lease = lease_in(state)
    if following in TRANSITIONS[state]:
        lease.become(following)
        assert lease.state is following
    else:
        valid = lease.valid()
        with pytest.raises(AssertionError, match=f"shard 3 is {state.value}"):
            lease.become(following)
        assert lease.state is state
        assert lease.valid() is valid


@pytest.mark.parametrize("state", list(LeaseState))
def test_nothing_is_sent_under_a_lease_that_has_ended(state: LeaseState) -> None:
    assert lease_in(state).valid() is (state in (LeaseState.HELD, LeaseState.CLOSING))


async def test_it_is_valid_for_the_time_it_is_trusted_from_the_start_of_its_renewal() -> None:
    clock = ManualClock()
    lease = Lease(RECORD, 7.0, clock)
    await clock.advance(6.9)
    assert lease.valid()
    await clock.advance(0.1)
    assert not lease.valid()
    lease.renewed(RECORD, 6.5, 2.0, tick=True)
    assert lease.valid()
    await clock.advance(1.5)
    assert not lease.valid()


def test_a_mark_may_be_read_up_to_once_it_has_stood_a_tick() -> None:
    lease = Lease(RECORD, 7.0, ManualClock())
    assert lease.readable_ms == 100
    lease.renewed(RECORD._replace(read_mark_ms=300), 0.0, 7.0, tick=True)
    assert lease.readable_ms == 100
    lease.renewed(RECORD._replace(read_mark_ms=400), 0.5, 7.0, tick=False)
    assert lease.readable_ms == 100, "a renewal in between is no tick"
    lease.renewed(RECORD._replace(read_mark_ms=400), 1.0, 7.0, tick=True)
    assert lease.readable_ms == 300
    assert lease.next_readable_ms == 400


def test_a_count_of_late_writes_is_settled_once_it_has_stood_a_tick() -> None:
    lease = Lease(RECORD, 7.0, ManualClock())
    lease.renewed(RECORD, 0.0, 7.0, tick=True)
    assert lease.settled_late_writes not in (5, 6), "that it was there at the take does not show for how long"
    lease.renewed(RECORD._replace(late_writes=6), 1.0, 7.0, tick=True)
    assert lease.settled_late_writes == 5
    lease.renewed(RECORD._replace(late_writes=6), 2.0, 7.0, tick=True)
    assert lease.settled_late_writes == 6


def test_a_send_that_begins_at_the_last_moment_ends_before_the_lease_does() -> None:
    for settings in (Settings(), Settings(lease_ttl_s=60.0, tick_s=0.5), Settings(call_timeout_s=1.0)):
        times = LeaseTimes(settings)
        assert times.trust_s + settings.call_timeout_s + times.margin_s <= settings.lease_ttl_s
        assert times.margin_s > 0
        assert times.renew_timeout_s <= times.trust_s, "there is time to repeat a renewal"
