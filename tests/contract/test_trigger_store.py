"""What every `TriggerStore` must do."""

from __future__ import annotations

import asyncio

import pytest

from dynein.core.inbound_message import Arrival
from dynein.core.keys import DUE_MAX_MS, Kind, TriggerKey, parse_sort_key
from dynein.core.shard_records import ShardRecord, ShardRecords
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import ADD_MAX, LOOKUP_MAX, Cancelled, Found, Moved, Page, Tombstone, TriggerStore
from dynein.errors import Conflict, InvalidToken
from tests.contract.conftest import EngineTable
from tests.contract.samples import BUCKET, SHARDS, T0, WIDTH_MS, moved, trigger_at
from tests.contract.subjects import TABLES, needs_transactions, over

pytestmark = over(TABLES)

MINUTE_MS = 60_000


async def read_all(
    store: TriggerStore, *, bucket: int = BUCKET, shard: int = 0, from_ms: int = 0, until_ms: int = DUE_MAX_MS - 1,
    limit: int = 100,
) -> Page:  # fmt: skip
    """The whole range, page by page; ``resume`` is ``None``."""
    whole = Page([], [], [], None)
    resume: bytes | None = None
    while True:
        page = await store.read(bucket, shard, from_ms=from_ms, until_ms=until_ms, limit=limit, resume=resume)
        assert len(page.triggers) + len(page.tombstones) + len(page.undecodable) <= limit
        whole.triggers.extend(page.triggers)
        whole.tombstones.extend(page.tombstones)
        whole.undecodable.extend(page.undecodable)
        resume = page.resume
        if resume is None:
            return whole


async def shard_record(shards: ShardRecords, shard: int = 0) -> ShardRecord:
    (record,) = await shards.get([shard])
    return record


async def raise_read_mark(shards: ShardRecords, read_mark_ms: int, shard: int = 0) -> ShardRecord:
    """Own the shard and raise its read mark, as a dispatcher does before it reads."""
    mine = await shards.take(await shard_record(shards, shard), "a dispatcher")
    assert mine is not None
    renewed = await shards.renew(
        mine, settled_mark_ms=mine.settled_mark_ms, read_mark_ms=read_mark_ms, retired_before=mine.retired_before
    )
    assert renewed is not None
    return renewed


class TestReserve:
    async def test_of_several_repairs_one_has_the_trigger(self, store: TriggerStore) -> None:
        trigger = trigger_at(T0)
        assert await store.add([trigger]) == []
        reserved = await asyncio.gather(*(store.reserve(trigger.key, 600) for _ in range(8)))
        assert sum(reserved) == 1
        assert (await store.find(trigger.key)).trigger == trigger, "and it can still be read"
        assert await store.remove([trigger.key]) == []
        assert not await store.reserve(trigger.key, 600), "it is gone"
        assert await store.find(trigger.key) == Found(None, None), "and did not come back"

    async def test_a_reservation_ends_by_itself(self, store: TriggerStore) -> None:
        trigger = trigger_at(T0)
        assert await store.add([trigger]) == []
        assert await store.reserve(trigger.key, -10)
        assert await store.reserve(trigger.key, 600)


