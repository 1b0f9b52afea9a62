"""What every `ShardRecords` must do."""

from __future__ import annotations

import asyncio

from dynein.core.shard_records import Layout, ShardRecord, ShardRecords
from dynein.core.trigger_store import TriggerStore
from tests.contract.conftest import EngineTable
from tests.contract.samples import BUCKET, SHARDS, T0, WIDTH_MS, trigger_at
from tests.contract.subjects import TABLES, over

pytestmark = over(TABLES)


async def record_of(shards: ShardRecords, shard: int = 0) -> ShardRecord:
    (record,) = await shards.get([shard])
    return record


async def taken(shards: ShardRecords, owner: str = "one", shard: int = 0) -> ShardRecord:
    mine = await shards.take(await record_of(shards, shard), owner)
    assert mine is not None
    return mine


async def renewed(
    shards: ShardRecords, mine: ShardRecord, read_mark_ms: int | None = None, retired_before: int | None = None
) -> ShardRecord:
    record = await shards.renew(
        mine,
        settled_mark_ms=mine.settled_mark_ms,
        read_mark_ms=mine.read_mark_ms if read_mark_ms is None else read_mark_ms,
        retired_before=mine.retired_before if retired_before is None else retired_before,
    )
    assert record is not None
    return record


class TestReading:
    async def test_the_layout(self, shards: ShardRecords) -> None:
        assert await shards.layout() == Layout(WIDTH_MS, SHARDS, SHARDS)

    async def test_a_new_table_has_a_free_record_for_each_shard(self, shards: ShardRecords) -> None:
        records = await shards.all()
        assert sorted(record.shard for record in records) == list(range(SHARDS))
        for record in records:
            assert (record.owner, record.hold_mark_ms, record.late_writes) == (None, 0, 0)
            # What lies far back is retired from the start, and the read mark shows that to whoever writes there.
            assert record.retired_before > 0
            assert record.read_mark_ms == record.retired_before * WIDTH_MS - 1

    async def test_all_and_some_are_strongly_consistent(self, shards: ShardRecords) -> None:
        mine = await taken(shards, shard=2)
        assert (await shards.all())[2] == mine
        assert await shards.get([2]) == [mine]
        assert sorted(r.shard for r in await shards.get([3, 1])) == [1, 3]
        assert await shards.get([]) == []

    async def test_shards_added_while_we_watch(self, table: EngineTable) -> None:
        """More than DynamoDB reads in one call, and the old ones keep their state."""
        mine = await taken(table.shards, shard=1)
        assert len(await table.shards.all()) == SHARDS
        await table.grow(130)
        records = {record.shard: record for record in await table.shards.all()}
        assert sorted(records) == list(range(130))
        assert records[1] == mine
        assert await table.shards.layout() == Layout(WIDTH_MS, 130, SHARDS)
        assert len(await table.shards.get(range(130))) == 130
        assert (await taken(table.shards, shard=129)).owner == "one"


class TestTake:
    async def test_a_free_shard(self, shards: ShardRecords) -> None:
        seen = await record_of(shards)
        mine = await shards.take(seen, "one")
        assert mine is not None
        assert mine.owner == "one"
        assert mine.fence == seen.fence + 1
        assert await record_of(shards) == mine

    async def test_of_an_owner_that_stands_still(self, shards: ShardRecords) -> None:
        old = await renewed(shards, await taken(shards, "one"), read_mark_ms=T0)
        mine = await shards.take(await record_of(shards), "two")
        assert mine is not None
        assert (mine.owner, mine.fence) == ("two", old.fence + 1)
        assert mine.read_mark_ms == T0, "marks stay"

    async def test_not_if_the_owner_has_renewed_since(self, shards: ShardRecords) -> None:
        mine = await taken(shards, "one")
        seen = await record_of(shards)
        after = await renewed(shards, mine)
        assert await shards.take(seen, "two") is None
        assert await record_of(shards) == after

    async def test_not_if_it_was_taken_since(self, shards: ShardRecords) -> None:
        seen = await record_of(shards)
        mine = await taken(shards, "one")
        assert await shards.take(seen, "two") is None
        assert await record_of(shards) == mine

    async def test_not_if_it_was_taken_since_by_the_same_name(self, shards: ShardRecords) -> None:
        await taken(shards, "one")
        seen = await record_of(shards)
        again = await shards.take(seen, "one")
        assert await shards.take(seen, "two") is None
        assert await record_of(shards) == again

    async def test_not_if_it_was_released_since(self, shards: ShardRecords) -> None:
        seen = await taken(shards, "one")
        assert await shards.release(seen)
        assert await shards.take(seen, "two") is None
        assert await shards.take(await record_of(shards), "two") is not None

    async def test_one_of_many_at_once(self, shards: ShardRecords) -> None:
        seen = await record_of(shards)
        takers = [f"taker {i}" for i in range(8)]
        results = await asyncio.gather(*(shards.take(seen, taker) for taker in takers))
        (winner,) = [result for result in results if result is not None]
        assert await record_of(shards) == winner

    async def test_other_shards_are_left_alone(self, shards: ShardRecords) -> None:
        before = await shards.get([1, 2, 3])
        await taken(shards, shard=0)
        assert await shards.get([1, 2, 3]) == before


