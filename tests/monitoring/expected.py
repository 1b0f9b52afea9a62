"""Which metrics the code has, and what the queries of dashboard and rules ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from dynein.ledger.export import LedgerMetrics
from dynein.observability.telemetry import Telemetry
from dynein.runtime.clock import SystemClock
from k8s.monitoring.dashboard import dashboard
from k8s.monitoring.made import ALERTS
from tests.deploy.rendering import parse

NOT_SHOWN = {"dynein_worker_connections", "dynein_worker_requests_total"}
"""Metrics that neither dashboard nor rules use: for whoever looks into one machine (docs/how-to/use-all-cores.md)."""

TARGET_LABELS = {"job", "namespace", "instance", "le"}
"""Those that Prometheus or the kind of metric adds."""


class Asked(NamedTuple):
    """One query, where it stands, and the labels that its legend shows."""

    where: str
    expr: str
    legend: str
    instant: bool

    @property
    def metrics(self) -> set[str]:
        """The names of Dynein's metrics in it."""
        names = re.findall(r"\bdynein_[a-z_0-9]+", self.expr)
        return {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}

    @property
    def shown(self) -> set[str]:
        """The labels that the legend shows."""
        return set(re.findall(r"{{(\w+)}}", self.legend))

    @property
    def labels(self) -> set[str]:
        """All labels in it, but not those that a function makes."""
        grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", self.expr)
        matched = re.findall(r"{([^{}]*)}", self.expr)
        named = {label.strip() for group in grouped for label in group.split(",")}
        return named | {label for group in matched for label in re.findall(r"(\w+)\s*[=!]~?\s*\"", group)} | self.shown


def known() -> dict[str, set[str]]:
    """The metrics of the code, as queries name them, with their labels."""
    collectors = Telemetry().registry._names_to_collectors  # the only place that has the labels
    found = {}
    for name, collector in collectors.items():
        # A counter is registered with and without its ending.
        if not name.endswith(("_created", "_bucket", "_count", "_sum")) and f"{name}_total" not in collectors:
            found[name] = set(getattr(collector, "_labelnames", ()))
    return found | _of_the_ledger()


def _of_the_ledger() -> dict[str, set[str]]:
    """Its metrics are registered by whoever reads it, not by every process."""
    families = LedgerMetrics(SystemClock(), None).describe()
    return {family.name: set(getattr(family, "_labelnames", ())) for family in families}


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels, without the headings."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def of_panel(panel: dict[str, Any]) -> list[Asked]:
    """The queries of one panel."""
    return [
        Asked(panel["title"], target["expr"], target["legendFormat"], target["instant"]) for target in panel["targets"]
    ]


def rules() -> list[dict[str, Any]]:
    """All rules of ``alerts.yaml``."""
    return [rule for group in parse(ALERTS)["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """Those that alert."""
    return [rule for rule in rules() if "alert" in rule]


def all_asked() -> Iterator[Asked]:
    """Every query of the dashboard and of the rules."""
    for panel in panels():
        yield from of_panel(panel)
    for rule in rules():
        told = " ".join(rule.get("annotations", {}).values())
        legend = " ".join(f"{{{{{label}}}}}" for label in re.findall(r"\$labels\.(\w+)", told))
        yield Asked(rule.get("alert") or rule["record"], rule["expr"], legend, instant=True)
