"""Metrics of the dispatcher."""

from __future__ import annotations

from dynein.observability.metrics.declaring import Declarer

SHARD_LABELS_MAX = 256
"""Shards below this number have a label value of their own; the rest share ``other``."""


class DispatcherMetrics:
    """Triggers from the store to the destinations' lanes, and leases."""

    def __init__(self, declare: Declarer) -> None:
        self.read_ahead = declare.gauge(
            "dynein_read_ahead_jobs",
            "Triggers in dispatchers' memory",
            combined="livesum",
            roles="dispatcher",
            look="jobs are late: at `read_ahead_jobs_max` a dispatcher stops reading",
        )
        self.overdue = declare.gauge(
            "dynein_overdue_jobs",
            "Triggers in dispatchers' memory that have been due for more than a second and are not acknowledged",
            combined="livesum",
            roles="dispatcher",
            look="jobs are late: a high value means that sending is slow, 0 that reading is",
        )
        self.oldest_overdue_age = declare.sparse(
            "dynein_oldest_overdue_age_seconds",
            "For each shard: now minus the due time of the earliest trigger that is not sent, or, where reading lags, "
            "minus the due time up to which the shard has been read; 0 when nothing is late",
            {"shard": f"the shard; shards from {SHARD_LABELS_MAX} on share `other`, which has the largest value"},
            roles="dispatcher (for the shards it owns)",
            look="jobs are late: it shows since when. One shard: its reads fail, or one of its jobs cannot be sent. "
            "All shards: the store or SQS is slow. Just after a shard is taken over the value is high for a moment, "
            "because the new owner reads again from the first open bucket",
        )
        self.removed = declare.counter(
            "dynein_triggers_removed_total",
            "Triggers removed after their send",
            roles="dispatcher",
            look="jobs arrive twice: if it is far below `dynein_jobs_delivered_total`, removals fail",
        )
        self.leases = declare.gauge(
            "dynein_leases_held",
            "Shards that dispatchers own",
            combined="livesum",
            roles="dispatcher",
            look="one dispatcher is busier than the others. The sum over the fleet equals `dynein_shards`",
        )
        self.lease_events = declare.counter(
            "dynein_lease_events_total",
            "Changes of lease ownership",
            {
                "event": "`taken`; `released`; `lost`: another process took it, because this one did not renew it in "
                "time"
            },
            roles="dispatcher",
            look="jobs arrive twice: a `lost` lease means that a process was frozen or cut off for `lease_ttl_s`",
        )