class TestRenew:
    async def test_it_beats_and_raises_the_mark(self, shards: ShardRecords) -> None:
        mine = await taken(shards)
        after = await renewed(shards, mine, read_mark_ms=T0)
        assert after.heartbeat > mine.heartbeat
        assert after == mine._replace(heartbeat=after.heartbeat, read_mark_ms=T0)
        assert await record_of(shards) == after

    async def test_the_returned_record_is_fresh(self, shards: ShardRecords) -> None:
        """It shows what others did to the record meanwhile."""
        mine = await taken(shards)
        await shards.raise_hold_mark(0, T0 + 7)
        await shards.report_late(0, BUCKET)
        after = await renewed(shards, mine)
        assert after.hold_mark_ms == T0 + 7
        assert after.late_writes == mine.late_writes + 1
        assert after.cancel_mark_ms == T0 + 7

    async def test_not_after_a_takeover(self, shards: ShardRecords) -> None:
        old = await taken(shards, "one")
        new = await taken(shards, "two")
        assert await shards.renew(old, settled_mark_ms=old.settled_mark_ms, read_mark_ms=T0, retired_before=5) is None
        assert await record_of(shards) == new

    async def test_not_after_a_takeover_by_the_same_name(self, shards: ShardRecords) -> None:
        """A process that restarts under its old name is another owner: its fence shows it."""
        old = await taken(shards, "one")
        new = await taken(shards, "one")
        assert await shards.renew(old, settled_mark_ms=old.settled_mark_ms, read_mark_ms=T0, retired_before=0) is None
        assert (
            await shards.renew(new, settled_mark_ms=new.settled_mark_ms, read_mark_ms=T0, retired_before=0) is not None
        )

    async def test_not_after_a_release(self, shards: ShardRecords) -> None:
        mine = await taken(shards)
        await shards.release(mine)
        assert await shards.renew(mine, settled_mark_ms=mine.settled_mark_ms, read_mark_ms=T0, retired_before=0) is None
        assert (await record_of(shards)).read_mark_ms == mine.read_mark_ms

    async def test_a_renewal_whose_response_was_lost_may_be_repeated(self, shards: ShardRecords) -> None:
        mine = await taken(shards)
        await renewed(shards, mine, read_mark_ms=T0 + 10)
        again = await renewed(shards, mine, read_mark_ms=T0 + 10)
        assert again.read_mark_ms == T0 + 10

    async def test_the_read_mark_never_falls(self, shards: ShardRecords) -> None:
        """An ingester may have relied on the mark that a lost renewal raised: a clock's step back is ignored."""
        mine = await taken(shards)
        await renewed(shards, mine, read_mark_ms=T0 + 10)
        again = await renewed(shards, mine, read_mark_ms=T0 + 5)
        assert again.read_mark_ms == T0 + 10


