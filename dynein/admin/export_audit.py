"""``dynein audit --export``: what `dynein.admin.audit` reports, of an export, and how much is due where and when.

Read twice: tombstones and marks first, since a job's tombstone may come after its trigger. In memory are tombstones,
the findings (a thousand at most), and a count for each queue and day.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from dynein.admin.audit import FINDINGS_MAX, OVERDUE, STRANDED, UNDECODABLE, Finding, Report, finding_of, undecodable
from dynein.core.job import decode_job
from dynein.core.keys import TriggerKey
from dynein.core.queue_address import name_of
from dynein.core.shard_records import ShardRecord
from dynein.core.stored_record import StoredRecord, StoredTombstone, StoredTrigger, Undecodable
from dynein.core.trigger import Trigger

UNREADABLE_QUEUE = "(unreadable)"
Records = Callable[[], Iterable[StoredRecord]]
"""Reads the export from its beginning."""


class Pending(NamedTuple):
    """How many jobs are due on one day (UTC) for one queue."""

    day: str
    queue: str
    jobs: int


class ExportReport(NamedTuple):
    """An audit's result, and the jobs that were pending, by day and queue."""

    at_ms: int
    audit: Report
    pending: list[Pending]


class Marks(NamedTuple):
    """What decides about a trigger."""

    shards: dict[int, ShardRecord]
    tombstones: set[TriggerKey]


def marks_of(records: Records) -> Marks:
    """The first reading."""
    marks = Marks({}, set())
    for record in records():
        if isinstance(record, ShardRecord):
            marks.shards[record.shard] = record
        elif isinstance(record, StoredTombstone):
            marks.tombstones.add(record.tombstone.key)
    return marks


def audit_export(records: Records, at_ms: int, *, overdue_s: float) -> ExportReport:
    """``at_ms``: the moment that the export shows."""
    marks = marks_of(records)
    counts = {STRANDED: 0, OVERDUE: 0, UNDECODABLE: 0}
    findings: list[Finding] = []
    pending: Counter[tuple[str, str]] = Counter()
    buckets: set[tuple[int, int]] = set()
    triggers = 0
    for record in records():
        if isinstance(record, StoredTrigger):
            triggers += 1
            buckets.add((record.bucket, record.trigger.key.shard))
        found = _finding(record, marks, at_ms - int(overdue_s * 1000))
        if found is not None:
            counts[found.kind] += 1
            findings += [found] if len(findings) < FINDINGS_MAX else []
        if isinstance(record, StoredTrigger) and record.trigger.key not in marks.tombstones:
            pending[day_of(record.trigger.key.due_at_ms), queue_of(record.trigger)] += 1
    report = Report(len(buckets), triggers, len(marks.tombstones), counts, 0, findings)
    return ExportReport(at_ms, report, [Pending(day, queue, jobs) for (day, queue), jobs in sorted(pending.items())])


def _finding(record: StoredRecord, marks: Marks, overdue_before_ms: int) -> Finding | None:
    if isinstance(record, Undecodable):
        return undecodable(record.bucket, record.key)
    if not isinstance(record, StoredTrigger) or record.trigger.key in marks.tombstones:
        return None
    shard = marks.shards.get(record.trigger.key.shard)
    return finding_of(record.trigger, record.bucket, shard, overdue_before_ms)


def day_of(due_at_ms: int) -> str:
    """The day (UTC) of a due time; those past the year 9999, which no job of ours has, are one day."""
    try:
        return dt.datetime.fromtimestamp(due_at_ms // 1000, tz=dt.UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return "after 9999"


def queue_of(trigger: Trigger) -> str:
    """The name of a job's destination queue."""
    try:
        return name_of(decode_job(trigger.record).queue)
    except ValueError:
        return UNREADABLE_QUEUE