class TestAdd:
    async def test_what_is_added_is_read_back_whole(self, store: TriggerStore) -> None:
        trigger = trigger_at(T0 + 5, body="Grüße, 世界 \u0009 " + "x" * 200_000)
        assert await store.add([trigger]) == []
        assert (await read_all(store)).triggers == [trigger]

    async def test_a_full_batch_over_buckets_and_shards(self, store: TriggerStore) -> None:
        triggers = [trigger_at(T0 + i * WIDTH_MS // 2, shard=i % SHARDS) for i in range(ADD_MAX)]
        assert await store.add(triggers) == []
        stored = [t for bucket, shard in await store.buckets()
                  for t in (await read_all(store, bucket=bucket, shard=shard)).triggers]  # fmt: skip
        assert sorted(stored) == sorted(triggers)

    async def test_adding_again_changes_nothing(self, store: TriggerStore) -> None:
        trigger = trigger_at(T0)
        await store.add([trigger])
        await store.add([trigger, trigger_at(T0 + 1)])
        triggers = (await read_all(store)).triggers
        assert triggers[0] == trigger
        assert len(triggers) == 2


class TestRead:
    async def test_in_due_order(self, store: TriggerStore) -> None:
        triggers = [trigger_at(T0 + offset) for offset in (59_999, 0, 256, 255, 65_535 % WIDTH_MS, 1)]
        await store.add(triggers)
        assert (await read_all(store)).triggers == sorted(triggers)

    async def test_both_bounds_are_included(self, store: TriggerStore) -> None:
        await store.add([trigger_at(T0 + offset) for offset in range(6)])
        page = await read_all(store, from_ms=T0 + 1, until_ms=T0 + 4)
        assert [t.key.due_at_ms - T0 for t in page.triggers] == [1, 2, 3, 4]

    async def test_only_its_bucket_and_shard(self, store: TriggerStore) -> None:
        here = trigger_at(T0)
        await store.add([here, trigger_at(T0, shard=1), trigger_at(T0 + WIDTH_MS), trigger_at(T0 - 1)])
        assert (await read_all(store)).triggers == [here]

    async def test_counting_a_range(self, table: EngineTable) -> None:
        """Triggers only: not tombstones, not what stands in a trigger's place, not what is due sooner or later."""
        triggers = sorted(trigger_at(T0 + offset) for offset in range(10))
        await table.store.add([*triggers, trigger_at(T0 + 3, shard=1), trigger_at(T0 + WIDTH_MS)])
        await table.entomb(triggers[5].key)
        await table.store.remove([triggers[5].key])
        await table.spoil(trigger_at(T0 + 4).key)
        counted = await table.store.count_due(BUCKET, 0, from_ms=T0 + 2, until_ms=T0 + 8, limit=100)
        assert (counted.triggers, counted.reached) == (6, None)
        assert counted.read_units >= 0
        nothing = await table.store.count_due(BUCKET, 0, from_ms=T0 + 20, until_ms=T0 + WIDTH_MS - 1, limit=100)
        assert (nothing.triggers, nothing.reached) == (0, None)

    async def test_counting_says_how_far_it_came(self, store: TriggerStore) -> None:
        triggers = sorted(trigger_at(T0 + offset) for offset in (0, 7, 7, 9, 50))
        await store.add(triggers)
        counted = await store.count_due(BUCKET, 0, from_ms=T0, until_ms=T0 + WIDTH_MS - 1, limit=3)
        assert (counted.triggers, counted.reached) == (3, triggers[2].key)
        rest = await store.count_due(BUCKET, 0, from_ms=T0 + 8, until_ms=T0 + WIDTH_MS - 1, limit=3)
        assert (rest.triggers, rest.reached) == (2, None)

    async def test_an_empty_range(self, store: TriggerStore) -> None:
        await store.add([trigger_at(T0 + 10)])
        assert await store.read(BUCKET, 0, from_ms=T0, until_ms=T0 + 9, limit=5) == Page([], [], [], None)

    @pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 7, 12, 13])
    async def test_pages_join_to_the_whole(self, table: EngineTable, limit: int) -> None:
        """Six jobs at one millisecond, two of them with a tombstone beside them; a page boundary falls everywhere."""
        triggers = sorted(trigger_at(T0 + 7) for _ in range(6))
        for trigger in triggers[1:3]:
            await table.entomb(trigger.key)
        await table.store.add(triggers)
        page = await read_all(table.store, from_ms=T0 + 7, until_ms=T0 + 7, limit=limit)
        assert page.triggers == triggers
        assert page.tombstones == [Tombstone(trigger.key, None) for trigger in triggers[1:3]]

    async def test_a_page_that_ends_before_its_limit(self, table: EngineTable) -> None:
        """DynamoDB ends a page at 1 MB, however few triggers that is."""
        triggers = sorted(trigger_at(T0 + i, body="x" * 200_000) for i in range(7))
        for some in (triggers[:3], triggers[3:]):
            await table.store.add(some)
        first = await table.store.read(BUCKET, 0, from_ms=T0, until_ms=T0 + 9, limit=100)
        # roto deviates: it ends none.
        assert (first.resume is None) == (table.engine == "roto")
        assert (await read_all(table.store)).triggers == triggers

    async def test_resume_stays_within_the_upper_bound(self, store: TriggerStore) -> None:
        await store.add([trigger_at(T0 + offset) for offset in range(4)])
        page = await read_all(store, from_ms=T0, until_ms=T0 + 1, limit=1)
        assert [t.key.due_at_ms - T0 for t in page.triggers] == [0, 1]

    async def test_resume_reads_what_was_added_behind_it(self, store: TriggerStore) -> None:
        await store.add([trigger_at(T0 + offset) for offset in (0, 2)])
        first = await store.read(BUCKET, 0, from_ms=T0, until_ms=T0 + 9, limit=1)
        assert first.resume is not None
        assert parse_sort_key(first.resume, 0) == (first.triggers[0].key, Kind.TRIGGER)
        await store.add([trigger_at(T0 + 1)])
        rest = await store.read(BUCKET, 0, from_ms=T0, until_ms=T0 + 9, limit=9, resume=first.resume)
        assert [t.key.due_at_ms - T0 for t in rest.triggers] == [1, 2]

    async def test_a_tombstone_is_met_before_its_trigger(self, table: EngineTable) -> None:
        trigger = trigger_at(T0)
        await table.entomb(trigger.key)
        await table.store.add([trigger])
        page = await table.store.read(BUCKET, 0, from_ms=T0, until_ms=T0, limit=1)
        assert page.tombstones == [Tombstone(trigger.key, None)]
        assert page.triggers == []

    async def test_what_cannot_be_read_is_reported_and_left(self, table: EngineTable) -> None:
        before, spoiled, after = (trigger_at(T0 + offset) for offset in range(3))
        await table.store.add([before, after])
        await table.spoil(spoiled.key)
        for _ in range(2):
            page = await read_all(table.store)
            assert page.triggers == [before, after]
            assert page.undecodable == [spoiled.key]


