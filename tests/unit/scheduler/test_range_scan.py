"""Scans of a range of due times, against a shard in memory."""

from hypothesis import given
from hypothesis import strategies as st

from dynein.core.keys import JOB_ID_BYTES, Kind, TriggerKey, sort_key
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import Page, Tombstone
from dynein.scheduler.range_scan import Empty, RangeScan

WIDTH_MS = 10
GRACE_MS = 100


class Shard:
    """Records by (due time, job id, kind), read as DynamoDB reads."""

    def __init__(self, records: set[tuple[int, int, Kind]]) -> None:
        self.records = sorted((self._key(due, job), kind) for due, job, kind in records)

    def _key(self, due_at_ms: int, job: int) -> TriggerKey:
        return TriggerKey(due_at_ms, job.to_bytes(JOB_ID_BYTES, "big"), 0)

    def read(self, bucket: int, from_ms: int, until_ms: int, resume: bytes | None, limit: int) -> Page:
        assert bucket * WIDTH_MS <= from_ms <= until_ms < (bucket + 1) * WIDTH_MS
        page = Page([], [], [], None)
        found = [
            (key, kind)
            for key, kind in self.records
            if from_ms <= key.due_at_ms <= until_ms and (resume is None or sort_key(key, kind) > resume)
        ][:limit]
        for key, kind in found:
            if kind is Kind.TOMBSTONE:
                page.tombstones.append(Tombstone(key, None))
            else:
                page.triggers.append(Trigger(key, "token", b"record"))
        return page._replace(resume=sort_key(*found[-1])) if len(found) == limit else page


records = st.sets(st.tuples(st.integers(0, 59), st.integers(0, 3), st.sampled_from(Kind)), max_size=60)


@given(records, st.integers(0, 59), st.integers(0, 59), st.integers(1, 7), st.integers(0, 300))
def test_a_scan_reads_all_of_its_range_once_in_order_and_knows_what_is_cancelled(
    stored: set[tuple[int, int, Kind]], one_end_ms: int, other_end_ms: int, limit: int, now_ms: int
) -> None:
    shard = Shard(stored)
    from_ms, until_ms = sorted((one_end_ms, other_end_ms))
    scan = RangeScan.over(from_ms, until_ms, WIDTH_MS)
    delivered: list[TriggerKey] = []
    cancelled: list[TriggerKey] = []
    empty: list[int] = []
    while not scan.done:
        scan = scan.begin(now_ms=now_ms, late_writes=5, retire_grace_ms=GRACE_MS)
        page = shard.read(*scan.request, limit=limit)
        tombstones = scan.cancelled(page)
        for trigger in page.triggers:
            (cancelled if trigger.key in tombstones else delivered).append(trigger.key)
        found = scan.proven_by(page)
        scan = scan.after(page)
        if found is not None:
            assert found.late_writes == 5
            empty.append(found.bucket)
        read = delivered + cancelled
        assert all(key.due_at_ms <= scan.passed_ms for key in read), "what was read was passed"
    assert scan.passed_ms == until_ms
    keys = {
        kind: {key for key, k in shard.records if k is kind and from_ms <= key.due_at_ms <= until_ms} for kind in Kind
    }
    assert delivered == sorted(keys[Kind.TRIGGER] - keys[Kind.TOMBSTONE])
    assert cancelled == sorted(keys[Kind.TRIGGER] & keys[Kind.TOMBSTONE])
    assert empty == [
        bucket
        for bucket in range(6)
        if from_ms <= bucket * WIDTH_MS
        and (bucket + 1) * WIDTH_MS - 1 <= until_ms
        and (bucket + 1) * WIDTH_MS - 1 + GRACE_MS < now_ms
        and not any(key.due_at_ms // WIDTH_MS == bucket for key in keys[Kind.TRIGGER])
    ]


def test_a_bucket_read_over_several_pages_counts_from_when_the_first_began() -> None:
    full = Page([], [Tombstone(TriggerKey(3, b"x" * JOB_ID_BYTES, 0), None)], [], b"more")
    last = Page([], [], [], None)
    for first_ms, first_late, proven in ((109, 1, None), (110, 1, Empty(0, 1))):
        scan = RangeScan.over(0, WIDTH_MS - 1, WIDTH_MS)
        scan = scan.begin(now_ms=first_ms, late_writes=first_late, retire_grace_ms=GRACE_MS)
        assert scan.proven_by(full) is None
        scan = scan.after(full)
        assert scan.passed_ms == 3
        scan = scan.begin(now_ms=500, late_writes=2, retire_grace_ms=GRACE_MS)
        assert scan.proven_by(last) == proven


def test_a_call_that_failed_is_begun_anew() -> None:
    scan = RangeScan.over(0, WIDTH_MS - 1, WIDTH_MS)
    scan = scan.begin(now_ms=50, late_writes=1, retire_grace_ms=GRACE_MS)
    scan = scan.begin(now_ms=500, late_writes=2, retire_grace_ms=GRACE_MS)
    assert scan.proven_by(Page([], [], [], None)) == Empty(0, 2)


def test_an_empty_range_is_done_at_once() -> None:
    scan = RangeScan.over(7, 6, WIDTH_MS)
    assert scan.done
    assert scan.passed_ms == 6
