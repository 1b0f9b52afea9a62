"""What the ingester measures."""

from __future__ import annotations

from dynein.observability.metrics.declaring import Declarer


class IngesterMetrics:
    """From the inbound queue to the trigger store."""

    def __init__(self, declare: Declarer) -> None:
        self.ingested = declare.counter(
            "dynein_jobs_ingested_total",
            "Jobs taken from the inbound queue, by what became of them. A message that comes again counts again",
            {
                "outcome": "`stored`; `held`: sent by the ingester; `cancelled`: before they were stored; `duplicate`: "
                "a prepared job created before; `poison`: dead-lettered (per message)"
            },
            roles="ingester",
            look="the inbound queue grows: does anything come out of it?",
        )
        self.stored = declare.counter(
            "dynein_triggers_stored_total",
            "Triggers written to the store, as DynamoDB acknowledged them. One written again counts again",
            roles="ingester",
            look="you compare what goes into the store with `dynein_triggers_removed_total`",
        )
        self.inbound_oldest_age = declare.gauge(
            "dynein_inbound_oldest_age_seconds",
            "Age of the oldest message of the last receive, by SQS's time of sending; 0 if there was none",
            combined="livemax",
            roles="ingester",
            look="jobs become visible late, or cancels find nothing: above a few seconds, ingesters do not keep up. "
            "Standing still while `dynein_inbound_messages` grows: they do not receive at all",
        )
        self.inbound_failures = declare.counter(
            "dynein_inbound_failures_total",
            "Inbound messages for which a call to SQS failed: they come again later",
            {"operation": "`delete`, `extend` (kept invisible), `give_back`"},
            roles="ingester",
            look="jobs arrive twice",
        )
        self.late_writes = declare.counter(
            "dynein_late_writes_total",
            "Triggers stored behind their shard's read mark: dispatchers read again for them",
            roles="ingester",
            look="dispatchers read much more than they send, or single jobs are seconds late",
        )
        self.held = declare.gauge(
            "dynein_held_jobs",
            "Jobs in ingesters' hands: due within seconds, never stored",
            combined="livesum",
            roles="ingester",
            look="an ingester takes nothing in: at `held_jobs_max` it stops",
        )
