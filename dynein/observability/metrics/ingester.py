"""Metrics of the ingester."""

from __future__ import annotations

from dynein.observability.metrics.declaring import Declarer


class IngesterMetrics:
    """From the inbound queue to the trigger store."""

    def __init__(self, declare: Declarer) -> None:
        self.ingested = declare.counter(
            "dynein_jobs_ingested_total",
            "Jobs taken from the inbound queue, by outcome. A message received twice counts twice",
            {
                "outcome": "`stored`; `held`: sent by the ingester; `cancelled`: before it was stored; `duplicate`: "
                "its prepared token was used before; `poison`: the message cannot be decoded and is dead-lettered "
                "(counted once a message)"
            },
            roles="ingester",
            look="the inbound queue grows: if this does not, ingesters do not work",
        )
        self.stored = declare.counter(
            "dynein_triggers_stored_total",
            "Triggers written to the store and acknowledged by DynamoDB. One written twice counts twice",
            roles="ingester",
            look="you want to compare what is stored with `dynein_triggers_removed_total`",
        )
        self.inbound_oldest_age = declare.gauge(
            "dynein_inbound_oldest_age_seconds",
            "Age of the oldest message of the last receive, by the time at which SQS accepted it; 0 if there was none",
            combined="livemax",
            roles="ingester",
            look="`GET` and `DELETE` do not find new jobs: above a few seconds, ingesters do not keep up. If it does "
            "not change while `dynein_inbound_messages` grows, ingesters receive nothing",
        )
        self.inbound_failures = declare.counter(
            "dynein_inbound_failures_total",
            "Inbound messages for which a call to SQS failed; SQS delivers them again later",
            {"operation": "`delete`; `extend`: of the visibility timeout; `give_back`: to make it visible again"},
            roles="ingester",
            look="jobs arrive twice",
        )
        self.late_writes = declare.counter(
            "dynein_late_writes_total",
            "Triggers stored behind their shard's read mark: the shard's owner reads its open buckets again",
            roles="ingester",
            look="dispatchers read far more than they send, or single jobs are seconds late",
        )
        self.held = declare.gauge(
            "dynein_held_jobs",
            "Jobs in ingesters' memory: due within seconds, never stored",
            combined="livesum",
            roles="ingester",
            look="an ingester receives nothing: at `held_jobs_max` it stops receiving",
        )
