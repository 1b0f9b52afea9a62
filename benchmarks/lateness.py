"""How late jobs are: arrival at the destination, by the stub's wall clock, minus the due time in the message.

First the saturated rate of one dispatcher is found: a burst to many destinations, until all is sent and removed. Then
jobs are spread evenly at parts of that rate, and, last, all are due within one second, for many destinations and for
one. A bare timer on the same core (`benchmarks.timer`) shows how much of the lateness the machine itself adds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.harness import MEASURED_CORE, Child, Serve, Stub, aws_clients, client_setting, environment
from benchmarks.loadgen import percentile
from benchmarks.pipeline import due_from, load, settle
from benchmarks.results import Report, Table, options
from benchmarks.wall import now_ms, pause

MANY_QUEUES = 16
STALLED_S = 120.0
"""The run fails when no job arrives for this long after the last due time."""


class Sizes(NamedTuple):
    probe: int
    shares: Sequence[float]
    spread_s: int
    bursts: Sequence[int]


FULL = Sizes(probe=100_000, shares=(0.1, 0.5, 0.8), spread_s=20, bursts=(10_000, 100_000))
QUICK = Sizes(probe=500, shares=(0.5,), spread_s=1, bursts=(300,))


class Observed(NamedTuple):
    """Lateness at an independent consumer, in milliseconds."""

    late_ms: list[float]
    distinct: int
    took_s: float
    """From the first due time to the last arrival."""
    done_s: float
    """From the first due time until every trigger is removed."""
    timer: dict[str, float]
    """The bare timer's percentiles, milliseconds."""


def observe(stub: Stub, timer: Child, jobs: int, over_ms: int, queues: int) -> Observed:
    """Load jobs due evenly over ``over_ms`` and wait until all have arrived."""
    due_ms = due_from(jobs)
    stub.ask("watch", on=True)
    load(stub, jobs, from_ms=due_ms, to_ms=due_ms + over_ms, queues=queues)
    pause(max(0.0, (due_ms - now_ms()) / 1000))
    timer.tell(b"")  # forget what was before
    pause(max(0.0, (due_ms + over_ms - now_ms()) / 1000))
    seen, stalled_s = 0, 0.0
    while seen < jobs and stalled_s < STALLED_S:
        pause(0.2)
        before, seen = seen, stub.ask("arrived")["count"]
        stalled_s = stalled_s + 0.2 if seen == before else 0.0
    woken = json.loads(timer.tell(b""))
    while stub.ask("triggers")["triggers"] and stalled_s < STALLED_S:  # its removals are the next run's load otherwise
        pause(0.1)
        stalled_s += 0.1
    done_s = (now_ms() - due_ms) / 1000
    arrived = stub.ask("arrivals")
    late = sorted(at / 1000 - due for due, at in zip(arrived["due_ms"], arrived["at_us"], strict=True))
    last_us = max(arrived["at_us"], default=0)
    return Observed(late, arrived["distinct"], last_us / 1e6 - due_ms / 1e3, done_s, woken)


def run(arguments: Sequence[str] | None = None) -> None:
    given = options(__doc__, arguments)
    sizes = QUICK if given.quick else FULL
    report = Report("lateness", given)
    report.facts = {"jobs_counted": 0, "jobs_expected": 0, "early": 0, "targets": {}}
    table = Table(
        "lateness", "Lateness, one dispatcher",
        "Milliseconds from due to arrival. *timer*: lateness of a bare timer on the same core. *took*: from "
        "the first due time to the last arrival; *limit*: twice the jobs over the saturated rate, at least one second.",
    )  # fmt: skip
    for client in aws_clients(quick=given.quick):
        with Stub() as stub:
            stub.bootstrap()
            timer = Child("timer", ["-m", "benchmarks.timer"], MEASURED_CORE, environment())
            with timer, Serve(stub, ["dispatcher"], client_setting(client)) as process:
                settle(stub)
                _measure(stub, timer, client, sizes, report, table)
                process.stop()
    report.add(table)
    report.write()


def _measure(stub: Stub, timer: Child, client: str, sizes: Sizes, report: Report, table: Table) -> None:
    targets = report.facts["targets"].setdefault(client, {})

    def add(case: str, jobs: int, over_ms: int, queues: int, rate: float | None) -> Observed:
        seen = observe(stub, timer, jobs, over_ms, queues)
        report.facts["jobs_expected"] += jobs
        report.facts["jobs_counted"] += seen.distinct
        report.facts["early"] += sum(late < 0 for late in seen.late_ms)
        table.add(**_row(case, client, jobs, queues, seen, rate))
        return seen

    probe = add("saturating burst", sizes.probe, 999, MANY_QUEUES, None)
    # Far more jobs than can be sent in the second they are due in. Removals count: at a sustained rate they cannot lag.
    rate = sizes.probe / probe.done_s
    targets["saturated jobs/s (wall)"] = rate
    for share in sizes.shares:
        jobs = max(1, int(rate * share * sizes.spread_s))
        seen = add(f"spread, {share:.0%} of it", jobs, sizes.spread_s * 1000, MANY_QUEUES, None)
        if share == 0.5:  # noqa: PLR2004 - the target's
            for name, value in _percentiles(seen).items():
                targets[f"lateness at 50 %, {name}, ms"] = value
    for jobs in sizes.bursts:
        for queues in (MANY_QUEUES, 1):
            seen = add(f"{jobs:,} in one second", jobs, 999, queues, rate)
            targets[f"{jobs:,} in one second to {queues}: took / limit"] = seen.took_s / max(1.0, 2 * jobs / rate)


def _percentiles(seen: Observed) -> dict[str, float]:
    late = seen.late_ms
    return {
        "p50": percentile(late, 0.5), "p99": percentile(late, 0.99), "p99.9": percentile(late, 0.999),
        "max": late[-1] if late else 0.0,
    }  # fmt: skip


def _row(case: str, client: str, jobs: int, queues: int, seen: Observed, rate: float | None) -> dict[str, Any]:
    return {
        "case": case, "AWS client": client, "jobs": jobs, "destinations": queues, **_percentiles(seen),
        "timer p99": seen.timer["p99"], "timer max": seen.timer["max"],
        "duplicates": len(seen.late_ms) - seen.distinct, "took s": seen.took_s,
        "limit s": "" if rate is None else max(1.0, 2 * jobs / rate),
    }  # fmt: skip


if __name__ == "__main__":
    run()
