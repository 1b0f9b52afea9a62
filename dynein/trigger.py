"""A trigger: the stored form of a scheduled job."""

from __future__ import annotations

from typing import NamedTuple

from dynein.partition import JOB_ID_BYTES, TriggerKey


class Trigger(NamedTuple):
    """One scheduled job at rest. ``record`` is the job as `dynein.job.encode_job` wrote it."""

    key: TriggerKey
    token: str
    record: bytes


def check(trigger: Trigger) -> None:
    """Assert what every trigger must be, before it is written and after it is read."""
    assert trigger.key.due_at_ms >= 0, trigger
    assert len(trigger.key.job_id) == JOB_ID_BYTES, trigger
    assert trigger.record, trigger
