"""The generated files, and the function that makes each."""

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
    """The alert rules as a PrometheusRule for the Prometheus operator, with their comments."""
    _, groups, rules = ALERTS.read_text().partition("groups:\n")
    return _RULE_HEAD + textwrap.indent(groups + rules, "  ")


MADE: dict[Path, Callable[[], str]] = {
    COMPONENT / "dashboard.json": lambda: as_text(dashboard()),
    COMPONENT / "prometheus-rule.yaml": prometheus_rule,
}
