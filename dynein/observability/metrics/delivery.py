"""What the last leg measures: due jobs to their destinations, by dispatchers and ingesters alike."""

from __future__ import annotations

from dynein.observability.metrics.declaring import Declarer

LATENESS_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
QUEUE = "destination, by name; `other` past the first 100 of a process"
ROLE = "`dispatcher`, `ingester`"
ROLES = "dispatcher, ingester"


class DeliveryMetrics:
    """Sends to destinations."""

    def __init__(self, declare: Declarer) -> None:
        self.delivered = declare.counter(
            "dynein_jobs_delivered_total",
            "Due jobs SQS acknowledged",
            {"role": ROLE, "queue": QUEUE},
            roles=ROLES,
            look="a consumer says that nothing comes. What the API sends itself is not in it: see "
            "`dynein_jobs_accepted_total`",
        )
        self.lateness = declare.histogram(
            "dynein_lateness_seconds",
            "Send time minus due time of acknowledged jobs: the delay that was asked for is not in it",
            {"role": ROLE, "queue": QUEUE},
            buckets=LATENESS_BUCKETS_S,
            roles=ROLES,
            look="jobs are late: it says for whom, and how much. One queue alone: its destination is slow or failing. "
            "All: see `dynein_oldest_overdue_age_seconds`",
        )
        self.send_failures = declare.counter(
            "dynein_send_failures_total",
            "Tries of jobs that failed, sends to destinations and to the dead-letter queue alike",
            {
                "code": "SQS's error code, or the name of our error; `DeadLetter...`: the dead-letter queue failed too",
                "queue": QUEUE,
                "remedy": "`retry`: passes by itself; `reject`: the job or its queue is wrong; `stop`: credentials or "
                "set-up are, and a person has to act",
            },
            roles=ROLES,
            look="a destination's jobs are late or dead-lettered: `code` says why",
        )
        self.dead_lettered = declare.counter(
            "dynein_jobs_dead_lettered_total",
            "Jobs moved to the dead-letter queue",
            {"role": ROLE, "queue": QUEUE},
            roles=ROLES,
            look="jobs are missing: `dynein redrive` sends them on once the cause is gone",
        )
