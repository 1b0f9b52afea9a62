"""Memory and CPU of a process, idle and under a steady load, for the resource requests in ``k8s/``.

Batch POSTs of 100 scheduled jobs, evenly over four destinations, each stored and then sent at its due time. Figures are
taken once the first jobs are due, so that all roles work at the same rate.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import SHARDS, Serve, Stub, aws_clients, client_setting, spending
from benchmarks.jobs import BODY_BYTES, QUEUE, body_text
from benchmarks.pipeline import settle
from benchmarks.results import Report, Table, options
from benchmarks.wall import pause
from dynein.settings import ROLES

BATCH = 100
QUEUES = 4
PATIENCE_S = 30.0
FLEETS: tuple[Sequence[Sequence[str]], ...] = ([ROLES], [[role] for role in ROLES])
"""All roles in one process, and a process for each role: ``k8s/base`` and ``k8s/overlays/split-roles``."""


class Load(NamedTuple):
    """How much, how long."""

    jobs_per_s: int
    warm_up_s: float
    window_s: float
    delay_s: int
    """More than the hold window, so that jobs are stored."""


FULL = Load(1000, 12.0, 20.0, 9)
QUICK = Load(200, 5.0, 2.0, 4)


def memory_mb(pid: int, field: str) -> float:
    """``VmRSS``, the resident set now, or ``VmHWM``, its maximum so far. MB of 1,000,000 bytes."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024 / 1e6


def removed(dispatcher: Serve) -> int:
    """Jobs that the process has sent and removed so far, by its own metrics."""
    connection = http.client.HTTPConnection(dispatcher.address, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return int(float(re.findall(r"^dynein_triggers_removed_total (\S+)$", text, re.MULTILINE)[0]))


def submit(api: Serve, load: Load, seconds: float) -> int:
    """Send batches at an even rate for that long; returns the number of jobs."""
    jobs = [
        {"queue": f"{QUEUE}-{n % QUEUES}", "body": body_text(), "delay": load.delay_s, "policy": "SCHEDULED"}
        for n in range(BATCH)
    ]
    body = json.dumps({"jobs": jobs})
    connection = http.client.HTTPConnection(api.address, timeout=30)
    began = time.perf_counter()
    batches = int(seconds * load.jobs_per_s / BATCH)
    for number in range(batches):
        pause(max(0.0, began + number * BATCH / load.jobs_per_s - time.perf_counter()))
        connection.request("POST", "/v1/jobs/batch", body)
        said = json.loads(connection.getresponse().read())
        assert said["accepted"] == BATCH, said
    connection.close()
    return batches * BATCH


def run(arguments: Sequence[str] | None = None) -> None:
    given = options(__doc__, arguments)
    load = QUICK if given.quick else FULL
    report = Report("footprint", given)
    table = Table(
        "footprint", f"Memory and CPU of a process, idle and at {load.jobs_per_s:,} jobs a second ({SHARDS} shards)",
        f"Bodies of {BODY_BYTES} bytes, {load.delay_s} s of delay, {load.window_s:.0f} s. Memory grows with the jobs "
        "in it: those due within seconds, times their size.",
    )  # fmt: skip
    report.facts = {"jobs_counted": 0, "jobs_expected": 0}
    for fleet in FLEETS:
        expected, counted = measure(fleet, load, aws_clients(quick=given.quick)[-1], table)
        report.facts["jobs_expected"] += expected
        report.facts["jobs_counted"] += counted
    report.add(table)
    report.write()


def measure(fleet: Sequence[Sequence[str]], load: Load, client: str, table: Table) -> tuple[int, int]:
    """Add a row for each process of the fleet. Returns how many jobs were submitted, and how many were sent."""
    with ExitStack() as stack:
        stub = stack.enter_context(Stub())
        stub.bootstrap()
        processes = {
            " ".join(roles): stack.enter_context(Serve(stub, list(roles), client_setting(client))) for roles in fleet
        }
        settle(stub)
        with spending(stub, **processes) as idle:
            pause(load.window_s)
        idle_mb = {name: memory_mb(process.pid, "VmRSS") for name, process in processes.items()}
        api = next(iter(processes.values()))
        expected = submit(api, load, load.warm_up_s)
        with spending(stub, **processes) as busy:
            expected += submit(api, load, load.window_s)
        for name, process in processes.items():
            table.add(**{
                "process": name, "idle MB": idle_mb[name], "idle core %": idle.share(name),
                "loaded MB": memory_mb(process.pid, "VmHWM"), "loaded core %": busy.share(name),
            })  # fmt: skip
        dispatcher = list(processes.values())[-1]
        deadline = time.perf_counter() + load.delay_s + PATIENCE_S
        while removed(dispatcher) < expected and time.perf_counter() < deadline:
            pause(0.2)
        return expected, removed(dispatcher)


if __name__ == "__main__":
    run()
