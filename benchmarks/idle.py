"""The cost of an idle fleet: requests and CPU an hour, counted at the stub over an interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from benchmarks.harness import SHARDS, Serve, Spent, Stub, aws_clients, client_setting, spending
from benchmarks.pipeline import settle
from benchmarks.results import Report, Table, options
from benchmarks.wall import pause

HOUR_S = 3600.0
ALL = ("api", "ingester", "dispatcher")


class Fleet(NamedTuple):
    """Processes by their roles."""

    name: str
    processes: Sequence[Sequence[str]]
    settings: dict[str, str]


FLEETS = (
    Fleet("1 process, all roles", [ALL], {}),
    Fleet("3 processes, all roles", [ALL] * 3, {}),
    Fleet("3 processes, one role each", [[role] for role in ALL], {}),
    Fleet("1 process, thrifty", [ALL], {
        "DYNEIN_RECEIVE_WAIT_S": "20", "DYNEIN_INGEST_RECEIVERS": "1", "DYNEIN_VISIBILITY_TIMEOUT_S": "60",
        "DYNEIN_TICK_S": "5", "DYNEIN_READ_AHEAD_S": "15", "DYNEIN_HOLD_WINDOW_S": "20", "DYNEIN_LEASE_TTL_S": "30",
    }),
)  # fmt: skip
"""*Thrifty*: long polls and slow ticks, where cost matters more than cancelling until the last half minute."""


def run(arguments: Sequence[str] | None = None) -> None:
    given = options(__doc__, arguments)
    window_s, fleets = (1.0, FLEETS[:1]) if given.quick else (60.0, FLEETS)
    report = Report("idle", given)
    report.facts = {"fleets": {}}
    table = Table(
        "idle", f"An idle fleet, an hour ({SHARDS} shards)",
        f"Counted over {window_s:.0f} s and scaled. *thrifty*: "
        + ", ".join(f"{name}={value}" for name, value in FLEETS[-1].settings.items()) + ".",
    )  # fmt: skip
    client = aws_clients(quick=given.quick)[-1]
    for fleet in fleets:
        spent = measure(fleet, client, window_s)
        hours = spent.wall_s / HOUR_S
        facts = hourly(spent)
        report.facts["fleets"][fleet.name] = facts
        table.add(**{
            "fleet": fleet.name, "SQS requests": facts["sqs_billed"], "DynamoDB requests": facts["dynamodb_requests"],
            "write units": facts["write_units"], "read units": facts["read_units"],
            "CPU s": sum(cpu for name, cpu in spent.cpu_s.items() if name != "stub") / hours,
            **{f"of it {name}": n / hours for name, n in Counter(spent.counts["requests"]).most_common(4)},
        })  # fmt: skip
    report.add(table)
    report.write()


def measure(fleet: Fleet, client: str, window_s: float) -> Spent:
    """Start it, let it settle, and count."""
    with ExitStack() as stack:
        stub = stack.enter_context(Stub())
        stub.bootstrap()
        settings = {**fleet.settings, **client_setting(client)}
        processes = {
            f"process{number}": stack.enter_context(Serve(stub, list(roles), settings))
            for number, roles in enumerate(fleet.processes)
        }
        settle(stub)
        # Leases move and the empty buckets of the last hour are retired, one after the other, for a while.
        pause(0 if window_s < 10 else 20)  # noqa: PLR2004 - a quick run does not care
        with spending(stub, **processes) as spent:
            pause(window_s)
        return spent


def hourly(spent: Spent) -> dict[str, Any]:
    """What is billed, an hour."""
    hours = spent.wall_s / HOUR_S
    return {
        "sqs_billed": spent.total("billed") / hours,
        "dynamodb_requests": sum(spent.counts["requests"][name] for name in spent.counts["write_units"]) / hours,
        "write_units": spent.total("write_units") / hours,
        "read_units": spent.total("read_units") / hours,
    }


if __name__ == "__main__":
    run()