class TestRemove:
    async def test_what_is_removed_is_gone_and_the_rest_stays(self, store: TriggerStore) -> None:
        triggers = [trigger_at(T0 + offset) for offset in range(4)]
        await store.add(triggers)
        assert await store.remove([triggers[0].key, triggers[2].key]) == []
        assert (await read_all(store)).triggers == [triggers[1], triggers[3]]

    async def test_removing_again_is_nothing(self, store: TriggerStore) -> None:
        trigger = trigger_at(T0)
        await store.add([trigger])
        for _ in range(2):
            assert await store.remove([trigger.key]) == []
        assert (await read_all(store)).triggers == []

    async def test_tombstones_stay(self, table: EngineTable) -> None:
        trigger = trigger_at(T0)
        await table.entomb(trigger.key)
        await table.store.add([trigger])
        await table.store.remove([trigger.key])
        assert await table.store.find(trigger.key) == Found(None, Tombstone(trigger.key, None))


class TestFind:
    async def test_nothing(self, store: TriggerStore) -> None:
        await store.add([trigger_at(T0), trigger_at(T0, shard=1)])
        assert await store.find(trigger_at(T0).key) == Found(None, None)

    async def test_a_trigger(self, store: TriggerStore) -> None:
        trigger = trigger_at(T0)
        await store.add([trigger_at(T0), trigger, trigger_at(T0)])
        assert await store.find(trigger.key) == Found(trigger, None)

    async def test_a_tombstone_with_a_trigger_ingested_late(self, table: EngineTable) -> None:
        trigger = trigger_at(T0)
        await table.entomb(trigger.key)
        await table.store.add([trigger])
        assert await table.store.find(trigger.key) == Found(trigger, Tombstone(trigger.key, None))


