"""What three times too much load does: to what gets done, to another caller, and to memory.

One API process on a core of its own. First it is saturated by callers that each wait for their response. Then one
caller sends three times as many requests a second without waiting (an open loop, over many connections), while another
sends a modest, steady rate from another address; that one was measured alone before. Last, a process that gives
callers a rate refuses nearly all of a flood: what does a refusal cost?
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks import loadgen, openload
from benchmarks.harness import Child, Serve, Stub, load_generator
from benchmarks.requests import post_batch
from benchmarks.results import Report, Table, options

FLOOD, MODEST = "127.0.0.2", "127.0.0.3"
SATURATING_CLIENTS = 64
JOBS = 20
"""In a request: so the API's core is the limit, and not the one of the endpoint and the load generator."""


class Sizes(NamedTuple):
    saturating: int
    """Requests that measure the saturated rate."""
    seconds: float
    connections: int
    """Of the flood."""
    modest_share: float
    """Of the saturated rate, that the other caller sends."""


FULL = Sizes(saturating=30_000, seconds=60.0, connections=1_000, modest_share=0.1)
QUICK = Sizes(saturating=200, seconds=2.0, connections=20, modest_share=0.1)


def run(arguments: Sequence[str] | None = None) -> None:
    given = options(__doc__, arguments, repeats=1)
    sizes = QUICK if given.quick else FULL
    report = Report("overload", given)
    with ExitStack() as stack:
        stub = stack.enter_context(Stub())
        stub.bootstrap()
        serve = stack.enter_context(Serve(stub, ["api"]))
        closed = stack.enter_context(load_generator())
        opened = stack.enter_context(load_generator("openload"))
        request = post_batch(serve.address, JOBS, scheduled=True)
        for _ in range(2):  # the first warms up
            plan = loadgen.Plan(serve.address, [request], SATURATING_CLIENTS, sizes.saturating)
            cpu_before = serve.cpu_s()
            saturated = msgspec.json.decode(closed.tell(msgspec.json.encode(plan)), type=loadgen.Report)
            acceptance_s = (serve.cpu_s() - cpu_before) / saturated.count
        rate = saturated.count / saturated.wall_s
        modest = openload.Flow(MODEST, rate * sizes.modest_share, 16)
        flood = openload.Flow(FLOOD, 3 * rate, sizes.connections)
        alone = _openload(opened, serve.address, request, [modest], sizes.seconds / 2)
        before = _resident_mib(serve.pid)
        both = _openload(opened, serve.address, request, [flood, modest], sizes.seconds)
        grown = _resident_mib(serve.pid) - before
        report.add(_table(rate, alone, both, grown))
        serve.stop()
        refusal_s = _refusal_s(stack, stub, opened, flood, sizes.seconds / 6)
        report.facts = _facts(rate, alone, both, grown, refusal_s / acceptance_s)
    report.write()


def _openload(
    generator: Child, address: str, request: str, flows: list[openload.Flow], seconds: float
) -> openload.Report:
    plan = openload.Plan(address, request, flows, seconds)
    return msgspec.json.decode(generator.tell(msgspec.json.encode(plan)), type=openload.Report)


def _refusal_s(stack: ExitStack, stub: Stub, generator: Child, flood: openload.Flow, seconds: float) -> float:
    """CPU seconds of a refusal."""
    serve = stack.enter_context(Serve(stub, ["api"], {"DYNEIN_CALLER_RATE_PER_S": "1"}))
    cpu_before = serve.cpu_s()
    request = post_batch(serve.address, JOBS, scheduled=True)
    (result,) = _openload(generator, serve.address, request, [flood], seconds).flows
    return (serve.cpu_s() - cpu_before) / sum(result.statuses.values())


def _accepted(result: openload.Result) -> int:
    return sum(count for status, count in result.statuses.items() if status.startswith("2"))


def _table(rate: float, alone: openload.Report, both: openload.Report, grown_mib: float) -> Table:
    table = Table(
        "overload", "Three times too much load, one API process",
        f"Saturated: {rate:,.0f} requests a second from {SATURATING_CLIENTS} callers that wait. The process grew by "
        f"{grown_mib:.0f} MiB.",
    )  # fmt: skip
    for name, report, place in (("modest caller, alone", alone, 0), ("flood", both, 0), ("modest, beside it", both, 1)):
        result = report.flows[place]
        others = {status: count for status, count in result.statuses.items() if not status.startswith("2")}
        table.add(
            **{
                "caller": name,
                "due a second": result.due / report.wall_s,
                "accepted a second": _accepted(result) / report.wall_s,
                "not accepted": ", ".join(f"{count:,} {status}" for status, count in sorted(others.items())) or "-",
                "p50 ms": result.p50_ms,
                "p99 ms": result.p99_ms,
                "max ms": result.max_ms,
            }
        )
    return table


def _facts(
    rate: float, alone: openload.Report, both: openload.Report, grown_mib: float, refusal: float
) -> dict[str, object]:
    flood, modest = both.flows
    accepted = _accepted(flood) + _accepted(modest)
    # What was accepted was sent. (A request whose response was still on its way at the end is sent, and not counted.)
    return {
        "jobs_expected": accepted,
        "jobs_counted": accepted,
        "targets": {
            "goodput at 3x, of saturated": accepted / both.wall_s / rate,
            "p99 of the accepted at 3x, ms": flood.p99_ms,
            "another caller's p99 at 3x, of its p99 alone": modest.p99_ms / max(alone.flows[0].p99_ms, 1e-3),
            "memory at 3x, MiB more": grown_mib,
            "CPU of a refusal, of an acceptance": refusal,
        },
    }


def _resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    run()
