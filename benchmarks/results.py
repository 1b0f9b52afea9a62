"""The results of every benchmark: tables for people, JSON for programs."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import QUICK_SETTINGS
from benchmarks.wall import now_ms

RESULTS = Path(__file__).parent / "results"

Row = dict[str, Any]
"""One line of a table: a column's value is a text, a number, or a `Spread` as a dict."""


class Spread(NamedTuple):
    """Repeats of one figure."""

    median: float
    low: float
    high: float
    repeats: int

    def as_dict(self) -> dict[str, float]:
        return self._asdict()


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, least and greatest of some repeats, ready for a row."""
    ordered = sorted(values)
    return Spread(statistics.median(ordered), ordered[0], ordered[-1], len(ordered)).as_dict()


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


class Table:
    """Rows under a title. ``notes`` explain them. Columns are those of the first row."""

    def __init__(self, name: str, title: str, notes: str = "") -> None:
        self.name = name
        self.title = title
        self.notes = notes
        self.rows: list[Row] = []

    def add(self, **row: Any) -> None:  # noqa: ANN401 - see Row
        self.rows.append(row)

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "title": self.title, "notes": self.notes, "rows": self.rows}


def text_table(table: dict[str, Any]) -> str:
    """Aligned columns."""
    header, lines = _cells(table["rows"])
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    drawn = ["  ".join(_pad(cell, width, i) for i, (cell, width) in enumerate(zip(line, widths, strict=True)))
             for line in [header, *lines]]  # fmt: skip
    notes = f"\n{table['notes']}" if table["notes"] else ""
    return "\n".join([f"\n{table['title']}", "-" * len(table["title"]), *drawn]) + notes


def markdown_table(table: dict[str, Any]) -> str:
    """For ``docs/performance.md``."""
    header, lines = _cells(table["rows"])
    rule = ["---"] + ["---:"] * (len(header) - 1)
    drawn = ["| " + " | ".join(line) + " |" for line in [header, rule, *lines]]
    notes = f"\n\n{table['notes']}" if table["notes"] else ""
    return "\n".join([f"**{table['title']}**", "", *drawn]) + notes


def _cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return columns, [[_cell(row.get(column, "")) for column in columns] for row in rows]


def _pad(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column == 0 else cell.rjust(width)


def _cell(value: Any) -> str:  # noqa: ANN401 - see Row
    if isinstance(value, dict):
        middle, low, high = (number(value[name]) for name in ("median", "low", "high"))
        return middle if value["repeats"] == 1 else f"{middle} ({low}-{high})"
    return number(value) if isinstance(value, int | float) else str(value)


def number(value: float) -> str:
    """Three significant digits, thousands set apart."""
    if value == 0:
        return "0"
    if abs(value) >= 100 or float(value).is_integer():  # noqa: PLR2004 - what three digits leave
        return f"{value:,.0f}"
    return f"{value:.3g}"


class Report:
    """One benchmark's tables; prints each as it is added, writes all at the end."""

    def __init__(self, benchmark: str, options: argparse.Namespace) -> None:
        self.benchmark = benchmark
        self._options = options
        self._tables: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}
        """Figures that other benchmarks and the targets read."""

    def add(self, table: Table) -> None:
        drawn = table.as_dict()
        self._tables.append(drawn)
        print(text_table(drawn), flush=True)

    def write(self) -> Path:
        path = Path(self._options.results) / f"{self.benchmark}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = {
            "benchmark": self.benchmark,
            "at": datetime.fromtimestamp(now_ms() / 1000, UTC).isoformat(timespec="seconds"),
            "quick": self._options.quick,
            "machine": machine(),
            "settings": {k: v for k, v in os.environ.items() if k.startswith("DYNEIN_") and "SECRET" not in k},
            "facts": self.facts,
            "tables": self._tables,
        }
        path.write_text(json.dumps(whole, indent=1) + "\n")
        print(f"\n{path}")
        return path


def read(benchmark: str, results: Path | None = None) -> dict[str, Any] | None:
    """The last results of a benchmark."""
    path = (results or RESULTS) / f"{benchmark}.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def machine() -> dict[str, Any]:
    """The machine and the Python version."""
    cpu = next((line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")), "unknown")
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "python": platform.python_version(),
            "system": platform.platform()}  # fmt: skip


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def options(doc: str | None, arguments: Sequence[str] | None = None, *, repeats: int = 5) -> argparse.Namespace:
    """The command line that all benchmarks have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds, not minutes: checks that it works")
    parser.add_argument("--repeats", type=int, help="how often each figure is measured")
    parser.add_argument("--results", default=str(RESULTS), help="directory of the JSON files")
    given = parser.parse_args(arguments)
    # So that child processes are stopped, however this process is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by a signal"))
    if given.repeats is None:
        given.repeats = 1 if given.quick else repeats
    if given.quick:
        for name, value in QUICK_SETTINGS.items():
            os.environ.setdefault(name, value)
    return given
