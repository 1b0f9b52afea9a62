"""What the dispatcher measures."""

from __future__ import annotations

from dynein.observability.metrics.declaring import Declarer

SHARD_LABELS_MAX = 256
"""Shards with a label value of their own, the first ones; the rest share ``other``."""


class DispatcherMetrics:
    """From the trigger store to the destinations' lanes; and who owns which shard."""

    def __init__(self, declare: Declarer) -> None:
        self.read_ahead = declare.gauge(
            "dynein_read_ahead_jobs",
            "Triggers in dispatchers' memory",
            combined="livesum",
            roles="dispatcher",
            look="jobs are late: at `read_ahead_jobs_max` a dispatcher reads nothing more",
        )
        self.overdue = declare.gauge(
            "dynein_overdue_jobs",
            "Triggers in dispatchers' memory that are due for more than a second, and not acknowledged",
            combined="livesum",
            roles="dispatcher",
            look="jobs are late: many here means that destinations or the sender are slow, none that reading is",
        )
        self.oldest_overdue_age = declare.sparse(
            "dynein_oldest_overdue_age_seconds",
            "For a shard: now minus the due time of the earliest trigger not sent, or minus the due time up to which "
            "the shard has been read, where that lags behind; 0 when nothing is late",
            {"shard": f"the shard; from {SHARD_LABELS_MAX} on all share `other`, which shows the largest"},
            roles="dispatcher (for the shards it owns)",
            look="jobs are late, and since when. One shard: its reads fail, or one job of it cannot be sent. All: the "
            "store or SQS is slow. A shard just taken shows for a moment from where it is read again",
        )
        self.removed = declare.counter(
            "dynein_triggers_removed_total",
            "Triggers removed after their send",
            roles="dispatcher",
            look="jobs arrive twice: far below `dynein_jobs_delivered_total`, removals fail",
        )
        self.leases = declare.gauge(
            "dynein_leases_held",
            "Shards that dispatchers own",
            combined="livesum",
            roles="dispatcher",
            look="one dispatcher is busier than others. Its sum over the fleet is `dynein_shards`",
        )
        self.lease_events = declare.counter(
            "dynein_lease_events_total",
            "Leases that changed hands",
            {"event": "`taken`, `released`, `lost`: another took it, since this process had not renewed in time"},
            roles="dispatcher",
            look="jobs arrive twice: a lease `lost` means that a process stood still for `lease_ttl_s`",
        )
