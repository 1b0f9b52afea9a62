"""Fair shares: in whatever order members poll, all shards end up owned once and nothing moves without need."""

import random

from hypothesis import given
from hypothesis import strategies as st

from dynein.core.shard_records import ShardRecord
from dynein.fleet.staleness import ShardsSeen, Staleness, leases_of, shards_seen
from dynein.scheduler.lease_assignment import PollSchedule, fair_share, plan, takeable


def record(shard: int, owner: str | None = None, fence: int = 1, heartbeat: int = 0) -> ShardRecord:
    return ShardRecord(shard, owner, fence, heartbeat, 0, 0, 0, 0, 0)


class Fleet:
    """Members that poll the records one after another, in any order, and act."""

    def __init__(self, shard_count: int) -> None:
        self.owners: list[str | None] = [None] * shard_count

    def act(self, me: str, live: list[str]) -> int:
        """One member's pass; how many shards changed owners."""
        records = [record(shard, owner) for shard, owner in enumerate(self.owners)]
        gone = [shard for shard, owner in enumerate(self.owners) if owner is not None and owner not in live]
        free = [r for r in records if r.owner is None or r.shard in gone]
        mine = [shard for shard, owner in enumerate(self.owners) if owner == me]
        wanted = plan(me, live, records, mine=mine, free=free)
        assert len(wanted.take) <= wanted.lacking
        assert not (wanted.take and wanted.release)
        assert set(wanted.release) <= set(mine)
        for taken in wanted.take:
            assert taken in free
            self.owners[taken.shard] = me
        for shard in wanted.release:
            self.owners[shard] = None
        return len(wanted.take) + len(wanted.release)

    def settle(self, live: list[str], rng: random.Random) -> int:
        """Passes until no member acts; how many shards changed owners."""
        moves = 0
        for _ in range(20):
            order = list(live)
            rng.shuffle(order)
            now = sum(self.act(me, live) for me in order)
            moves += now
            if now == 0:
                return moves
        raise AssertionError("never settles")

    def check(self, live: list[str]) -> None:
        counts = [self.owners.count(member) for member in live]
        assert sum(counts) == len(self.owners), "every shard has one live owner"
        assert max(counts) - min(counts) <= 1


members = st.lists(st.text("abxyz", min_size=1, max_size=3), min_size=1, max_size=9, unique=True).map(sorted)