class TestTombstones:
    async def test_those_that_have_one(self, table: EngineTable) -> None:
        triggers = [trigger_at(T0 + i * WIDTH_MS, shard=i % SHARDS) for i in range(LOOKUP_MAX)]
        await table.store.add(triggers[:ADD_MAX])
        stopped = [triggers[i].key for i in (0, 3, 50, LOOKUP_MAX - 1)]
        for key in stopped:
            await table.entomb(key)
        found = await table.store.tombstones([trigger.key for trigger in triggers])
        assert sorted(found) == sorted(Tombstone(key, None) for key in stopped)

    @needs_transactions
    async def test_of_a_job_that_moved(self, store: TriggerStore) -> None:
        trigger = trigger_at(T0)
        to = moved(trigger, T0 + 99 * WIDTH_MS)
        await store.add([trigger])
        assert await store.move(trigger.key, to) is Moved.MOVED
        assert await store.tombstones([trigger.key, to.key]) == [Tombstone(trigger.key, to.token)]

    async def test_none(self, store: TriggerStore) -> None:
        trigger = trigger_at(T0)
        await store.add([trigger])
        assert await store.tombstones([trigger.key]) == []


class TestClaim:
    async def test_the_first_create_keeps_the_job_id(self, store: TriggerStore) -> None:
        trigger = trigger_at(T0, prepared=True)
        first, second = (Arrival(trigger, create_id, prepared=True) for create_id in ("first", "second"))
        assert await store.claim(first)
        assert not await store.claim(second)
        assert await store.claim(first), "its inbound message may be received twice"

    async def test_whatever_its_due_time(self, store: TriggerStore) -> None:
        trigger = trigger_at(T0, prepared=True)
        later = trigger_at(T0 + 5 * WIDTH_MS, job_id=trigger.key.job_id, prepared=True)
        assert await store.claim(Arrival(trigger, "first", prepared=True))
        assert not await store.claim(Arrival(later, "second", prepared=True))

    async def test_other_jobs_are_free(self, store: TriggerStore) -> None:
        assert await store.claim(Arrival(trigger_at(T0, prepared=True), "one", prepared=True))
        assert await store.claim(Arrival(trigger_at(T0, prepared=True), "two", prepared=True))

    async def test_one_of_many_at_once(self, store: TriggerStore) -> None:
        trigger = trigger_at(T0, prepared=True)
        claims = await asyncio.gather(*(store.claim(Arrival(trigger, str(i), prepared=True)) for i in range(8)))
        assert sum(claims) == 1

    async def test_it_outlives_the_trigger(self, store: TriggerStore) -> None:
        """The second create may be ingested when the job has been sent and removed."""
        trigger = trigger_at(T0, prepared=True)
        await store.claim(Arrival(trigger, "first", prepared=True))
        await store.add([trigger])
        await store.remove([trigger.key])
        assert not await store.claim(Arrival(trigger, "second", prepared=True))


