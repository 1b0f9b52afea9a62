"""The read plan against a shard by brute force, and its rules one by one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from dynein.core.keys import bucket_of
from dynein.core.trigger_store import Page
from dynein.scheduler.read_plan import ReadPlan
from dynein.scheduler.read_states import IllegalTransition, State
from tests.unit.scheduler.read_model import GRACE_MS, READ_AHEAD_MS, TICK_MS, WIDTH_MS, Shard

QUEUES = st.sampled_from(["a", "b"])
LIMITS = st.integers(1, 4)
EMPTY = Page([], [], [], None)


def state_of(plan: ReadPlan) -> str:
    """Everything that a plan remembers."""
    retirement = plan._retirement
    return repr([(name, value) for name, value in sorted(vars(plan).items()) if value is not retirement]) + repr(
        sorted(vars(retirement).items())
    )


class Plans(RuleBasedStateMachine):
    """Anything may happen at any time: writes, moves, sends, evictions, renewals, takeovers, failed reads."""

    def __init__(self) -> None:
        super().__init__()
        self.shard = Shard()

    # --- writers

    @rule(after_ms=st.lists(st.integers(0, 30), min_size=1, max_size=8), queue=QUEUES)
    def stored_ahead(self, after_ms: list[int], queue: str) -> None:
        for ms in after_ms:
            self.shard.store_ahead(ms, queue)

    @rule(ms=st.integers(0, 120), queue=QUEUES, counted=st.booleans())
    def stored_late(self, ms: int, queue: str, *, counted: bool) -> None:
        key = self.shard.store_late(ms, queue)
        if counted:
            self.shard.count_late(key)

    @precondition(lambda self: self.shard.uncounted)
    @rule(data=st.data())
    def counted_late(self, data: st.DataObject) -> None:
        self.shard.count_late(data.draw(st.sampled_from(sorted(self.shard.uncounted))))

    @rule(ms=st.integers(0, 30), queue=QUEUES)
    def moved(self, ms: int, queue: str) -> None:
        self.shard.move(ms, queue)

    @precondition(lambda self: self.shard.hidden)
    @rule(data=st.data())
    def shown(self, data: st.DataObject) -> None:
        self.shard.show(data.draw(st.sampled_from(sorted(self.shard.hidden))))

    # --- time and the lease

    @rule(ms=st.integers(1, TICK_MS))
    def time_passes(self, ms: int) -> None:
        self.shard.pass_time(ms)

    @rule(ms=st.integers(TICK_MS - 2, TICK_MS + 5), answered=st.integers(0, 5).map(bool))
    def tick(self, ms: int, *, answered: bool) -> None:
        self.shard.tick(ms, answered=answered)

    @rule(ticks=st.integers(1, 12), limit=LIMITS)
    def undisturbed(self, ticks: int, limit: int) -> None:
        if self.shard.under_way is not None:
            self.shard.fail()
        for _ in range(ticks):
            self.shard.tick(TICK_MS)
            self.shard.read_all(limit)

    @precondition(lambda self: self.shard.under_way is None)
    @rule(later_ms=st.sampled_from([0, 100]), behind_ms=st.sampled_from([0, 25]))
    def taken_over(self, later_ms: int, behind_ms: int) -> None:
        self.shard.pass_time(later_ms)
        self.shard.set_clock(behind_ms)
        self.shard.take_over()

    # --- the buffer

    @precondition(lambda self: self.shard.buffered)
    @rule(data=st.data())
    def removed(self, data: st.DataObject) -> None:
        self.shard.remove(data.draw(st.sampled_from(sorted(self.shard.buffered))))

    @precondition(lambda self: self.shard.buffered)
    @rule()
    def all_removed(self) -> None:
        for key in list(self.shard.buffered):
            self.shard.remove(key)

    @precondition(lambda self: self.shard.buffered)
    @rule(data=st.data())
    def evicted(self, data: st.DataObject) -> None:
        self.shard.evict(data.draw(st.sampled_from(sorted(self.shard.buffered))))

    @rule(queue=QUEUES, evicted=st.sampled_from([0, 1, 100]))
    def filled(self, queue: str, evicted: int) -> None:
        """The latest of those buffered go first here; in a dispatcher the earliest do, mostly."""
        self.shard.full.add(queue)
        for key in sorted(key for key, to in self.shard.buffered.items() if to == queue)[::-1][:evicted]:
            self.shard.evict(key)

    @rule(queue=QUEUES)
    def drained(self, queue: str) -> None:
        self.shard.drain(queue)

    @precondition(lambda self: self.shard.under_way is None and self.shard.evicted)
    @rule(pages=st.integers(1, 3), limit=LIMITS)
    def recovered(self, pages: int, limit: int) -> None:
        for queue in list(self.shard.evicted):
            self.shard.drain(queue)
        self.shard.read_on(pages, limit)

    # --- reading

    @precondition(lambda self: self.shard.under_way is None)
    @rule()
    def begun(self) -> None:
        self.shard.begin()

    @precondition(lambda self: self.shard.under_way is None)
    @rule(pages=st.integers(1, 6), limit=LIMITS)
    def read_on(self, pages: int, limit: int) -> None:
        self.shard.read_on(pages, limit)

    @precondition(lambda self: self.shard.under_way is not None and self.shard.under_way.page is None)
    @rule(limit=LIMITS)
    def read(self, limit: int) -> None:
        self.shard.read(limit)

    @precondition(lambda self: self.shard.under_way is not None and self.shard.under_way.page is not None)
    @rule(twice=st.booleans())
    def finished(self, *, twice: bool) -> None:
        assert self.shard.under_way is not None
        read = self.shard.under_way.read
        self.shard.finish()
        if twice:
            self.illegal(read)

    @precondition(lambda self: self.shard.under_way is not None)
    @rule()
    def failed(self) -> None:
        assert self.shard.under_way is not None
        read, plan, before = self.shard.under_way.read, self.shard.plan, state_of(self.shard.plan)
        self.shard.fail()
        assert state_of(plan) == before, "a read that fails changes nothing"
        if self.shard.begin():
            self.illegal(read)

    def illegal(self, read: object) -> None:
        plan = self.shard.plan
        if plan.last_read is not read or plan.last_read is None or self.shard.under_way is None:
            before = state_of(plan)
            with pytest.raises(IllegalTransition):
                plan.advance(read, EMPTY, ())  # type: ignore[arg-type]
            assert state_of(plan) == before

    # --- in the end

    def teardown(self) -> None:
        shard = self.shard
        if shard.under_way is not None:
            shard.fail()
        for key in list(shard.uncounted):
            shard.count_late(key)
        for queue in ("a", "b"):
            shard.drain(queue)
        while any(key.due_at_ms > shard.readable_ms for key in [*shard.stored, *shard.hidden]):
            shard.tick(TICK_MS)
            shard.read_all(3)
        for _ in range(3):
            shard.tick(TICK_MS)
            shard.read_all(3)
        assert not shard.hidden
        assert not shard.evicted
        assert set(shard.stored) <= set(shard.buffered), "every trigger was read"
        for key in list(shard.buffered):
            shard.remove(key)
        for _ in range((GRACE_MS + READ_AHEAD_MS + WIDTH_MS) // TICK_MS + 3):
            shard.tick(TICK_MS)
            shard.read_all(3)
        assert shard.record.retired_before >= bucket_of(shard.now_ms - GRACE_MS - 2 * TICK_MS, WIDTH_MS), "none is kept"


TestPlans = Plans.TestCase
TestPlans.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestPlans.pytestmark = [pytest.mark.timeout(900)]  # type: ignore[attr-defined]  # it takes seconds, but for shrinking


def owned(*due_after_ms: int) -> Shard:
    """A shard whose owner has read all of it, with triggers due that long after its read mark, not yet readable."""
    shard = Shard()
    for _ in range(3):
        shard.tick(TICK_MS)
        shard.read_all(4)
    for ms in due_after_ms:
        shard.store_ahead(ms, "a")
    return shard


def kinds(shard: Shard, limit: int) -> list[State]:
    """Of all reads until there is nothing to read."""
    found = []
    while shard.begin():
        assert shard.under_way is not None
        found.append(shard.under_way.read.state)
        shard.read(limit)
        shard.finish()
    return found


@given(st.integers(1, 12), st.integers(0, 12), st.booleans())
def test_forward_and_reread_take_turns_until_one_has_ended(ahead: int, behind: int, failing: bool) -> None:  # noqa: FBT001
    shard = owned()
    for _ in range(behind):
        shard.store_late(0, "a")
    for key in list(shard.uncounted):
        shard.count_late(key)
    for _ in range(ahead):
        shard.store_ahead(0, "a")
    for _ in range(2):
        shard.tick(TICK_MS)
    if failing:
        for _ in range(2):
            assert shard.begin()
            shard.fail()
    found = kinds(shard, 1)
    forward, reread = found.count(State.FORWARD), found.count(State.LATE_WRITES)
    assert forward >= ahead
    assert (reread > 0) == (behind > 0)
    both = 2 * min(forward, reread)
    assert found[:both] == [State.FORWARD, State.LATE_WRITES] * (both // 2)
    assert not {State.FORWARD, State.LATE_WRITES} <= set(found[both:])


def test_a_late_write_is_read_for_when_counted_and_when_the_count_has_settled() -> None:
    shard = owned()
    shard.store_late(0, "a")
    for key in list(shard.uncounted):
        shard.count_late(key)
    assert State.LATE_WRITES not in kinds(shard, 4), "not seen yet"
    for expected in (True, True, False, False):
        shard.tick(TICK_MS)
        assert (State.LATE_WRITES in kinds(shard, 4)) == expected


def test_late_writes_come_before_room_and_room_before_the_oldest_bucket() -> None:
    shard = owned(0)
    for _ in range(2):
        shard.tick(TICK_MS)
        shard.read_all(4)
    shard.full.add("a")
    shard.evict(next(iter(shard.buffered)))
    shard.pass_time(GRACE_MS + 10 * WIDTH_MS)
    shard.store_late(0, "b")
    shard.count_late(next(iter(shard.uncounted)))
    shard.tick(TICK_MS)
    shard.drain("a")
    assert next(state for state in kinds(shard, 4) if state is not State.FORWARD) is State.LATE_WRITES
    shard.evict(next(key for key, queue in shard.buffered.items() if queue == "a"))
    shard.drain("a")
    assert kinds(shard, 100)[0] is State.EVICTED


def test_destinations_are_asked_for_room_once_a_tick_or_when_one_has_drained() -> None:
    shard = owned(0)
    for _ in range(2):
        shard.tick(TICK_MS)
        shard.read_all(4)
    asked: list[str] = []

    def has_room(queue: str) -> bool:
        asked.append(queue)
        return False

    shard.evict(next(iter(shard.buffered)))
    for _ in range(3):
        shard.plan.renewed(shard.seen)
        for _ in range(3):
            assert shard.plan.next(shard.view._replace(has_room=has_room)) is None
    assert asked == ["a"] * 3
    shard.plan.room_may_have_come()
    for _ in range(3):
        shard.plan.next(shard.view._replace(has_room=has_room))
    assert asked == ["a"] * 4


def test_a_reread_ends_when_its_destinations_are_full_and_goes_on_from_there() -> None:
    shard = owned(*range(6))
    for _ in range(2):
        shard.tick(TICK_MS)
        shard.read_all(4)
    keys = sorted(shard.buffered)
    for key in keys:
        shard.evict(key)
    shard.pass_time(100)
    shard.drain("a")
    assert shard.begin()
    assert shard.under_way is not None
    assert shard.under_way.read.state is State.EVICTED
    assert shard.under_way.read.queues == {"a"}
    assert shard.evicted == {}
    shard.read(3)
    shard.finish()
    assert sorted(shard.buffered) == keys[:3]
    assert shard.plan.complete_ms == keys[2].due_at_ms, "the rest is yet to be read again"
    shard.full.add("a")
    assert shard.begin()
    shard.read(2)
    shard.finish()
    assert shard.evicted == {"a": keys[3].due_at_ms}
    assert State.EVICTED not in kinds(shard, 4)
    shard.evict(keys[0])
    assert shard.evicted == {"a": keys[0].due_at_ms}


def test_a_reread_that_ends_early_leaves_what_it_has_not_come_to_though_a_later_one_is_evicted_meanwhile() -> None:
    shard = owned(*range(6))
    for _ in range(2):
        shard.tick(TICK_MS)
        shard.read_all(4)
    first, *_, last = keys = sorted(shard.buffered)
    for key in keys:
        if key != last:
            shard.evict(key)
    shard.drain("a")
    assert shard.begin()
    shard.read(1)
    shard.full.add("a")
    shard.evict(last)
    shard.finish()
    assert first in shard.buffered
    assert shard.evicted == {"a": first.due_at_ms}, "from there on, some of it once more"
    shard.drain("a")
    kinds(shard, 4)
    assert sorted(shard.buffered) == keys


def test_a_reread_goes_on_while_one_of_its_destinations_has_room() -> None:
    shard = owned(*range(3))
    for ms in range(3):
        shard.store_ahead(ms, "b")
    for _ in range(2):
        shard.tick(TICK_MS)
        shard.read_all(4)
    keys = sorted(shard.buffered)
    for key in keys:
        shard.evict(key)
    shard.drain("a")
    assert shard.begin()
    assert shard.under_way is not None
    assert shard.under_way.read.queues == {"a", "b"}
    shard.read(2)
    shard.finish()
    shard.full.add("a")
    shard.evict(next(key for key, queue in shard.buffered.items() if queue == "a"))
    assert kinds(shard, 2)[:2] == [State.EVICTED] * 2
    assert {trigger.queue for key, trigger in shard.stored.items() if key not in shard.buffered} == {"a"}


def test_the_oldest_bucket_is_checked_once_a_tick_and_only_if_it_could_be_retired() -> None:
    shard = owned(5)
    for _ in range(2):
        shard.tick(TICK_MS)
        shard.read_all(4)
    (key,) = shard.buffered
    bucket = bucket_of(key.due_at_ms, WIDTH_MS)

    def checks() -> int:
        return kinds(shard, 4).count(State.OLDEST_BUCKET)

    while shard.now_ms <= (bucket + 1) * WIDTH_MS - 1 + GRACE_MS:
        shard.tick(TICK_MS)
        checks()
    shard.tick(TICK_MS)
    assert checks() == 0, "a trigger of it is buffered"
    assert shard.record.retired_before == bucket
    shard.full.add("a")
    shard.evict(key)
    assert checks() == 0, "or evicted"
    shard.drain("a")
    assert kinds(shard, 4)[0] is State.EVICTED
    shard.store_late(shard.record.read_mark_ms - key.due_at_ms, "a")
    (late,) = shard.uncounted
    shard.remove(key)
    assert checks() == 1
    assert late in shard.buffered, "it was not empty"
    shard.remove(late)
    assert checks() == 0, "not again before the next tick"
    shard.tick(TICK_MS)
    assert checks() >= 1
    assert shard.record.retired_before == bucket
    shard.tick(TICK_MS)
    assert shard.record.retired_before > bucket
