"""The files that are made from the sources here, and how."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

from k8s.monitoring.dashboard import dashboard
from k8s.monitoring.grafana import as_text

HERE = Path(__file__).parent
ALERTS = HERE / "alerts.yaml"
COMPONENT = HERE.parent / "components" / "monitoring"

_RULE_HEAD = """\
# Made from k8s/monitoring/alerts.yaml by `make reference`: edit that.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: dynein
  labels:
    app.kubernetes.io/name: dynein
    app.kubernetes.io/part-of: dynein
spec:
"""


def prometheus_rule() -> str:
    """The alert rules as the Prometheus operator takes them, comments of the rules included."""
    _, groups, rules = ALERTS.read_text().partition("groups:\n")
    return _RULE_HEAD + textwrap.indent(groups + rules, "  ")


MADE: dict[Path, Callable[[], str]] = {
    COMPONENT / "dashboard.json": lambda: as_text(dashboard()),
    COMPONENT / "prometheus-rule.yaml": prometheus_rule,
}