@needs_transactions
class TestCancel:
    async def test_a_stored_job(self, store: TriggerStore) -> None:
        trigger, other = trigger_at(T0), trigger_at(T0)
        await store.add([trigger, other])
        assert await store.cancel(trigger.key) is Cancelled.CANCELLED
        assert await read_all(store) == Page([other], [Tombstone(trigger.key, None)], [], None)

    async def test_before_it_is_ingested(self, store: TriggerStore) -> None:
        """The tombstone stands where the trigger will come, so a reader of the range meets both."""
        trigger = trigger_at(T0)
        assert await store.cancel(trigger.key) is Cancelled.CANCELLED
        assert await store.add([trigger]) == []
        assert await read_all(store) == Page([trigger], [Tombstone(trigger.key, None)], [], None)
        assert await store.tombstones([trigger.key]) == [Tombstone(trigger.key, None)]

    async def test_twice_is_once(self, store: TriggerStore) -> None:
        trigger = trigger_at(T0)
        await store.add([trigger])
        assert await store.cancel(trigger.key) is Cancelled.CANCELLED
        assert await store.cancel(trigger.key) is Cancelled.BEFORE
        assert await store.find(trigger.key) == Found(None, Tombstone(trigger.key, None))

    async def test_many_at_a_time_each_get_their_own_answer(self, store: TriggerStore, shards: ShardRecords) -> None:
        """They may share a transaction, and what one of them meets is no other's affair."""
        await raise_read_mark(shards, T0)
        fine, late = [trigger_at(T0 + 1 + i) for i in range(30)], trigger_at(T0)
        moved_away, gone = trigger_at(T0 + 99), trigger_at(T0 + 98)
        stored = [*fine, late, moved_away, gone]
        for start in range(0, len(stored), ADD_MAX):
            assert await store.add(stored[start : start + ADD_MAX]) == []
        to = moved(moved_away, T0 + 500)
        assert await store.move(moved_away.key, to) is Moved.MOVED
        assert await store.cancel(gone.key) is Cancelled.CANCELLED
        asked = [*fine, late, moved_away, gone, fine[0]]
        answers = await asyncio.gather(*(store.cancel(trigger.key) for trigger in asked))
        assert answers[1:30] == [Cancelled.CANCELLED] * 29
        assert answers[30:33] == [Cancelled.TOO_LATE, Tombstone(moved_away.key, to.token), Cancelled.BEFORE]
        assert {answers[0], answers[33]} == {Cancelled.CANCELLED, Cancelled.BEFORE}
        assert (await read_all(store)).triggers == [late, to._replace(record=moved_away.record)]

    async def test_all_together(self, store: TriggerStore) -> None:
        triggers = [trigger_at(T0 + i) for i in range(20)]
        assert await store.add(triggers) == []
        answers = await asyncio.gather(*(store.cancel(trigger.key) for trigger in triggers))
        assert answers == [Cancelled.CANCELLED] * 20
        assert (await read_all(store)).triggers == []
        assert await store.tombstones([t.key for t in triggers]) == [Tombstone(t.key, None) for t in triggers]

    async def test_again_when_its_time_has_passed(self, store: TriggerStore, shards: ShardRecords) -> None:
        """It was cancelled in time: a mark raised later does not make that untrue."""
        trigger = trigger_at(T0)
        await store.cancel(trigger.key)
        await raise_read_mark(shards, T0)
        assert await store.cancel(trigger.key) is Cancelled.BEFORE

    @pytest.mark.parametrize("mark", ["read", "hold"])
    async def test_due_at_the_mark_is_too_late(self, store: TriggerStore, shards: ShardRecords, mark: str) -> None:
        at_the_mark, past_it = trigger_at(T0), trigger_at(T0 + 1)
        await store.add([at_the_mark, past_it])
        if mark == "read":
            await raise_read_mark(shards, T0)
        else:
            await shards.raise_hold_mark(0, T0)
        assert await store.cancel(at_the_mark.key) is Cancelled.TOO_LATE
        assert await store.cancel(past_it.key) is Cancelled.CANCELLED
        assert await read_all(store) == Page([at_the_mark], [Tombstone(past_it.key, None)], [], None)

    async def test_too_late_leaves_nothing_behind(self, store: TriggerStore, shards: ShardRecords) -> None:
        trigger = trigger_at(T0)
        await shards.raise_hold_mark(0, T0)
        assert await store.cancel(trigger.key) is Cancelled.TOO_LATE
        assert await store.find(trigger.key) == Found(None, None)

    async def test_another_shards_marks_do_not_matter(self, store: TriggerStore, shards: ShardRecords) -> None:
        await raise_read_mark(shards, T0, shard=1)
        await shards.raise_hold_mark(1, T0)
        assert await store.cancel(trigger_at(T0, shard=0).key) is Cancelled.CANCELLED

    async def test_a_moved_job_says_where_it_went(self, store: TriggerStore, shards: ShardRecords) -> None:
        trigger = trigger_at(T0)
        to = moved(trigger, T0 + MINUTE_MS)
        await store.add([trigger])
        await store.move(trigger.key, to)
        assert await store.cancel(trigger.key) == Tombstone(trigger.key, to.token)
        await raise_read_mark(shards, T0)
        assert await store.cancel(trigger.key) == Tombstone(trigger.key, to.token), "whatever the marks say"
        assert (await store.find(to.key)).trigger is not None

    async def test_at_its_new_place(self, store: TriggerStore) -> None:
        trigger = trigger_at(T0)
        to = moved(trigger, T0 + MINUTE_MS)
        await store.add([trigger])
        await store.move(trigger.key, to)
        assert await store.cancel(to.key) is Cancelled.CANCELLED
        assert await store.find(to.key) == Found(None, Tombstone(to.key, None))

    async def test_many_at_once(self, store: TriggerStore) -> None:
        trigger = trigger_at(T0)
        await store.add([trigger])
        results = await asyncio.gather(*(store.cancel(trigger.key) for _ in range(6)))
        assert sorted(results, key=str) == [Cancelled.BEFORE] * 5 + [Cancelled.CANCELLED]

    async def test_against_a_rising_mark(self, store: TriggerStore, shards: ShardRecords) -> None:
        """Whoever comes first: if the cancel returns CANCELLED, a reader that raised the mark finds no live trigger."""
        mine = await raise_read_mark(shards, T0 - 1)
        triggers = [trigger_at(T0 + i) for i in range(8)]
        await store.add(triggers)

        async def raise_and_read() -> Page:
            assert (
                await shards.renew(mine, settled_mark_ms=mine.settled_mark_ms, read_mark_ms=T0 + 100, retired_before=0)
                is not None
            )
            return await read_all(store)

        reading = asyncio.ensure_future(raise_and_read())
        results = await asyncio.gather(*(store.cancel(t.key) for t in triggers))
        page = await reading
        stopped = {tombstone.key for tombstone in page.tombstones}
        live = {trigger.key for trigger in page.triggers} - stopped
        cancelled = {t.key for t, result in zip(triggers, results, strict=True) if result is Cancelled.CANCELLED}
        assert live.isdisjoint(cancelled)
        assert live | cancelled == {trigger.key for trigger in triggers}

    async def test_a_shard_that_never_was(self, table: EngineTable) -> None:
        with pytest.raises(InvalidToken, match="shard 9"):
            await table.store.cancel(trigger_at(T0, shard=9).key)


