"""The dashboard: are jobs late, since when, and why. Rows are in the order of the questions of an engineer on call."""

from __future__ import annotations

from k8s.monitoring.causes import api, aws, failures, owners, processes
from k8s.monitoring.grafana import Json, Variable, laid_out, variables
from k8s.monitoring.jobs import flow, late, waiting

VARIABLES = [
    Variable("namespace", "Namespace", "dynein_leases_held"),
    Variable("instance", "Instance", "dynein_leases_held"),
    Variable("queue", "Destination", "dynein_jobs_delivered_total"),
]


def dashboard() -> Json:
    """The whole dashboard."""
    rows = [late(), waiting(), flow(), failures(), owners(), api(), aws(), processes()]
    return {
        "uid": "dynein",
        "title": "Dynein",
        "description": "Are jobs late, since when, and why. How to read it: docs/how-to/monitor.md",
        "tags": ["dynein"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "10s",
        "templating": {"list": variables(VARIABLES)},
        "annotations": {"list": []},
        "links": [],
        "panels": list(laid_out(rows)),
    }
