"""What the fleet's observer measures for all: `dynein.fleet.observer`. Nobody else has these series."""

from __future__ import annotations

from dynein.observability.metrics.declaring import Declarer

ROLES = "dispatcher (the one that owns shard 0)"


class ObserverMetrics:
    """Queues, shards and what is to come."""

    def __init__(self, declare: Declarer) -> None:
        self.inbound_messages = declare.sparse(
            "dynein_inbound_messages",
            "Messages of the inbound queue, by SQS's approximate count; each carries up to hundreds of jobs",
            {"state": "`visible`, `in_flight`, `delayed`"},
            roles=ROLES,
            look="jobs accepted are not stored: `visible` grows while ingesters do not keep up",
        )
        self.dead_letters = declare.sparse(
            "dynein_dead_letter_messages",
            "Messages visible in the dead-letter queue, by SQS's approximate count",
            roles=ROLES,
            look="anything but 0: `dynein redrive` shows and sends them",
        )
        self.shards = declare.sparse(
            "dynein_shards",
            "Shards of the table",
            roles=ROLES,
            look="it is missing: no dispatcher owns shard 0, most likely none is running",
        )
        self.shards_unowned = declare.sparse(
            "dynein_shards_unowned",
            "Shards without an owner, or whose owner has not renewed for `lease_ttl_s`, as the observer sees it",
            roles=ROLES,
            look="more than 0 for longer than a deployment: the jobs of these shards wait",
        )
        self.forecast = declare.sparse(
            "dynein_forecast_jobs",
            "Stored triggers due in each of the coming minutes, counted or estimated from a sample of the shards. What "
            "SQS holds (`SQS_DELAYED`) and what is on the inbound queue is not in it",
            {"minute": "`0` (the rest of the minute in which it was made) to `29`"},
            roles=ROLES,
            look="you plan: what will be due, and can dispatchers and consumers take it? Scale before it comes",
        )
        self.forecast_timestamp = declare.sparse(
            "dynein_forecast_timestamp_seconds",
            "When the forecast was made, Unix time",
            roles=ROLES,
            look="a forecast looks wrong: it is stale if this is older than `forecast_interval_s`",
        )
