"""Metric names, in one place. Prometheus conventions: base units, ``_total`` on counters, bounded labels."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

OTHER = "other"
QUEUE_LABELS_MAX = 100
"""Destination queues with a label value of their own; the rest share ``other``."""

LATENESS_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)


class Telemetry:
    """One process's metrics, on a registry of its own (so that tests and simulated processes do not share).

    ``workers_directory``: where this process and its siblings keep their values (`dynein.worker`); they report as one,
    so every gauge says how its values combine (``multiprocess_mode``).
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, workers_directory: Path | None = None) -> None:
        self.workers_directory = workers_directory
        self._of_the_fleet: list[Collector] = []
        self.registry = registry if registry is not None else CollectorRegistry()
        r = self.registry
        self.accepted = Counter("dynein_jobs_accepted_total", "Jobs accepted by the API", ["policy"], registry=r)
        self.refused = Counter("dynein_jobs_refused_total", "Jobs refused by the API", ["reason"], registry=r)
        self.cancelled = Counter("dynein_jobs_cancelled_total", "Cancel requests, by outcome", ["outcome"], registry=r)
        self.moved = Counter("dynein_jobs_moved_total", "Move requests, by outcome", ["outcome"], registry=r)
        self.ingested = Counter(
            "dynein_jobs_ingested_total",
            "Jobs taken from the inbound queue: stored, held (sent by the ingester), cancelled before they were "
            "stored, duplicate (a prepared job created before), poison (dead-lettered, per message)",
            ["outcome"],
            registry=r,
        )
        self.inbound_failures = Counter(
            "dynein_inbound_failures_total",
            "Inbound messages that could not be deleted, kept invisible (extend) or given back: they come again later",
            ["operation"],
            registry=r,
        )
        self.delivered = Counter(
            "dynein_jobs_delivered_total", "Due jobs SQS acknowledged", ["role", "queue"], registry=r
        )
        self.dead_lettered = Counter(
            "dynein_jobs_dead_lettered_total", "Jobs moved to the dead-letter queue", ["role", "queue"], registry=r
        )
        self.removed = Counter("dynein_triggers_removed_total", "Triggers removed after their send", registry=r)
        self.lateness = Histogram(
            "dynein_lateness_seconds",
            "Send time minus due time of acknowledged jobs",
            ["role"],
            buckets=LATENESS_BUCKETS_S,
            registry=r,
        )
        self.send_failures = Counter(
            "dynein_send_failures_total", "Failed sends to destination queues, by error code", ["code"], registry=r
        )
        self.held = Gauge("dynein_held_jobs", "Jobs in the ingester's hand", registry=r, multiprocess_mode="livesum")
        self.read_ahead = Gauge(
            "dynein_read_ahead_jobs", "Triggers in the dispatcher's memory", registry=r, multiprocess_mode="livesum"
        )
        self.leases = Gauge("dynein_leases_held", "Shards this process owns", registry=r, multiprocess_mode="livesum")
        self.lease_events = Counter(
            "dynein_lease_events_total", "Leases taken, released and lost", ["event"], registry=r
        )
        self.late_writes = Counter(
            "dynein_late_writes_total", "Triggers stored behind their shard's read mark", registry=r
        )
        self.aws_calls = Counter(
            "dynein_aws_calls_total", "Calls to SQS and DynamoDB", ["operation", "outcome"], registry=r
        )
        # Of `dynein serve --workers`, by number. Connections are those of workers that live: count them for who does.
        self.worker_connections = Gauge(
            "dynein_worker_connections",
            "HTTP connections of each worker that lives",
            ["worker"],
            registry=r,
            multiprocess_mode="livesum",
        )
        self.worker_requests = Counter(
            "dynein_worker_requests_total", "HTTP requests, by worker", ["worker"], registry=r
        )
        self.worker_cpu = Counter("dynein_worker_cpu_seconds_total", "CPU time used, by worker", ["worker"], registry=r)
        self.worker_starts = Counter(
            "dynein_worker_starts_total",
            "Times a worker has become ready; the first is no restart",
            ["worker"],
            registry=r,
        )
        self._queues: dict[str, str] = {}

    def add_of_the_fleet(self, collector: Collector) -> None:
        """Export what ``collector`` says, as it is: figures of the whole fleet, which workers do not have to sum up."""
        self._of_the_fleet.append(collector)
        self.registry.register(collector)

    def exposition(self) -> bytes:
        """All metrics as text for Prometheus; those of all workers where there is more than one."""
        if self.workers_directory is None:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together, str(self.workers_directory))  # type: ignore[no-untyped-call]
        for collector in self._of_the_fleet:
            together.register(collector)
        return generate_latest(together)

    def queue_label(self, queue: str) -> str:
        """``queue`` as a label value, or ``other`` once `QUEUE_LABELS_MAX` have been given out."""
        label = self._queues.get(queue)
        if label is None:
            if len(self._queues) >= QUEUE_LABELS_MAX:
                return OTHER
            label = queue.rsplit("/", 1)[-1]
            self._queues[queue] = label
        return label
