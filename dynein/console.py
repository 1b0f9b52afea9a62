"""What the command line prints: one shape for people, one for programs (``--json``: an object a line)."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dynein.audit import Report
from dynein.bootstrap import Step
from dynein.tail import Arrived

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:  # noqa: ANN401 - whatever msgspec can encode
    """One JSON value, one line, at once (so that a pipe sees it)."""
    sys.stdout.write(msgspec.json.encode(value, enc_hook=str).decode("utf-8") + "\n")
    sys.stdout.flush()


def print_error(sentence: str) -> None:
    """What went wrong and what to do."""
    err.print(Text.assemble(("error ", "bold red"), sentence))


def print_fields(fields: Mapping[str, Any]) -> None:
    """A job's answer: one field a line."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        out.print(Text.assemble((f"{name:<{width}}  ", "dim"), str(value)), soft_wrap=True)


def print_steps(steps: Iterable[Step]) -> None:
    """What bootstrap did."""
    for step in steps:
        style = {"created": "green", "updated": "yellow"}.get(step.outcome, "dim")
        out.print(Text.assemble((f"{step.outcome:<9}", style), step.resource, (f"  {step.detail}", "dim")))


def clock_time(at_ms: int) -> str:
    """Local time of day to the millisecond."""
    moment = dt.datetime.fromtimestamp(at_ms / 1000, tz=dt.UTC).astimezone()
    return moment.strftime("%H:%M:%S.") + f"{at_ms % 1000:03d}"


def arrival_line(arrived: Arrived) -> Text:
    """One delivery: when, where, how late, what."""
    late = arrived.late_ms
    lateness = "not a job" if late is None else f"{late:+d} ms"
    style = "dim" if late is None else "green" if late <= 100 else "yellow" if late <= 1100 else "red"  # noqa: PLR2004
    body = arrived.body if len(arrived.body) <= 60 else arrived.body[:59] + "…"  # noqa: PLR2004
    return Text.assemble(
        (clock_time(arrived.at_ms), "dim"),
        f"  {arrived.queue}  ",
        (f"{lateness:>10}", style),
        (f"  {arrived.name or '-':<22}", "bold"),
        f" {body}",
    )


def print_report(report: Report) -> None:
    """An audit's result."""
    table = Table(box=None, pad_edge=False)
    for column in ("finding", "bucket", "shard", "due", "token"):
        table.add_column(column)
    for finding in report.findings:
        due = dt.datetime.fromtimestamp(finding.due_at_ms / 1000, tz=dt.UTC).isoformat(" ", "milliseconds")
        kind = f"{finding.kind} (repaired)" if finding.repaired else finding.kind
        table.add_row(kind, str(finding.bucket), str(finding.shard), due, finding.token)
    if report.findings:
        out.print(table)
    counts = ", ".join(f"{count} {kind}" for kind, count in report.counts.items())
    out.print(f"{report.triggers} triggers, {report.tombstones} tombstones in {report.buckets} buckets: {counts}")
