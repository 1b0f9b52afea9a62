"""Metrics of delivery: due jobs sent to their destination queues, by dispatchers and ingesters."""

from __future__ import annotations

from dynein.observability.metrics.declaring import Declarer

LATENESS_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
QUEUE = "destination queue, by name; `other` beyond the first 100 of a process"
ROLE = "`dispatcher`, `ingester`"
ROLES = "dispatcher, ingester"


class DeliveryMetrics:
    """Sends to destination queues."""

    def __init__(self, declare: Declarer) -> None:
        self.delivered = declare.counter(
            "dynein_jobs_delivered_total",
            "Due jobs that SQS acknowledged",
            {"role": ROLE, "queue": QUEUE},
            roles=ROLES,
            look="a consumer receives nothing. Jobs that the API sends itself are not counted here: see "
            "`dynein_jobs_accepted_total`",
        )
        self.lateness = declare.histogram(
            "dynein_lateness_seconds",
            "How much later than they were due acknowledged jobs became visible: send time, plus the delay that a FIFO "
            "queue imposes on every message, minus due time. The delay asked for is not part of it",
            {"role": ROLE, "queue": QUEUE},
            buckets=LATENESS_BUCKETS_S,
            roles=ROLES,
            look="jobs are late: it shows which, and by how much. One queue alone: that queue is slow or failing, or "
            "is a FIFO queue with a delay of its own (`dynein_job_warnings_total`). "
            "All queues: see `dynein_oldest_overdue_age_seconds`",
        )
        self.send_failures = declare.counter(
            "dynein_send_failures_total",
            "Failed attempts to send a job, to its destination queue or to the dead-letter queue",
            {
                "code": "SQS's error code, or the name of Dynein's error; `DeadLetter...`: the dead-letter queue "
                "failed too",
                "queue": QUEUE,
                "remedy": "`retry`: it is retried; `reject`: the job or its queue is wrong; `stop`: credentials or "
                "set-up are wrong, operator action required",
            },
            roles=ROLES,
            look="jobs of one destination queue are late or dead-lettered: `code` says why",
        )
        self.dead_lettered = declare.counter(
            "dynein_jobs_dead_lettered_total",
            "Jobs moved to the dead-letter queue",
            {"role": ROLE, "queue": QUEUE},
            roles=ROLES,
            look="jobs are missing: `dynein redrive` sends them again once the cause is fixed",
        )
