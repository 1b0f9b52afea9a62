"""The cost of a million scheduled jobs, from calls counted at the endpoint of a whole service; and of the alternatives.

One process with all roles on the stub: jobs are posted, ingested, stored, read, sent and removed. The calls of the idle
service are counted first and subtracted: they are a fixed cost, reported separately. Prices are in ``prices.toml``.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks import loadgen
from benchmarks.alternatives import EVENTBRIDGE_SCHEDULER, ORIGINAL_DYNEIN, STEP_FUNCTIONS_WAIT, Usage
from benchmarks.harness import Child, Serve, Spent, Stub, aws_clients, client_setting, load_generator, spending
from benchmarks.idle import ALL
from benchmarks.jobs import QUEUE, body_text
from benchmarks.pipeline import NO_FORECAST, settle
from benchmarks.requests import post
from benchmarks.results import Report, Table, options, read
from benchmarks.wall import pause
from dynein.api.job_sender import NEAR_MARGIN_S
from dynein.settings import load_settings

PRICES = Path(__file__).with_name("prices.toml")
BEYOND_HOLD_S = 5
"""So much later than the hold window jobs are due that every one of them is stored."""
HOURS_A_MONTH = 730


class Load(NamedTuple):
    """How jobs are submitted."""

    name: str
    jobs_a_request: int
    requests: int
    pause_s: float
    clients: int = 1

    @property
    def jobs(self) -> int:
        return self.jobs_a_request * self.requests


class Sizes(NamedTuple):
    loads: Sequence[Load]
    idle_s: float


FULL = Sizes(
    (
        Load("batch POSTs of 1,000", 1000, 20, 0.0, 4),
        Load("single POSTs, 64 clients", 1, 5_000, 0.0, 64),
        Load("single POSTs, 10 a second", 1, 300, 0.1),
        Load("single POSTs, 1 a second", 1, 30, 1.0),
    ),
    20.0,
)
QUICK = Sizes((Load("batch POSTs of 100", 100, 3, 0.0),), 1.0)


def prices() -> dict[str, float]:
    """US dollars a million of each."""
    return {name: float(entry["usd_a_million"]) for name, entry in tomllib.loads(PRICES.read_text()).items()}


def usd_a_million(usage: Usage, price: dict[str, float]) -> float:
    """What a million jobs cost that each take ``usage``."""
    return (
        usage.sqs_requests * price["sqs_standard_request"]
        + usage.write_units * price["dynamodb_write_unit"]
        + usage.read_units * price["dynamodb_read_unit"]
        + usage.scheduler_invocations * price["eventbridge_scheduler_invocation"]
        + usage.transitions * price["step_functions_transition"]
    )


def run(arguments: Sequence[str] | None = None) -> None:
    given = options(__doc__, arguments)
    sizes = QUICK if given.quick else FULL
    report = Report("cost", given)
    report.facts = {"jobs_counted": 0, "jobs_expected": 0, "targets": {}, "prices": prices()}
    client = aws_clients(quick=given.quick)[-1]
    usages: dict[str, Usage] = {}
    calls = Table("cost-calls", "AWS calls a scheduled job causes", "Calls made, less those of the idle service.")
    for load, caused, usage in measure(report, sizes, client):
        usages[f"Dynein, {load.name}"] = usage
        requests = {name: n / load.jobs for name, n in sorted(caused.counts["requests"].items()) if n}
        calls.add(**{"jobs come in": load.name, "all": caused.total("requests") / load.jobs, **requests})
    at_load = next(iter(usages.values()))
    report.facts["targets"] = {
        "AWS requests a scheduled job, at load": calls.rows[0]["all"],
        "write units a scheduled job": at_load.write_units,
    }
    report.add(calls)
    _add_prices(report, usages, at_load)
    _add_idle(report, Path(given.results))
    report.write()


def measure(report: Report, sizes: Sizes, client: str) -> list[tuple[Load, Spent, Usage]]:
    """Run every load through a whole service; the calls it has caused, and what is billed for a job."""
    measured = []
    with ExitStack() as stack:
        stub = stack.enter_context(Stub())
        stub.bootstrap()
        service = stack.enter_context(Serve(stub, list(ALL), NO_FORECAST | client_setting(client)))
        generator = stack.enter_context(load_generator())
        settle(stub)
        with spending(stub) as idle:
            pause(sizes.idle_s)
        for load in sizes.loads:
            with spending(stub) as spent:
                arrived = _run_load(stub, service, generator, load)
            report.facts["jobs_expected"] += load.jobs
            report.facts["jobs_counted"] += arrived
            caused = spent.less(idle)
            measured.append((load, caused, _usage(caused, load.jobs)))
    return measured


def _run_load(stub: Stub, service: Serve, generator: Child, load: Load) -> int:
    delay_s = load_settings().hold_window_s + NEAR_MARGIN_S + BEYOND_HOLD_S
    job = {"queue": QUEUE, "body": body_text(), "policy": "SCHEDULED", "delay": delay_s}
    request = (
        post(service.address, "/v1/jobs", json.dumps(job))
        if load.jobs_a_request == 1
        else post(service.address, "/v1/jobs/batch", json.dumps({"jobs": [job] * load.jobs_a_request}))
    )
    stub.ask("watch", on=True)
    plan = loadgen.Plan(service.address, [request], load.clients, load.requests, load.pause_s)
    generator.tell(msgspec.json.encode(plan))
    patience_s = delay_s + 120.0
    while stub.ask("arrived")["count"] < load.jobs and patience_s > 0:
        pause(0.2)
        patience_s -= 0.2
    pause(1.0)  # the last removals
    return int(stub.ask("arrivals")["distinct"])


def _usage(spent: Spent, jobs: int) -> Usage:
    """``spent`` without its idle part, for each job."""
    dynamodb = (spent.counts["requests"][name] for name in spent.counts["write_units"])
    return Usage(
        sqs_requests=spent.total("billed") / jobs,
        dynamodb_requests=sum(dynamodb) / jobs,
        write_units=spent.total("write_units") / jobs,
        read_units=spent.total("read_units") / jobs,
    )


def _add_prices(report: Report, usages: dict[str, Usage], at_load: Usage) -> None:
    price = prices()
    table = Table(
        "cost", "US dollars a million scheduled jobs",
        "Prices: " + ", ".join(f"{name.replace('_', ' ')} {usd}" for name, usd in price.items()) + " a million. "
        "Sent to SQS; consuming, storage and data transfer are the same everywhere and not included. Dynein's rows are "
        "without its idle cost, which is below.",
    )  # fmt: skip
    others = {
        "original Dynein (Java), at load": ORIGINAL_DYNEIN,
        "EventBridge Scheduler": EVENTBRIDGE_SCHEDULER,
        "Step Functions wait": STEP_FUNCTIONS_WAIT,
    }
    base = usd_a_million(at_load, price)
    for name, usage in {**usages, **others}.items():
        usd = usd_a_million(usage, price)
        table.add(**{
            "way": name, "SQS requests billed": usage.sqs_requests, "DynamoDB requests": usage.dynamodb_requests,
            "write units": usage.write_units, "read units": usage.read_units,
            "other": usage.scheduler_invocations or usage.transitions, "USD a million": usd, "of Dynein": usd / base,
        })  # fmt: skip
        report.facts["targets"][f"USD a million, {name}"] = usd
    report.add(table)


def _add_idle(report: Report, results: Path) -> None:
    """Add the cost of the counts of the last run of `benchmarks.idle`."""
    idle = read("idle", results)
    if idle is None:
        return
    price = prices()
    table = Table("cost-idle", "US dollars a month, idle", "From the last run of `python -m benchmarks.idle`.")
    for name, hour in idle["facts"]["fleets"].items():
        sqs = hour["sqs_billed"] * price["sqs_standard_request"]
        writes = hour["write_units"] * price["dynamodb_write_unit"]
        reads = hour["read_units"] * price["dynamodb_read_unit"]
        sums = {"SQS": sqs, "writes": writes, "reads": reads, "all": sqs + writes + reads}
        table.add(fleet=name, **{part: usd * HOURS_A_MONTH / 1e6 for part, usd in sums.items()})
    report.add(table)


if __name__ == "__main__":
    run()
