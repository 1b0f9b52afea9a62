"""CPU and latency of submitting a job: Dynein's API beside boto3 calling SQS, on the same stub.

Every case is measured in turn with boto3 doing the same, repeatedly. *CPU µs a job* is that of the API process for
Dynein and of the calling process for boto3, because with boto3 the caller does that work.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import msgspec

from benchmarks import callers, loadgen
from benchmarks.harness import (
    MEASURED_CORE,
    OTHER_CORE,
    Child,
    Serve,
    Spent,
    Stub,
    aws_clients,
    client_setting,
    environment,
    load_generator,
    spending,
)
from benchmarks.requests import post_batch, post_single, raw_send_message
from benchmarks.results import Report, Row, Table, median, options, spread

INBOUND = "dynein-inbound"
CALLS_MIN = 20
"""Of a caller that needs few calls for many jobs: the first after a change of caller is slow."""
CLIENT, ASYNC_CLIENT = "dynein.client.Client", "dynein.client.AsyncClient"
REFERENCE = "boto3 send_message"


class Sizes(NamedTuple):
    singles: int
    """Requests of a case of single POSTs."""
    batch_jobs: int
    """Jobs of a case of batch POSTs, about."""
    boto3_calls: int
    idle: int
    clients: Sequence[int]
    batches: Sequence[int]


FULL = Sizes(
    singles=4_000, batch_jobs=20_000, boto3_calls=1_500, idle=300, clients=(1, 8, 64, 256), batches=(100, 1_000)
)
QUICK = Sizes(singles=16, batch_jobs=200, boto3_calls=16, idle=5, clients=(1, 4), batches=(50,))
BATCH_CLIENTS = 4


class Case(NamedTuple):
    """One shape of load."""

    jobs: int
    """In a request."""
    clients: int
    scheduled: bool
    requests: int

    @property
    def name(self) -> str:
        shape = "single POST" if self.jobs == 1 else f"batch POST of {self.jobs:,}"
        return f"{shape}, {'scheduled' if self.scheduled else 'immediate'}"


class Loaded(NamedTuple):
    """The result of a case. ``jobs``: how many the stub has received."""

    report: loadgen.Report
    spent: Spent
    jobs: int


class Api:
    """One API process and what it takes to load it."""

    def __init__(self, stack: ExitStack, stub: Stub, generator: Child, client: str) -> None:
        self._stub = stub
        self._generator = generator
        self.client = client
        self.serve = stack.enter_context(Serve(stub, ["api"], client_setting(client)))

    def request(self, jobs: int, *, scheduled: bool) -> str:
        if jobs == 1:
            return post_single(self.serve.address, scheduled=scheduled)
        return post_batch(self.serve.address, jobs, scheduled=scheduled)

    def run(self, case: Case, *, pause_s: float = 0.0) -> Loaded:
        """Load it, and count the jobs that the stub has received."""
        self._stub.ask("unpack", queue=INBOUND)
        request = self.request(case.jobs, scheduled=case.scheduled)
        plan = loadgen.Plan(self.serve.address, [request], case.clients, case.requests, pause_s)
        with spending(self._stub, process=self.serve, generator=self._generator) as spent:
            report = msgspec.json.decode(self._generator.tell(msgspec.json.encode(plan)), type=loadgen.Report)
        sent = int(spent.counts["entries"]["SendMessageBatch"])
        got = self._stub.ask("unpack", queue=INBOUND)["jobs"] if case.scheduled else sent
        return Loaded(report, spent, got)


class Boto3(NamedTuple):
    """The process that calls with boto3, or as another user would."""

    child: Child
    stub: Stub

    @classmethod
    def started(cls, stack: ExitStack, stub: Stub) -> Boto3:
        """Until ``stack`` is left."""
        arguments = ["-m", "benchmarks.callers", str(MEASURED_CORE)]
        return cls(stack.enter_context(Child("callers", arguments, MEASURED_CORE, environment())), stub)

    def run(self, caller: str, address: str, calls: int, **plan: Any) -> dict[str, Any]:  # noqa: ANN401 - see callers.Plan
        """Pin it to the core of the process that it does not call."""
        self.child.pin(MEASURED_CORE if address == self.stub.address else OTHER_CORE)
        asked = callers.Plan(caller, address, calls, **plan)
        figures: dict[str, Any] = json.loads(self.child.tell(msgspec.json.encode(asked)))
        return figures

    def like(self, case: Case, calls: int) -> dict[str, Any]:
        """The same jobs, sent to SQS directly."""
        if case.jobs == 1:
            return self.run(REFERENCE, self.stub.address, calls, threads=case.clients)
        calls = max(case.clients, calls // 10 * 10 // case.jobs)
        return self.run(
            "boto3 send_message_batch", self.stub.address, calls, threads=case.clients, jobs_a_call=case.jobs
        )


def cases(sizes: Sizes) -> list[Case]:
    """Every shape of load."""
    single = [Case(1, n, scheduled, max(n, sizes.singles)) for n in sizes.clients for scheduled in (False, True)]
    batch = [
        Case(jobs, BATCH_CLIENTS, scheduled, max(BATCH_CLIENTS, sizes.batch_jobs // jobs))
        for jobs in sizes.batches
        for scheduled in (False, True)
    ]
    return single + batch


def run(arguments: Sequence[str] | None = None) -> None:
    given = options(__doc__, arguments)
    sizes = QUICK if given.quick else FULL
    report = Report("submit", given)
    report.facts = {"jobs_counted": 0, "jobs_expected": 0, "targets": {}, "costs": {}}
    with ExitStack() as stack:
        stub = stack.enter_context(Stub())
        stub.bootstrap()
        generator = stack.enter_context(load_generator())
        boto3 = Boto3.started(stack, stub)
        apis = [Api(stack, stub, generator, client) for client in aws_clients(quick=given.quick)]
        _warm_up(apis, boto3, sizes)
        _measure_service(report, apis, boto3, sizes, given.repeats)
        _measure_callers(report, apis[-1], boto3, sizes, given.repeats)
        _measure_idle(report, apis, generator, stub, sizes, given.repeats)
    report.write()


def _warm_up(apis: Sequence[Api], boto3: Boto3, sizes: Sizes) -> None:
    for api in apis:
        for scheduled in (False, True):
            api.run(Case(1, 8, scheduled=scheduled, requests=max(8, sizes.singles // 10)))
    boto3.run(REFERENCE, boto3.stub.address, 20)


class _Repeat(NamedTuple):
    report: loadgen.Report
    spent: Spent
    jobs: int
    boto3: dict[str, Any]
    reference_us: float
    """CPU of one ``send_message`` call, measured right before."""


def _measure_service(report: Report, apis: Sequence[Api], boto3: Boto3, sizes: Sizes, repeats: int) -> None:
    measured: dict[tuple[Case, str], list[_Repeat]] = {}
    for _ in range(repeats):
        reference = boto3.run(REFERENCE, boto3.stub.address, sizes.boto3_calls)
        for case in cases(sizes):
            direct = boto3.like(case, sizes.boto3_calls)
            for api in apis:
                loaded = api.run(case)
                repeat = _Repeat(*loaded, direct, 1e6 * reference["cpu_s"] / reference["jobs"])
                measured.setdefault((case, api.client), []).append(repeat)
    cpu = Table(
        "submit-cpu", "CPU to submit a job",
        "*boto3*: CPU µs a job of the caller, with as many threads, send_message for single jobs and "
        f"send_message_batch for batches. *of send_message*: Dynein's over one {REFERENCE} call's in the same repeat.",
    )  # fmt: skip
    latency = Table(
        "submit-latency", "Latency and throughput",
        "Closed loop. *throughput*: jobs a second over boto3's from as many threads of one process.",
    )  # fmt: skip
    for (case, client), all_repeats in measured.items():
        cpu.add(**_cpu_row(case, client, all_repeats))
        latency.add(**_latency_row(case, client, all_repeats))
        ratio = median(_cpu_us(case, r) / r.reference_us for r in all_repeats)
        report.facts["targets"].setdefault(client, {})[f"{case.name}, {case.clients} clients / send_message"] = ratio
        report.facts["costs"].setdefault(client, {})[f"{case.name}, {case.clients}"] = _costs(case, all_repeats)
        report.facts["jobs_counted"] += sum(r.jobs for r in all_repeats)
        report.facts["jobs_expected"] += case.jobs * sum(r.report.count for r in all_repeats)
    report.facts["send_message_us"] = median(r.reference_us for repeats_ in measured.values() for r in repeats_)
    report.add(cpu)
    report.add(latency)


def _cpu_us(case: Case, repeat: _Repeat) -> float:
    return 1e6 * repeat.spent.cpu_s["process"] / (case.jobs * case.requests)


def _costs(case: Case, repeats: Sequence[_Repeat]) -> dict[str, float]:
    """Requests a job, as made and as billed, by operation."""
    jobs = case.jobs * case.requests * len(repeats)
    return {
        f"{what} {name}": sum(r.spent.counts[what][name] for r in repeats) / jobs
        for what in ("requests", "billed")
        for name in ("SendMessageBatch",)
    }


def _cpu_row(case: Case, client: str, repeats: Sequence[_Repeat]) -> Row:
    return {
        "case": case.name,
        "clients": case.clients,
        "AWS client": client,
        "CPU µs a job": spread(_cpu_us(case, r) for r in repeats),
        "boto3": spread(1e6 * r.boto3["cpu_s"] / r.boto3["jobs"] for r in repeats),
        "of send_message": spread(_cpu_us(case, r) / r.reference_us for r in repeats),
        "requests a job": median(r.spent.total("requests") / (case.jobs * case.requests) for r in repeats),
        "core %": median(r.spent.share("process") for r in repeats),
        "stub core %": median(r.spent.share("stub") for r in repeats),
        "load core %": median(r.spent.share("generator") for r in repeats),
    }


def _latency_row(case: Case, client: str, repeats: Sequence[_Repeat]) -> Row:
    def rate(jobs: float, wall_s: float) -> float:
        return jobs / wall_s

    return {
        "case": case.name,
        "clients": case.clients,
        "AWS client": client,
        "p50 ms": median(r.report.p50_ms for r in repeats),
        "p99 ms": median(r.report.p99_ms for r in repeats),
        "p99.9 ms": median(r.report.p999_ms for r in repeats),
        "boto3 p50 ms": median(r.boto3["p50_ms"] for r in repeats),
        "boto3 p99 ms": median(r.boto3["p99_ms"] for r in repeats),
        "boto3 p99.9 ms": median(r.boto3["p999_ms"] for r in repeats),
        "throughput": spread(
            rate(case.jobs * case.requests, r.report.wall_s) / rate(r.boto3["jobs"], r.boto3["wall_s"]) for r in repeats
        ),
    }


class _Way(NamedTuple):
    caller: str
    jobs: int
    threads: int = 1


def _measure_callers(report: Report, api: Api, boto3: Boto3, sizes: Sizes, repeats: int) -> None:
    """CPU of the *caller*."""
    ways = [
        _Way(REFERENCE, 1), _Way("boto3 send_message_batch", 10), _Way("http.client", 1), _Way("httpx", 1),
        _Way("aiohttp", 1, 8), _Way(CLIENT, 1), _Way(ASYNC_CLIENT, 1, 8),
        *(_Way(way, jobs) for jobs in sizes.batches for way in ("http.client", "aiohttp", CLIENT, ASYNC_CLIENT)),
    ]  # fmt: skip
    measured: dict[_Way, list[dict[str, Any]]] = {}
    for _ in range(repeats):
        for way in ways:
            address = boto3.stub.address if way.caller.startswith("boto3") else api.serve.address
            calls = max(way.threads, sizes.boto3_calls // way.jobs, min(CALLS_MIN, sizes.boto3_calls))
            scheduled = address != boto3.stub.address
            figures = boto3.run(
                way.caller, address, calls, threads=way.threads, jobs_a_call=way.jobs, scheduled=scheduled
            )
            measured.setdefault(way, []).append(figures)
    table = Table(
        "submit-caller", "CPU of the submitter",
        f"One process. Dynein's callers POST scheduled jobs; *of send_message*: over {REFERENCE} in the same repeat.",
    )  # fmt: skip
    base = [f["cpu_s"] / f["jobs"] for f in measured[ways[0]]]
    for way, figures_ in measured.items():
        each = [f["cpu_s"] / f["jobs"] for f in figures_]
        ratios = [cost / reference for cost, reference in zip(each, base, strict=True)]
        table.add(**{
            "caller": way.caller, "jobs a call": way.jobs, "CPU µs a job": spread(1e6 * cost for cost in each),
            "of send_message": spread(ratios),
        })  # fmt: skip
        report.facts["targets"].setdefault("caller", {})[f"{way.caller} of {way.jobs} / send_message"] = median(ratios)
    report.add(table)


def _measure_idle(
    report: Report, apis: Sequence[Api], generator: Child, stub: Stub, sizes: Sizes, repeats: int
) -> None:
    """One caller with long pauses: the latency that a POST adds to its SQS call."""
    pause_s = 0.01
    raw: list[float] = []
    posts: dict[tuple[str, bool], list[float]] = {}
    for _ in range(repeats):
        plan = loadgen.Plan(stub.address, [raw_send_message(stub.address)], 1, sizes.idle, pause_s)
        raw.append(msgspec.json.decode(generator.tell(msgspec.json.encode(plan)), type=loadgen.Report).p50_ms)
        for api in apis:
            for scheduled in (False, True):
                loaded = api.run(Case(1, 1, scheduled=scheduled, requests=sizes.idle), pause_s=pause_s)
                posts.setdefault((api.client, scheduled), []).append(loaded.report.p50_ms)
    table = Table(
        "submit-idle", "Latency of a single POST, service idle",
        "*raw*: a bare SendMessage over a socket, from the same load generator. *added*: difference of the medians.",
    )  # fmt: skip
    for (client, scheduled), p50s in posts.items():
        added = [post - bare for post, bare in zip(p50s, raw, strict=True)]
        table.add(**{
            "case": "scheduled" if scheduled else "immediate", "AWS client": client, "p50 ms": spread(p50s),
            "raw p50 ms": spread(raw), "added ms": spread(added),
        })  # fmt: skip
        if not scheduled:
            report.facts["targets"].setdefault(client, {})["added latency of an idle POST, ms"] = median(added)
    report.add(table)


if __name__ == "__main__":
    run()
