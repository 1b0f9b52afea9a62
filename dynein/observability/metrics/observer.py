"""Metrics of the whole fleet, measured by one process: `dynein.fleet.observer`. No other process has these series."""

from __future__ import annotations

from dynein.observability.metrics.declaring import Declarer

ROLES = "dispatcher (the one that owns shard 0)"


class ObserverMetrics:
    """Queues, shards, and the forecast of due jobs."""

    def __init__(self, declare: Declarer) -> None:
        self.inbound_messages = declare.sparse(
            "dynein_inbound_messages",
            "Messages on the inbound queue, by SQS's approximate count; each carries up to hundreds of jobs",
            {"state": "`visible`, `in_flight`, `delayed`"},
            roles=ROLES,
            look="accepted jobs are not stored: `visible` grows while ingesters do not keep up",
        )
        self.dead_letters = declare.sparse(
            "dynein_dead_letter_messages",
            "Messages visible in the dead-letter queue, by SQS's approximate count",
            roles=ROLES,
            look="it is not 0: `dynein redrive` lists these messages and sends them again",
        )
        self.shards = declare.sparse(
            "dynein_shards",
            "Shards of the table",
            roles=ROLES,
            look="it is missing: no dispatcher owns shard 0, most likely because none is running",
        )
        self.shards_unowned = declare.sparse(
            "dynein_shards_unowned",
            "Shards without an owner, or whose owner has not renewed its lease for `lease_ttl_s` by the observer's "
            "clock",
            roles=ROLES,
            look="it stays above 0 after a deployment: due jobs of these shards are not sent",
        )
        self.forecast = declare.sparse(
            "dynein_forecast_jobs",
            "Stored triggers due in each of the coming minutes, counted, or estimated from a sample of the shards. "
            "Jobs that SQS holds (`SQS_DELAYED`) and jobs on the inbound queue are not included",
            {"minute": "`0` (the rest of the current minute when it was made) to `29`"},
            roles=ROLES,
            look="you plan capacity: it shows what dispatchers and consumers will have to process, early enough to "
            "scale",
        )
        self.forecast_timestamp = declare.sparse(
            "dynein_forecast_timestamp_seconds",
            "When the forecast was made, Unix time",
            roles=ROLES,
            look="a forecast looks wrong: it is stale if this is further back than `forecast_interval_s`",
        )
