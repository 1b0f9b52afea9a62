"""How a metric is declared: once, together with the text that `dynein.observability.metrics.reference` prints."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

ABSENT = -math.inf
"""The value of a series that is not exported. (A series cannot be removed from the files that workers share; and minus
infinity loses against any other value where the largest of all workers is exported.)"""
Combined = Literal["livesum", "livemax", "livemostrecent"]
"""How one gauge's values in several workers become one: their sum, the largest, or the one set last."""
NO_LABELS: Mapping[str, str] = {}


class Declared(NamedTuple):
    """One metric's entry on the reference page. ``labels``: what the values of each label are."""

    name: str
    kind: str
    labels: Mapping[str, str]
    roles: str
    meaning: str
    look: str
    """Completes the sentence "Look here when ..."."""


class SparseGauge(Gauge):
    """A gauge whose series are exported from their first `set` until they are forgotten."""

    def collect(self) -> Iterator[Metric]:
        """The gauge without its absent series."""
        for metric in super().collect():
            metric.samples = present(metric.samples)
            yield metric

    def show(self, values: Mapping[str, float]) -> None:
        """Export these series, by the value of their one label, and no others."""
        self.forget(keep=values)
        for label, value in values.items():
            self.labels(label).set(value)

    def forget(self, keep: Container[str] = ()) -> None:
        """Stop exporting its series, except those whose one label's value is in ``keep``."""
        if not self._labelnames:
            self.set(ABSENT)
            return
        for (value,) in list(self._metrics):
            if value not in keep:
                self.labels(value).set(ABSENT)


def present(samples: Sequence[Sample]) -> list[Sample]:
    """``samples`` without those that are `ABSENT`."""
    return [sample for sample in samples if sample.value != ABSENT]


class Declarer:
    """Makes metrics on one registry and keeps their entries for the reference page."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.declared: list[Declared] = []

    def counter(
        self, name: str, meaning: str, labels: Mapping[str, str] = NO_LABELS, *, roles: str, look: str
    ) -> Counter:
        """A value that only goes up."""
        self.declared.append(Declared(name, "counter", labels, roles, meaning, look))
        return Counter(name, meaning, list(labels), registry=self._registry)

    def gauge(
        self,
        name: str,
        meaning: str,
        labels: Mapping[str, str] = NO_LABELS,
        *,
        combined: Combined,
        roles: str,
        look: str,
    ) -> Gauge:
        """A value that goes up and down."""
        self.declared.append(Declared(name, "gauge", labels, roles, meaning, look))
        return Gauge(name, meaning, list(labels), registry=self._registry, multiprocess_mode=combined)

    def sparse(
        self, name: str, meaning: str, labels: Mapping[str, str] = NO_LABELS, *, roles: str, look: str
    ) -> SparseGauge:
        """A gauge that one process exports, or only for a while; of several workers the largest value is exported."""
        self.declared.append(Declared(name, "gauge", labels, roles, meaning, look))
        gauge = SparseGauge(name, meaning, list(labels), registry=self._registry, multiprocess_mode="livemax")
        if not labels:
            gauge.forget()
        return gauge

    def histogram(
        self,
        name: str,
        meaning: str,
        labels: Mapping[str, str] = NO_LABELS,
        *,
        buckets: Sequence[float],
        roles: str,
        look: str,
    ) -> Histogram:
        """The distribution of a value. ``buckets``: their upper bounds."""
        self.declared.append(Declared(name, "histogram", labels, roles, meaning, look))
        return Histogram(name, meaning, list(labels), registry=self._registry, buckets=buckets)
