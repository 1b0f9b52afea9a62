"""Print the benchmarks' last results as Markdown: the targets first, then every table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import RESULTS, markdown_table, read
from benchmarks.targets import targets_table

BENCHMARKS = ("submit", "pipeline", "idle", "cost", "lateness", "fleet", "workers", "footprint", "overload")
"""In the order in which they run: `cost` prices the counts of `idle`."""


def markdown(results: Path) -> str:
    """The whole report."""
    parts = [markdown_table(targets_table(results).as_dict())]
    for benchmark in BENCHMARKS:
        whole = read(benchmark, results)
        if whole is None:
            continue
        machine = whole["machine"]
        settings = ", ".join(f"{name}={value}" for name, value in whole["settings"].items())
        parts.append(
            f"### `python -m benchmarks.{benchmark}`{' --quick' if whole['quick'] else ''}\n\n"
            f"{whole['at']}, {machine['cores']} cores of {machine['cpu']}, Python {machine['python']}"
            + (f", {settings}" if settings else "")
        )
        parts += [markdown_table(table) for table in whole["tables"]]
    return "\n\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="directory of the JSON files")
    print(markdown(parser.parse_args(arguments).results))


if __name__ == "__main__":
    main()
