"""What an accepted job is warned of. Pure."""

from __future__ import annotations

from dynein.api.due_time import MS_PER_S
from dynein.api.schemas import JobWarning
from dynein.core.job import Job
from dynein.core.queues import Destination

QUEUE_DELAYS = "queue-delays-messages"


def warnings_of(job: Job, destination: Destination, *, in_order: bool) -> tuple[JobWarning, ...]:
    """Every warning for ``job``; most have none. ``in_order``: it has its place among the jobs of its message group."""
    if not destination.fifo:
        return ()
    return _of_queue_delay(job, destination) + (() if in_order else (_OUT_OF_ORDER,))


_OUT_OF_ORDER = JobWarning(
    "out-of-order",
    "The token was prepared without the queue and message group of this job, so it has no place among others of its "
    "group that are due at about the same time.",
    "Send queue and message_group_id with POST /v1/tokens.",
)


def _of_queue_delay(job: Job, destination: Destination) -> tuple[JobWarning, ...]:
    late_ms = destination.imposed_delay_s * MS_PER_S - job.lead_ms
    if late_ms <= 0:
        return ()
    delay = f"The FIFO queue has a DelaySeconds of {destination.delay_s}, which SQS adds to every message"
    fix = "Set the queue's DelaySeconds to 0"
    if job.lead_ms:
        return (JobWarning(QUEUE_DELAYS, f"{delay}: too late to allow for all of it.", f"{fix}, or submit earlier."),)
    detail = f"{delay}: the job becomes visible {destination.delay_s} s after it is due."
    return (JobWarning(QUEUE_DELAYS, detail, f"{fix}, or submit with allow_for_queue_delay."),)
