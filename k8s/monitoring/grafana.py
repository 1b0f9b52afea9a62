"""The part of Grafana's dashboard model that the dashboard needs: panels, rows, variables, and their layout.

It is the dashboard JSON model of Grafana 11 (``schemaVersion`` 39); newer versions migrate it themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

Json = dict[str, Any]

COLUMNS = 24
HEIGHT = 7
DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
GREEN, ORANGE, RED = "green", "orange", "red"


class Query(NamedTuple):
    """One PromQL query. ``legend`` names its series: text, with ``{{label}}`` for a label's value."""

    expr: str
    legend: str = ""
    instant: bool = False


class Panel(NamedTuple):
    """One panel, without its position."""

    title: str
    description: str
    queries: Sequence[Query]
    type: str
    width: int
    defaults: Json
    options: Json
    transformations: Sequence[Json] = ()


class Row(NamedTuple):
    """Panels under one heading, from left to right."""

    title: str
    panels: Sequence[Panel]


class Variable(NamedTuple):
    """A selector above the dashboard: the values of one label of one metric, initially all."""

    name: str
    label: str
    metric: str


def _thresholds(steps: Sequence[tuple[float, str]]) -> Json:
    return {
        "mode": "absolute",
        "steps": [{"color": GREEN, "value": None}, *({"color": color, "value": at} for at, color in steps)],
    }


def stat(
    title: str, description: str, expr: str, unit: str, steps: Sequence[tuple[float, str]], *, width: int = 4
) -> Panel:
    """One figure, in the colour of the highest of ``steps`` that it reaches, with its history behind it."""
    defaults = {"unit": unit, "noValue": "none", "thresholds": _thresholds(steps), "color": {"mode": "thresholds"}}
    options = {
        "colorMode": "background",
        "graphMode": "area",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    return Panel(title, description, [Query(expr, title)], "stat", width, defaults, options)


def lines(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "short",
    width: int = 8,
    stacked: bool = False,
    log: bool = False,
    limit: float | None = None,
) -> Panel:
    """Series over time. ``limit``: the value at which a warning line is drawn."""
    custom: Json = {"fillOpacity": 30 if stacked else 0, "showPoints": "never"}
    if stacked:
        custom["stacking"] = {"mode": "normal", "group": "A"}
    if log:
        custom["scaleDistribution"] = {"type": "log", "log": 10}
    defaults: Json = {"unit": unit, "noValue": "none", "custom": custom}
    if not log:
        defaults["min"] = 0
    if limit is not None:
        custom["thresholdsStyle"] = {"mode": "dashed"}
        defaults["thresholds"] = _thresholds([(limit, RED)])
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return Panel(title, description, queries, "timeseries", width, defaults, options)


def bars(title: str, description: str, expr: str, label: str, *, width: int) -> Panel:
    """One bar for each value of ``label``, a number, in its order."""

    def convert(to: str) -> Json:
        return {
            "id": "convertFieldType",
            "options": {"conversions": [{"targetField": label, "destinationType": to}], "fields": {}},
        }

    steps = [
        convert("number"),
        {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": label}]}},
        convert("string"),  # the axis takes names
        {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": {"Value": title}}},
    ]
    options = {"xField": label, "legend": {"showLegend": False}, "showValue": "never", "xTickLabelSpacing": 0}
    defaults = {"unit": "short", "noValue": "none", "min": 0}
    return Panel(title, description, [Query(expr, instant=True)], "barchart", width, defaults, options, steps)


def _target(query: Query, number: int, *, table: bool) -> Json:
    return {
        "refId": chr(ord("A") + number),
        "expr": query.expr,
        "legendFormat": query.legend,
        "instant": query.instant,
        "range": not query.instant,
        "format": "table" if table else "time_series",
    }


def _place(panel: Panel, number: int, x: int, y: int) -> Json:
    table = panel.type == "barchart"
    placed: Json = {
        "id": number,
        "type": panel.type,
        "title": panel.title,
        "description": panel.description,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": HEIGHT},
        "datasource": DATASOURCE,
        "targets": [_target(query, at, table=table) for at, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": panel.defaults, "overrides": []},
        "options": panel.options,
    }
    if panel.transformations:
        placed["transformations"] = list(panel.transformations)
    return placed


def laid_out(rows: Sequence[Row]) -> Iterator[Json]:
    """The panels of all rows, positioned and numbered. A row that is full continues below."""
    number = y = 0
    for row in rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
            "panels": [],
        }
        y += 1
        x = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y = 0, y + HEIGHT
            number += 1
            yield _place(panel, number, x, y)
            x += panel.width
        y += HEIGHT


def variables(choices: Sequence[Variable]) -> list[Json]:
    """The data source, and ``choices``."""
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    return [source, *(_variable(choice) for choice in choices)]


def _variable(choice: Variable) -> Json:
    values = f"label_values({choice.metric}, {choice.name})"
    return {
        "name": choice.name,
        "label": choice.label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": values, "refId": choice.name},
        "definition": values,
        "refresh": 2,  # when the time range changes
        "sort": 1,  # by name
        "multi": True,
        "includeAll": True,
        "allValue": ".*",  # also what has no such label
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def as_text(dashboard: Json) -> str:
    """As JSON with one panel and one variable a line, so that a diff shows only the panels that changed."""
    marks: dict[str, str] = {}

    def compact(items: list[Json], prefix: str) -> list[str]:
        for at, item in enumerate(items):
            marks[f'"{prefix}{at}"'] = json.dumps(item, ensure_ascii=False)
        return [f"{prefix}{at}" for at in range(len(items))]

    outline = dict(dashboard)
    outline["panels"] = compact(dashboard["panels"], "@panel")
    outline["templating"] = {"list": compact(dashboard["templating"]["list"], "@variable")}
    text = json.dumps(outline, indent=2, ensure_ascii=False)
    for mark, item in marks.items():
        text = text.replace(mark, item)
    return text + "\n"