@needs_transactions
class TestMove:
    @pytest.mark.parametrize("by_ms", [1, -1000, 10 * MINUTE_MS, -10 * MINUTE_MS])
    async def test_a_stored_job(self, store: TriggerStore, by_ms: int) -> None:
        trigger = trigger_at(T0 + 5000)
        to = moved(trigger, trigger.key.due_at_ms + by_ms)
        await store.add([trigger])
        assert await store.move(trigger.key, to) is Moved.MOVED
        assert await store.find(trigger.key) == Found(None, Tombstone(trigger.key, to.token))
        assert await store.find(to.key) == Found(Trigger(to.key, to.token, trigger.record), None)

    async def test_along_a_chain_and_back(self, store: TriggerStore) -> None:
        """Back where it was, the job meets the tombstone it left there; that must not stop it."""
        first = trigger_at(T0)
        second = moved(first, T0 + MINUTE_MS)
        await store.add([first])
        for trigger, to in [(first, second), (second, first), (first, second), (second, first)]:
            assert await store.move(trigger.key, to) is Moved.MOVED
            assert await store.find(trigger.key) == Found(None, Tombstone(trigger.key, to.token))
            assert await store.find(to.key) == Found(Trigger(to.key, to.token, first.record), None)
        assert await store.cancel(first.key) is Cancelled.CANCELLED

    async def test_not_stored(self, store: TriggerStore) -> None:
        trigger = trigger_at(T0)
        to = moved(trigger, T0 + MINUTE_MS)
        assert await store.move(trigger.key, to) is Moved.NOT_STORED
        assert await store.find(trigger.key) == Found(None, None)
        assert await store.find(to.key) == Found(None, None)

    async def test_a_cancelled_job(self, store: TriggerStore) -> None:
        trigger = trigger_at(T0)
        await store.add([trigger])
        await store.cancel(trigger.key)
        await store.add([trigger])  # ingested a second time
        to = moved(trigger, T0 + MINUTE_MS)
        assert await store.move(trigger.key, to) == Tombstone(trigger.key, None)
        assert await store.find(to.key) == Found(None, None)

    async def test_a_job_that_moved_before(self, store: TriggerStore) -> None:
        trigger = trigger_at(T0)
        first, second = moved(trigger, T0 + MINUTE_MS), moved(trigger, T0 + 2 * MINUTE_MS)
        await store.add([trigger])
        await store.move(trigger.key, first)
        assert await store.move(trigger.key, second) == Tombstone(trigger.key, first.token)
        assert await store.find(second.key) == Found(None, None)

    @pytest.mark.parametrize("mark", ["read", "hold"])
    @pytest.mark.parametrize("stored", [True, False])
    async def test_due_at_the_mark_is_too_late(
        self, store: TriggerStore, shards: ShardRecords, mark: str, *, stored: bool
    ) -> None:
        trigger = trigger_at(T0)
        if stored:
            await store.add([trigger])
        if mark == "read":
            await raise_read_mark(shards, T0)
        else:
            await shards.raise_hold_mark(0, T0)
        assert await store.move(trigger.key, moved(trigger, T0 + MINUTE_MS)) is Moved.TOO_LATE
        assert await store.find(trigger.key) == Found(trigger if stored else None, None)

    async def test_to_before_the_hold_mark(self, store: TriggerStore, shards: ShardRecords) -> None:
        """Only the old due time must be past the marks: no ingester can hold what is stored."""
        trigger = trigger_at(T0 + MINUTE_MS)
        await store.add([trigger])
        await shards.raise_hold_mark(0, T0 + 1000)
        assert await store.move(trigger.key, moved(trigger, T0 + 500)) is Moved.MOVED

    async def test_ahead_of_the_read_mark_counts_none(self, store: TriggerStore, shards: ShardRecords) -> None:
        mine = await raise_read_mark(shards, T0)
        trigger = trigger_at(T0 + 5000)
        await store.add([trigger])
        assert await store.move(trigger.key, moved(trigger, T0 + 2000)) is Moved.MOVED
        renewed = await shards.renew(
            mine, settled_mark_ms=mine.settled_mark_ms, read_mark_ms=T0, retired_before=mine.retired_before
        )
        assert renewed is not None
        assert renewed.late_writes == mine.late_writes

    async def test_behind_the_read_mark_counts_a_late_write(self, store: TriggerStore, shards: ShardRecords) -> None:
        """The owner has read that range already; the count makes it read it again."""
        trigger = trigger_at(T0 + 5 * MINUTE_MS)
        await store.add([trigger])
        mine = await raise_read_mark(shards, T0 + 1000)
        assert await store.move(trigger.key, moved(trigger, T0 + 500)) is Moved.MOVED
        renewed = await shards.renew(
            mine, settled_mark_ms=mine.settled_mark_ms, read_mark_ms=T0 + 2000, retired_before=BUCKET + 1
        )
        assert renewed is not None
        assert renewed.late_writes > mine.late_writes
        assert renewed.retired_before == mine.retired_before, "nor may it retire the bucket unseen"

    async def test_ahead_of_the_read_mark_is_found_by_the_next_read(
        self, store: TriggerStore, shards: ShardRecords
    ) -> None:
        trigger = trigger_at(T0 + 5 * MINUTE_MS)
        await store.add([trigger])
        await raise_read_mark(shards, T0)
        to = moved(trigger, T0 + 1)
        assert await store.move(trigger.key, to) is Moved.MOVED
        assert (await read_all(store, from_ms=T0 + 1)).triggers == [Trigger(to.key, to.token, trigger.record)]

    async def test_into_a_retired_bucket(self, table: EngineTable) -> None:
        """It would never be read there: the move is refused and the job stays where it is."""
        trigger = trigger_at(T0 + 5 * MINUTE_MS)
        await table.store.add([trigger])
        mine = await raise_read_mark(table.shards, T0 + MINUTE_MS)
        assert await table.shards.renew(
            mine, settled_mark_ms=mine.settled_mark_ms, read_mark_ms=mine.read_mark_ms, retired_before=BUCKET + 1
        )
        to = moved(trigger, T0 + 500)
        with pytest.raises(Conflict):
            await table.store.move(trigger.key, to)
        assert await table.store.find(trigger.key) == Found(trigger, None)
        assert await table.store.find(to.key) == Found(None, None)

    async def test_two_at_once_move_it_once(self, store: TriggerStore) -> None:
        trigger = trigger_at(T0)
        await store.add([trigger])
        targets = [moved(trigger, T0 + i * MINUTE_MS) for i in range(1, 5)]
        results = await asyncio.gather(*(store.move(trigger.key, to) for to in targets))
        (winner,) = [to for to, result in zip(targets, results, strict=True) if result is Moved.MOVED]
        assert [a for a in results if a is not Moved.MOVED] == [Tombstone(trigger.key, winner.token)] * 3
        assert await places_of(store, trigger) == [winner.key]

    async def test_against_a_cancel(self, store: TriggerStore) -> None:
        trigger = trigger_at(T0)
        to = moved(trigger, T0 + MINUTE_MS)
        await store.add([trigger])
        went, stopped = await asyncio.gather(store.move(trigger.key, to), store.cancel(trigger.key))
        if stopped is Cancelled.CANCELLED:
            assert went == Tombstone(trigger.key, None)
            assert await places_of(store, trigger) == []
        else:
            assert went is Moved.MOVED
            assert stopped == Tombstone(trigger.key, to.token)
            assert await places_of(store, trigger) == [to.key]


