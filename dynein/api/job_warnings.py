"""What an accepted job is warned of. Pure."""

from __future__ import annotations

from dynein.api.due_time import MS_PER_S
from dynein.api.schemas import JobWarning
from dynein.core.job import Job
from dynein.core.queues import Destination

QUEUE_DELAYS = "queue-delays-messages"


def warnings_of(job: Job, destination: Destination) -> tuple[JobWarning, ...]:
    """Every warning for ``job``; most have none."""
    late_ms = destination.imposed_delay_s * MS_PER_S - job.lead_ms
    if late_ms <= 0:
        return ()
    delay = f"The FIFO queue has a DelaySeconds of {destination.delay_s}, which SQS adds to every message"
    fix = "Set the queue's DelaySeconds to 0"
    if job.lead_ms:
        return (JobWarning(QUEUE_DELAYS, f"{delay}: too late to allow for all of it.", f"{fix}, or submit earlier."),)
    detail = f"{delay}: the job becomes visible {destination.delay_s} s after it is due."
    return (JobWarning(QUEUE_DELAYS, detail, f"{fix}, or submit with allow_for_queue_delay."),)