class TestRetire:
    async def test_buckets(self, shards: ShardRecords) -> None:
        mine = await taken(shards)
        after = await renewed(shards, mine, read_mark_ms=T0, retired_before=BUCKET)
        assert after.retired_before == BUCKET
        assert await record_of(shards) == after

    async def test_never_goes_back(self, shards: ShardRecords) -> None:
        mine = await renewed(shards, await taken(shards), retired_before=BUCKET)
        after = await renewed(shards, mine, read_mark_ms=T0, retired_before=BUCKET - 3)
        assert after.retired_before == BUCKET
        assert after.read_mark_ms == T0

    async def test_not_after_a_late_write_but_all_else_is_renewed(self, shards: ShardRecords) -> None:
        mine = await renewed(shards, await taken(shards), retired_before=BUCKET - 1)
        assert await shards.report_late(0, BUCKET)
        after = await renewed(shards, mine, read_mark_ms=T0, retired_before=BUCKET + 1)
        assert after.retired_before == BUCKET - 1
        assert after.read_mark_ms == T0
        assert after.heartbeat > mine.heartbeat
        assert after.late_writes == mine.late_writes + 1

    async def test_once_the_late_write_was_seen(self, shards: ShardRecords) -> None:
        mine = await taken(shards)
        await shards.report_late(0, BUCKET)
        seen = await renewed(shards, mine)
        assert (await renewed(shards, seen, retired_before=BUCKET + 1)).retired_before == BUCKET + 1

    async def test_not_after_a_takeover(self, shards: ShardRecords) -> None:
        old = await taken(shards, "one")
        new = await taken(shards, "two")
        await shards.report_late(0, BUCKET)
        assert (
            await shards.renew(old, settled_mark_ms=old.settled_mark_ms, read_mark_ms=T0, retired_before=BUCKET + 1)
            is None
        )
        assert (await record_of(shards)).retired_before == new.retired_before

    async def test_a_late_write_without_retiring_is_no_obstacle(self, shards: ShardRecords) -> None:
        mine = await taken(shards)
        await shards.report_late(0, BUCKET)
        assert (await renewed(shards, mine, read_mark_ms=T0)).read_mark_ms == T0

    async def test_against_a_late_write(self, shards: ShardRecords) -> None:
        """Either the count comes first and the retirement fails, or the retirement comes first and the writer knows."""
        mine = await taken(shards)
        for i in range(1, 6):
            after, counted = await asyncio.gather(
                renewed(shards, mine, retired_before=BUCKET + i), shards.report_late(0, BUCKET + i - 1)
            )
            retired = after.retired_before == BUCKET + i
            assert retired is not counted
            mine = await renewed(shards, after, retired_before=BUCKET + i)


class TestRelease:
    async def test_the_shard_is_free_at_once(self, shards: ShardRecords) -> None:
        mine = await renewed(shards, await taken(shards), read_mark_ms=T0, retired_before=BUCKET)
        assert await shards.release(mine)
        free = await record_of(shards)
        assert free.owner is None
        assert (free.read_mark_ms, free.retired_before) == (T0, BUCKET), "marks stay"
        other = await shards.take(free, "two")
        assert other is not None
        assert other.fence > mine.fence

    async def test_not_what_was_taken_over(self, shards: ShardRecords) -> None:
        old = await taken(shards, "one")
        new = await taken(shards, "two")
        assert not await shards.release(old)
        assert await record_of(shards) == new

    async def test_twice(self, shards: ShardRecords) -> None:
        mine = await taken(shards)
        assert await shards.release(mine)
        assert not await shards.release(mine)


class TestHoldMark:
    async def test_it_rises_and_never_falls(self, shards: ShardRecords) -> None:
        before = await record_of(shards)
        for asked, expected in [(T0, T0), (T0 - 5, T0), (T0, T0), (T0 + 5, T0 + 5)]:
            record = await shards.raise_hold_mark(0, asked)
            assert record == before._replace(hold_mark_ms=expected)
            assert await record_of(shards) == record

    async def test_it_needs_no_lease_and_breaks_none(self, shards: ShardRecords) -> None:
        mine = await taken(shards)
        assert await shards.raise_hold_mark(0, T0) == mine._replace(hold_mark_ms=T0)
        assert (
            await shards.renew(mine, settled_mark_ms=mine.settled_mark_ms, read_mark_ms=T0, retired_before=0)
            is not None
        )

    async def test_many_at_once_end_at_the_highest(self, shards: ShardRecords) -> None:
        records = await asyncio.gather(*(shards.raise_hold_mark(0, T0 + i) for i in range(8)))
        assert all(record.hold_mark_ms >= T0 + i for i, record in enumerate(records))
        assert (await record_of(shards)).hold_mark_ms == T0 + 7


class TestReportLate:
    async def test_every_report_counts(self, shards: ShardRecords) -> None:
        assert all(await asyncio.gather(*(shards.report_late(0, BUCKET) for _ in range(5))))
        assert (await record_of(shards)).late_writes == 5
        assert (await record_of(shards, 1)).late_writes == 0

    async def test_not_in_a_retired_bucket(self, shards: ShardRecords) -> None:
        await renewed(shards, await taken(shards), retired_before=BUCKET)
        assert not await shards.report_late(0, BUCKET - 1)
        assert (await record_of(shards)).late_writes == 0
        assert await shards.report_late(0, BUCKET), "retired are the buckets before it"
        assert (await record_of(shards)).late_writes == 1

    async def test_it_breaks_no_lease(self, shards: ShardRecords, store: TriggerStore) -> None:
        mine = await taken(shards)
        await store.add([trigger_at(T0)])
        await shards.report_late(0, BUCKET)
        assert await record_of(shards) == mine._replace(late_writes=1)
