"""Jobs a core-second: what an ingester and a dispatcher each cost, by the CPU clock of a real ``dynein serve``.

The ingester is fed packed inbound messages of far-future jobs without end, and measured over stretches of time. The
dispatcher finds triggers that are all due within one second, and is measured from before it reads ahead until the last
is removed; what it does when idle (its ticks) was measured before and is taken off. *Stored* is how many other
triggers, due later, the table holds meanwhile: one process for each number, measured in turn, so that what is compared
was measured seconds apart.

How fast a core is differs by a factor of two between hours on a shared machine. So boto3's ``send_message`` is measured
right after each figure, on the same core: *at reference speed* is what the figure would be where such a call takes
775 µs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple

from benchmarks.harness import BUCKET_WIDTH_MS, SHARDS, Serve, Spent, Stub, aws_clients, client_setting, spending
from benchmarks.results import Report, Table, median, options, spread
from benchmarks.submit import REFERENCE, Boto3
from benchmarks.wall import now_ms, pause
from dynein.settings import load_settings

DAY_MS = 86_400_000
INBOUND = "dynein-inbound"
PACKED_JOBS = 200
"""About what fits into 60 KiB."""
LOADED_AT_ONCE = 5_000
SETTLE_LOOKS_MAX = 20
SETTLED_LOOKS = 3
LEAD_MS = 2_000
"""From loading triggers to their due time, beyond read-ahead: so that none of them is late when it is loaded."""
LOAD_MS_A_JOB = 0.06
"""What making one may take the stub on a slow day."""


def due_from(count: int) -> int:
    """When triggers that are loaded now may be due first."""
    return now_ms() + int(load_settings().read_ahead_s * 1000) + LEAD_MS + int(count * LOAD_MS_A_JOB)


class Sizes(NamedTuple):
    stored: Sequence[int]
    due: int
    messages: int
    window_s: float
    boto3_calls: int


FULL = Sizes(stored=(1_000, 100_000, 1_000_000), due=50_000, messages=200, window_s=4.0, boto3_calls=500)
QUICK = Sizes(stored=(1_000,), due=500, messages=5, window_s=0.4, boto3_calls=10)
REFERENCE_US = 775
"""CPU of a boto3 ``send_message`` on a core of the class that the targets were set for."""


class Measured(NamedTuple):
    jobs: int
    spent: Spent
    boto3_us: float = REFERENCE_US
    """CPU of one boto3 ``send_message`` right afterwards."""

    @property
    def rate(self) -> float:
        """Jobs a core-second."""
        return self.jobs / self.spent.cpu_s["process"]

    @property
    def rate_at_reference_speed(self) -> float:
        return self.rate * self.boto3_us / REFERENCE_US


@contextmanager
def stored_stub(stored: int) -> Iterator[Stub]:
    """A stub whose table holds ``stored`` triggers, due from tomorrow on."""
    with Stub() as stub:
        stub.bootstrap()
        from_ms = now_ms() + DAY_MS
        load(stub, stored, from_ms=from_ms, to_ms=from_ms + 7 * DAY_MS)
        yield stub


def load(stub: Stub, count: int, *, from_ms: int, to_ms: int, queues: int = 1) -> None:
    """Store ``count`` triggers, in parts: the stub answers nobody while it makes one."""
    for done in range(0, count, LOADED_AT_ONCE):
        stub.ask(
            "load", count=min(LOADED_AT_ONCE, count - done), shard_count=SHARDS, bucket_width_ms=BUCKET_WIDTH_MS,
            from_ms=from_ms, to_ms=to_ms, queues=queues,
        )  # fmt: skip


def measure_ingester(stub: Stub, ingester: Serve, sizes: Sizes) -> Measured:
    """Feed it, let it get into its stride, and measure a stretch."""
    from_ms = now_ms() + 2 * DAY_MS
    stub.ask(
        "feed", queue=INBOUND, messages=sizes.messages, jobs_a_message=PACKED_JOBS, shard_count=SHARDS,
        from_ms=from_ms, to_ms=from_ms + DAY_MS,
    )  # fmt: skip
    pause(sizes.window_s / 2)
    stored_before = stub.ask("counts")["entries"].get("BatchWriteItem", 0)
    with spending(stub, process=ingester) as spent:
        pause(sizes.window_s)
        while stub.ask("counts")["entries"].get("BatchWriteItem", 0) == stored_before:  # a small run, a busy machine
            pause(0.1)
    stub.ask("feed", queue=INBOUND, messages=0, jobs_a_message=0)
    pause(0.3)  # what is in hand goes through
    return Measured(int(spent.counts["entries"]["BatchWriteItem"]), spent)


def measure_dispatcher(stub: Stub, dispatcher: Serve, sizes: Sizes, queues: int = 1) -> Measured:
    """Load triggers due within one second, and measure until the last is removed, less what it does idle."""
    stored = stub.ask("triggers")["triggers"]
    with spending(stub, process=dispatcher) as idle:
        pause(sizes.window_s)
    due_ms = due_from(sizes.due)
    load(stub, sizes.due, from_ms=due_ms, to_ms=due_ms + 999, queues=queues)
    with spending(stub, process=dispatcher) as spent:
        pause(max(0.0, (due_ms - now_ms()) / 1000))
        while stub.ask("triggers")["triggers"] > stored:
            pause(0.05)
    return Measured(int(spent.counts["entries"]["SendMessageBatch"]), spent.less(idle))


def settle(stub: Stub) -> None:
    """Until a dispatcher that has just started has looked through the open time buckets, an hour of them."""
    pause(1.0)
    seen, quiet = 0, 0
    for _ in range(SETTLE_LOOKS_MAX):
        before, seen = seen, stub.ask("counts")["requests"].get("Query", 0)
        quiet = quiet + 1 if seen - before <= 4 * SHARDS else 0  # ticks
        if quiet == SETTLED_LOOKS:
            return
        pause(1.0)


UNTHROTTLED = {"DYNEIN_INGEST_RATE_PER_S": "1000000", "DYNEIN_FORECAST_INTERVAL_S": "0"}
"""And no forecast: its queries come in a burst once a minute, in some stretches of time and not in others."""
MANY_QUEUES = 16
MEASURES: dict[str, dict[str, Callable[[Stub, Serve, Sizes], Measured]]] = {
    "ingester": {"ingester": measure_ingester},
    "dispatcher": {
        f"dispatcher, {MANY_QUEUES} destinations": partial(measure_dispatcher, queues=MANY_QUEUES),
        "dispatcher, 1 destination": measure_dispatcher,
    },
}
"""What is measured of each role, by the name of its row."""


def run(arguments: Sequence[str] | None = None) -> None:
    given = options(__doc__, arguments, repeats=3)
    sizes = QUICK if given.quick else FULL
    report = Report("pipeline", given)
    report.facts = {"jobs_counted": 0, "jobs_expected": 0, "targets": {}}
    table = Table(
        "pipeline",
        "Jobs a core-second, stub engine",
        "Median of repeats (least-greatest). *flat*: at reference speed, over that at the least number stored, median "
        "of the ratios within a repeat.",
    )
    with ExitStack() as stack:
        stubs = {stored: stack.enter_context(stored_stub(stored)) for stored in sizes.stored}
        boto3 = Boto3.started(stack, stubs[sizes.stored[0]])
        boto3.run(REFERENCE, boto3.stub.address, sizes.boto3_calls)
        measured: dict[_Shape, list[Measured]] = {}
        clients = aws_clients(quick=given.quick)
        for role in MEASURES:
            for client in clients:
                # Only the default client at every number stored.
                turns = sizes.stored if client == clients[-1] else sizes.stored[:1]
                for shape, figure in _measure(role, client, {n: stubs[n] for n in turns}, boto3, sizes, given.repeats):
                    measured.setdefault(shape, []).append(figure)
    for shape, repeats in sorted(measured.items(), key=lambda pair: pair[0].row != "ingester"):
        least = measured[shape._replace(stored=sizes.stored[0])]
        flat = median(
            more.rate_at_reference_speed / few.rate_at_reference_speed for more, few in zip(repeats, least, strict=True)
        )
        table.add(**_row(shape, repeats, flat))
        targets = report.facts["targets"].setdefault(shape.client, {})
        targets[f"{shape.row} jobs a core-second"] = median(m.rate for m in least)
        targets[f"{shape.row} flat"] = flat  # of the greatest number, which comes last
        if shape.row != "ingester":  # what an ingester is fed has no end
            report.facts["jobs_counted"] += sum(m.jobs for m in repeats)
            report.facts["jobs_expected"] += sizes.due * len(repeats)
    report.add(table)
    report.write()


class _Shape(NamedTuple):
    row: str
    client: str
    stored: int


def _measure(
    role: str, client: str, stubs: dict[int, Stub], boto3: Boto3, sizes: Sizes, repeats: int
) -> Iterator[tuple[_Shape, Measured]]:
    """One role with one AWS client, every repeat.

    Numbers stored take turns, forth and back, so that what the machine does meanwhile hits all alike.
    """
    with ExitStack() as stack:
        processes = {
            stored: stack.enter_context(Serve(stub, [role], UNTHROTTLED | client_setting(client)))
            for stored, stub in stubs.items()
        }
        for stub in stubs.values():
            settle(stub)
        turns = list(stubs)
        for _ in range(repeats):
            for row, measure in MEASURES[role].items():
                for stored in turns:
                    figure = measure(stubs[stored], processes[stored], sizes)
                    reference = boto3.run(REFERENCE, boto3.stub.address, sizes.boto3_calls)
                    figure = figure._replace(boto3_us=1e6 * reference["cpu_s"] / reference["jobs"])
                    yield _Shape(row, client, stored), figure
            turns.reverse()
        for process in processes.values():
            process.stop()


def _row(shape: _Shape, repeats: list[Measured], flat: float) -> dict[str, object]:
    def a_job(figure: str) -> float:
        return median(m.spent.total(figure) / m.jobs for m in repeats)

    return {
        "role": shape.row,
        "AWS client": shape.client,
        "stored": shape.stored,
        "jobs a core-second": spread(m.rate for m in repeats),
        "at reference speed": spread(m.rate_at_reference_speed for m in repeats),
        "CPU µs a job": spread(1e6 * m.spent.cpu_s["process"] / m.jobs for m in repeats),
        "flat": flat,
        "requests a job": a_job("requests"),
        "write units a job": a_job("write_units"),
        "read units a job": a_job("read_units"),
        "core %": median(m.spent.share("process") for m in repeats),
        "stub core %": median(m.spent.share("stub") for m in repeats),
    }


if __name__ == "__main__":
    run()