async def places_of(store: TriggerStore, trigger: Trigger) -> list[TriggerKey]:
    """Everywhere the job's trigger stands."""
    return [
        stored.key
        for bucket, shard in await store.buckets()
        for stored in (await read_all(store, bucket=bucket, shard=shard)).triggers
        if stored.key.job_id == trigger.key.job_id
    ]


class TestBuckets:
    async def test_every_bucket_that_holds_anything_and_nothing_else(self, table: EngineTable) -> None:
        """Shard records, claims and members live in the same table, and are no buckets."""
        store = table.store
        assert await store.buckets() == []
        await store.add([trigger_at(T0), trigger_at(T0 + 1), trigger_at(T0, shard=3), trigger_at(T0 + 9 * WIDTH_MS)])
        await table.entomb(trigger_at(T0 + WIDTH_MS, shard=2).key)
        await store.claim(Arrival(trigger_at(T0, prepared=True), "a", prepared=True))
        await table.spoil(trigger_at(T0 + 5 * WIDTH_MS).key)
        await table.roster.heartbeat("dispatcher", "one", 1)
        expected = {(BUCKET, 0), (BUCKET, 3), (BUCKET + 9, 0), (BUCKET + 1, 2), (BUCKET + 5, 0)}
        assert set(await store.buckets()) == expected

    async def test_of_a_table_that_no_one_page_holds(self, store: TriggerStore) -> None:
        """DynamoDB ends a page of a Scan at 1 MB too."""
        triggers = [trigger_at(T0 + i * WIDTH_MS, body="x" * 200_000) for i in range(7)]
        for some in (triggers[:3], triggers[3:]):
            await store.add(some)
        assert await store.buckets() == [(BUCKET + i, 0) for i in range(7)]