@given(st.integers(1, 70), st.lists(members, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_every_shard_has_one_owner_and_shares_differ_by_one_at_most(
    shard_count: int, fleets: list[list[str]], rng: random.Random
) -> None:
    fleet = Fleet(shard_count)
    for live in fleets:
        fleet.settle(live, rng)
        fleet.check(live)
        assert fleet.settle(live, rng) == 0, "no flapping"


@given(st.integers(1, 70), members, st.randoms(use_true_random=False))
def test_joining_moves_no_more_than_the_newcomer_s_share(shard_count: int, live: list[str], rng: random.Random) -> None:
    fleet = Fleet(shard_count)
    fleet.settle(live, rng)
    joined = sorted([*live, "newcomer"])
    moves = fleet.settle(joined, rng)
    fleet.check(joined)
    share = fleet.owners.count("newcomer")
    assert share == shard_count // len(joined), "rounding up is for those who own most already"
    assert moves == 2 * share, "each moved shard is released once and taken once"


@given(st.integers(1, 70), members, st.randoms(use_true_random=False))
def test_leaving_moves_only_what_the_leaver_had(shard_count: int, live: list[str], rng: random.Random) -> None:
    fleet = Fleet(shard_count)
    all_members = sorted([*live, "leaver"])
    fleet.settle(all_members, rng)
    orphans = fleet.owners.count("leaver")
    assert fleet.settle(live, rng) == orphans
    fleet.check(live)


@given(st.integers(1, 100), members, st.data())
def test_shares_add_up_to_all_shards_whatever_is_held(shard_count: int, live: list[str], data: st.DataObject) -> None:
    held = {member: data.draw(st.integers(0, shard_count)) for member in live}
    assert sum(fair_share(member, live, held, shard_count) for member in live) == shard_count


@given(st.integers(2, 9), st.integers(1, 8))
def test_two_takers_of_an_unowned_table_do_not_collide(member_count: int, shards_each: int) -> None:
    live = [f"m{i}" for i in range(member_count)]
    records = [record(shard) for shard in range(member_count * shards_each)]
    taken = [r.shard for me in live for r in plan(me, live, records, mine=[], free=records).take]
    assert sorted(taken) == list(range(len(records)))


class TestTakeable:
    def free(self, records: list[ShardRecord], staleness: Staleness[int], now: float, **more: object) -> list[int]:
        arguments = {"lease_ttl_s": 10.0, "me": "me", "own_fences": {}, "blocked": (), **more}
        return [r.shard for r in takeable(records, staleness, now=now, **arguments)]  # type: ignore[arg-type]

    def test_a_lease_is_free_once_it_is_unchanged_for_its_time_and_not_before(self) -> None:
        staleness, records = Staleness[int](), [record(0, "other")]
        staleness.observe(leases_of(records), 100.0)
        staleness.observe(leases_of(records), 109.0)
        assert self.free(records, staleness, 109.9) == []
        assert self.free(records, staleness, 110.0) == [0]

    def test_a_heartbeat_or_a_fence_or_an_owner_starts_its_time_anew(self) -> None:
        for changed in (record(0, "other", heartbeat=1), record(0, "other", fence=2), record(0, "another")):
            staleness: Staleness[int] = Staleness()
            staleness.observe(leases_of([record(0, "other")]), 100.0)
            staleness.observe(leases_of([changed]), 109.0)
            assert self.free([changed], staleness, 118.9) == []
            assert self.free([changed], staleness, 119.0) == [0]

    def test_a_shard_seen_for_the_first_time_is_not_free(self) -> None:
        staleness, records = Staleness[int](), [record(0, "other")]
        staleness.observe(leases_of(records), 100.0)
        assert self.free(records, staleness, 100.0) == []

    def test_an_unowned_shard_is_free_at_once_unless_blocked(self) -> None:
        staleness, records = Staleness[int](), [record(0), record(1)]
        staleness.observe(leases_of(records), 100.0)
        assert self.free(records, staleness, 100.0, blocked={1}) == [0]

    def test_a_take_whose_response_was_lost_need_not_expire(self) -> None:
        staleness, records = Staleness[int](), [record(0, "me", fence=7), record(1, "other", fence=7)]
        staleness.observe(leases_of(records), 100.0)
        assert self.free(records, staleness, 100.0, own_fences={0: 7, 1: 7}) == [0], "another's fence may be the same"
        assert self.free(records, staleness, 100.0, own_fences={0: 6}) == []


def test_a_shard_counts_as_unowned_without_an_owner_or_once_its_lease_has_run_out() -> None:
    records = [record(0, "a"), record(1, "b"), record(2)]
    staleness: Staleness[int] = Staleness()
    staleness.observe(leases_of(records), 100.0)
    assert shards_seen(records, staleness, now=100.0, lease_ttl_s=10) == ShardsSeen(3, 1)
    renewed = [record(0, "a", heartbeat=1), *records[1:]]
    staleness.observe(leases_of(renewed), 110.0)
    assert shards_seen(renewed, staleness, now=110.0, lease_ttl_s=10) == ShardsSeen(3, 2)


class TestPolling:
    def test_all_records_are_read_at_first_and_then_every_second_tick(self) -> None:
        polls, live = PollSchedule(), ["me"]
        assert polls.is_due(100.0, live, 1.0)
        polls.polled(100.0, live, fast=False)
        assert not polls.is_due(101.0, live, 1.0)
        assert polls.is_due(101.9, live, 1.0)
        assert polls.pause_s(1.0) == 1.0

    def test_a_change_of_the_roster_is_acted_on_at_once(self) -> None:
        polls = PollSchedule()
        polls.polled(100.0, ["me"], fast=False)
        assert polls.is_due(100.1, ["me", "other"], 1.0)

    def test_polls_come_fast_while_shards_change_owners(self) -> None:
        polls, live = PollSchedule(), ["me"]
        polls.polled(100.0, live, fast=True)
        assert polls.is_due(100.1, live, 1.0)
        assert polls.pause_s(1.0) == 0.5
        polls.polled(100.1, live, fast=False)
        assert not polls.is_due(100.2, live, 1.0)
        polls.hurry()
        assert polls.is_due(100.2, live, 1.0)
