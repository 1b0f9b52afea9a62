"""The targets, and the figures of the last runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.results import Table, number, read

Facts = dict[str, Any]


class Target(NamedTuple):
    """One figure to reach. ``find`` takes it from a benchmark's facts; ``bound`` is a minimum or a maximum."""

    figure: str
    benchmark: str
    find: Callable[[Facts], float]
    bound: float
    at_least: bool = False

    def reached(self, value: float) -> bool:
        """As printed: with three digits."""
        shown = float(f"{value:.3g}")
        return shown >= self.bound if self.at_least else shown <= self.bound


def _of_default(name: str) -> Callable[[Facts], float]:
    """A figure of the default AWS client, which is measured last."""

    def find(facts: Facts) -> float:
        clients = [name for name in facts["targets"] if name != "caller"]
        return float(facts["targets"][clients[-1]][name])

    return find


def _plain(name: str) -> Callable[[Facts], float]:
    return lambda facts: float(facts["targets"][name])


TARGETS = (
    Target("AWS requests a scheduled job causes, at load", "cost",
           _plain("AWS requests a scheduled job, at load"), 0.3),
    Target("DynamoDB write units a scheduled job causes", "cost", _plain("write units a scheduled job"), 2.0),
    Target("API CPU a job, batch POSTs of 1,000 scheduled, of one boto3 send_message", "submit",
           _of_default("batch POST of 1,000, scheduled, 4 clients / send_message"), 1 / 20),
    Target("API CPU a job, single POSTs, 64 clients, immediate, of one boto3 send_message", "submit",
           _of_default("single POST, immediate, 64 clients / send_message"), 1 / 3),
    Target("the same, scheduled", "submit", _of_default("single POST, scheduled, 64 clients / send_message"), 1 / 3),
    Target("added latency of a single idle POST over the raw SQS call, p50 ms", "submit",
           _of_default("added latency of an idle POST, ms"), 3.0),
    Target("dispatcher, jobs a core-second", "pipeline",
           _of_default("dispatcher, 16 destinations jobs a core-second"), 10_000, at_least=True),
    Target("dispatcher, one destination, jobs a core-second", "pipeline",
           _of_default("dispatcher, 1 destination jobs a core-second"), 10_000, at_least=True),
    Target("ingester, jobs a core-second", "pipeline", _of_default("ingester jobs a core-second"), 15_000,
           at_least=True),
    Target("lateness at 50 % load, spread, p50 ms", "lateness", _of_default("lateness at 50 %, p50, ms"), 5.0),
    Target("lateness at 50 % load, spread, p99 ms", "lateness", _of_default("lateness at 50 %, p99, ms"), 50.0),
    Target("lateness at 50 % load, spread, max ms", "lateness", _of_default("lateness at 50 %, max, ms"), 250.0),
    Target("100,000 jobs due in one second to 16 destinations, of twice (100,000 / saturated rate)", "lateness",
           _of_default("100,000 in one second to 16: took / limit"), 1.0),
    Target("100,000 jobs due in one second to one destination, of twice (100,000 / saturated rate)", "lateness",
           _of_default("100,000 in one second to 1: took / limit"), 1.0),
    Target("dispatcher at 1 M stored triggers over 1 k", "pipeline", _of_default("dispatcher, 16 destinations flat"),
           0.95, at_least=True),
    Target("the same, one destination", "pipeline", _of_default("dispatcher, 1 destination flat"), 0.95, at_least=True),
    Target("ingester at 1 M stored triggers over 1 k", "pipeline", _of_default("ingester flat"), 0.95, at_least=True),
    Target("three times too much load: done, of the saturated rate", "overload",
           _plain("goodput at 3x, of saturated"), 0.9, at_least=True),
    Target("the same: response to what is accepted, p99 ms", "overload", _plain("p99 of the accepted at 3x, ms"), 1000),
    Target("the same: another caller's p99, of its p99 alone", "overload",
           _plain("another caller's p99 at 3x, of its p99 alone"), 2.0),
    Target("the same: memory, MiB more", "overload", _plain("memory at 3x, MiB more"), 64),
    Target("CPU of a refusal, of an acceptance", "overload", _plain("CPU of a refusal, of an acceptance"), 0.2),
)  # fmt: skip


def targets_table(results: Path | None = None) -> Table:
    """Every target beside its figure in the JSON files; *not measured* where there is none."""
    table = Table("targets", "Targets", "Of the default AWS client, from the last full run of each benchmark.")
    for target in TARGETS:
        value = _value(target, results)
        table.add(
            figure=target.figure,
            target=f"{'≥' if target.at_least else '≤'} {number(target.bound)}",
            reached="not measured" if value is None else number(value),
            met="" if value is None else "yes" if target.reached(value) else "**no**",
        )
    return table


def _value(target: Target, results: Path | None) -> float | None:
    whole = read(target.benchmark, results)
    if whole is None or whole["quick"]:
        return None
    try:
        return target.find(whole["facts"])
    except (KeyError, IndexError):
        return None
