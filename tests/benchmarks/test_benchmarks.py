"""Benchmarks do not rot: each runs, small, and counts at the wire what it submitted. No figure is checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import BENCHMARKS, markdown
from benchmarks.targets import TARGETS

WITHIN_S = 900.0
"""Only a hang takes so long, however much else the machine has to do: all of them run at once."""


class Run:
    """One benchmark under way. All are started at once: none of them is timed here."""

    def __init__(self, benchmark: str, results: Path) -> None:
        self.results = results
        self._benchmark = benchmark
        self._output = (results / f"{benchmark}.out").open("wb")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DYNEIN_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{benchmark}", "--quick", "--results", str(results)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    def report(self) -> dict[str, Any]:
        """Wait for it; what it wrote."""
        code = self.process.wait(WITHIN_S)
        said = (self.results / f"{self._benchmark}.out").read_text()
        assert code == 0, said
        found: dict[str, Any] = json.loads((self.results / f"{self._benchmark}.json").read_text())
        assert all(table["title"] in said for table in found["tables"])
        return found

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._output.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    results = tmp_path_factory.mktemp("results")
    started = {benchmark: Run(benchmark, results) for benchmark in BENCHMARKS}
    yield started
    for run in started.values():
        run.end()


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_benchmark_runs_and_counts_every_job(runs: dict[str, Run], benchmark: str) -> None:
    report = runs[benchmark].report()
    assert report["benchmark"] == benchmark
    assert report["quick"] is True
    assert report["machine"]["cores"] >= 1
    assert report["tables"]
    for table in report["tables"]:
        assert table["rows"], table["name"]
        columns = set(table["rows"][0])
        assert all(columns & set(row) for row in table["rows"]), table["name"]
    facts = report["facts"]
    if benchmark not in {"idle", "workers"}:  # which submit nothing
        assert facts["jobs_expected"] > 0
        assert facts["jobs_counted"] == facts["jobs_expected"]
    assert facts.get("early", 0) == 0


def test_the_report_shows_every_table(runs: dict[str, Run]) -> None:
    reports = [run.report() for run in runs.values()]
    text = markdown(runs["submit"].results)
    for report in reports:
        assert all(f"**{table['title']}**" in text for table in report["tables"])
    # A quick run's figures mean nothing, so no target is said to be reached by them.
    assert text.count("not measured") == len(TARGETS)
