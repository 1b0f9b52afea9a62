"""A trigger: the stored form of a scheduled job."""

from __future__ import annotations

from typing import NamedTuple

from dynein.core.keys import JOB_ID_BYTES, TriggerKey

SLOT_BYTES = 4096


def slots(record_bytes: int) -> int:
    """What a job counts for where jobs in memory are bounded: one, and one more for every `SLOT_BYTES` of its record.

    So that a bound on jobs is a bound on bytes too: bodies of 256 KiB must not take sixty times what was planned for.
    """
    return 1 + record_bytes // SLOT_BYTES


class Trigger(NamedTuple):
    """One scheduled job at rest. ``record`` is the job as `dynein.core.job.encode_job` wrote it."""

    key: TriggerKey
    token: str
    record: bytes


def check(trigger: Trigger) -> None:
    """Assert what every trigger must be, before it is written and after it is read."""
    assert trigger.key.due_at_ms >= 0, trigger
    assert len(trigger.key.job_id) == JOB_ID_BYTES, trigger
    assert trigger.record, trigger
