"""One process's metrics. `dynein.observability.metrics` declares them; ``docs/reference/metrics.md`` shows them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from dynein.core.queue_address import name_of
from dynein.observability.metrics.api import ApiMetrics
from dynein.observability.metrics.aws import AwsMetrics
from dynein.observability.metrics.declaring import Declarer, present
from dynein.observability.metrics.delivery import DeliveryMetrics
from dynein.observability.metrics.dispatcher import DispatcherMetrics
from dynein.observability.metrics.ingester import IngesterMetrics
from dynein.observability.metrics.ledger import LEDGER
from dynein.observability.metrics.observer import ObserverMetrics
from dynein.observability.metrics.process import ProcessMetrics

OTHER = "other"
QUEUE_LABELS_MAX = 100
"""Destination queues that get a label value of their own; all others share ``other``."""


class Telemetry(
    ApiMetrics, IngesterMetrics, DispatcherMetrics, DeliveryMetrics, ObserverMetrics, AwsMetrics, ProcessMetrics
):
    """One process's metrics, on a registry of its own (so that tests and simulated processes do not share).

    ``workers_directory``: where this process and its sibling workers keep their values
    (`dynein.server.workers.worker`); they are exported as one process, so every gauge declares how its values combine.
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, workers_directory: Path | None = None) -> None:
        self.workers_directory = workers_directory
        self._of_the_fleet: list[Collector] = []
        self.registry = registry if registry is not None else CollectorRegistry()
        declare = Declarer(self.registry)
        ApiMetrics.__init__(self, declare)
        IngesterMetrics.__init__(self, declare)
        DispatcherMetrics.__init__(self, declare)
        DeliveryMetrics.__init__(self, declare)
        ObserverMetrics.__init__(self, declare)
        AwsMetrics.__init__(self, declare)
        ProcessMetrics.__init__(self, declare)
        self.declared = [*declare.declared, *LEDGER]
        """All metrics, for the reference page."""
        self._queues: dict[str, str] = {}

    def add_of_the_fleet(self, collector: Collector) -> None:
        """Export the series of ``collector`` as they are: figures of the whole fleet, not to be summed over workers."""
        self._of_the_fleet.append(collector)
        self.registry.register(collector)

    def measure_process(self) -> None:
        """Export CPU, memory and file descriptors (``process_...``) too: for a process that is the only one."""
        if self.workers_directory is None:
            ProcessCollector(registry=self.registry)

    def exposition(self) -> bytes:
        """All metrics in Prometheus's text format; of all workers where there are several."""
        if self.workers_directory is None:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        together.register(_Workers(self.workers_directory))
        for collector in self._of_the_fleet:
            together.register(collector)
        return generate_latest(together)

    def queue_label(self, queue: str) -> str:
        """``queue`` as a label value, or ``other`` once `QUEUE_LABELS_MAX` queues have one."""
        label = self._queues.get(queue)
        if label is None:
            if len(self._queues) >= QUEUE_LABELS_MAX:
                return OTHER
            label = name_of(queue)
            self._queues[queue] = label
        return label


class _Workers(Collector):
    """All workers' metrics, without absent series (`SparseGauge`)."""

    def __init__(self, directory: Path) -> None:
        self._files = MultiProcessCollector(None, str(directory))  # type: ignore[no-untyped-call]

    def collect(self) -> Iterator[Metric]:
        for metric in self._files.collect():  # type: ignore[no-untyped-call]
            metric.samples = present(metric.samples)
            yield metric
