"""Jobs a core-second of an ingester and of a dispatcher, by the CPU time of a real ``dynein serve``.

The ingester gets an endless supply of packed inbound messages of jobs due far ahead, and is measured over intervals.
The dispatcher gets triggers that are all due within one second, and is measured from before it reads ahead until the
last is removed; its idle work (its ticks) is measured before and subtracted.

The speed of a core differs by a factor of two between hours on a shared machine, and by a fifth between minutes. So
boto3's ``send_message`` is measured right after each figure, on the same core: *at reference speed* is what the figure
would be where such a call takes 775 µs. Whether a role's cost grows with the number of *stored* triggers (due later
than any measured job) is measured with processes that do the same work at the same moment on the same core, one for
each number stored, each on its own table: so changes of the machine's speed affect all of them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import BUCKET_WIDTH_MS, SHARDS, Serve, Spent, Stub, aws_clients, client_setting, spending
from benchmarks.results import Report, Table, median, options, spread
from benchmarks.submit import REFERENCE, Boto3
from benchmarks.wall import now_ms, pause
from dynein.settings import load_settings

DAY_MS = 86_400_000
STORED_FOR_MS = 7 * DAY_MS
"""The period over which the due times of stored triggers are spread."""
INBOUND = "dynein-inbound"
PACKED_JOBS = 200
"""About what fits into 60 KiB."""
LOADED_AT_ONCE = 5_000
SETTLE_LOOKS_MAX = 20
SETTLED_LOOKS = 3
LEAD_MS = 2_000
"""From loading triggers to their due time, beyond read-ahead: so that none of them is late when it is loaded."""
LOAD_MS_A_JOB = 0.06
"""The time the stub may need to make one on a slow machine."""


def due_from(count: int) -> int:
    """The earliest due time of triggers that are loaded now."""
    return now_ms() + int(load_settings().read_ahead_s * 1000) + LEAD_MS + int(count * LOAD_MS_A_JOB)


class Sizes(NamedTuple):
    stored: Sequence[int]
    due: int
    messages: int
    window_s: float
    boto3_calls: int


FULL = Sizes(stored=(1_000, 100_000, 1_000_000), due=20_000, messages=200, window_s=3.0, boto3_calls=500)
QUICK = Sizes(stored=(500, 2_000), due=500, messages=5, window_s=0.4, boto3_calls=10)
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


class Side(NamedTuple):
    """A process under test and the endpoint it calls."""

    stub: Stub
    process: Serve


@contextmanager
def stored_stub(stored: int, checkout: Path | None = None) -> Iterator[Stub]:
    """A stub (of another version: in ``checkout``) whose table holds ``stored`` triggers, due from tomorrow on."""
    with Stub(checkout=checkout) as stub:
        stub.bootstrap()
        from_ms = now_ms() + DAY_MS
        load(stub, stored, from_ms=from_ms, to_ms=from_ms + STORED_FOR_MS)
        yield stub


def load(stub: Stub, count: int, *, from_ms: int, to_ms: int, queues: int = 1) -> None:
    """Store ``count`` triggers, in parts: the stub serves no requests while it makes one."""
    for done in range(0, count, LOADED_AT_ONCE):
        stub.ask(
            "load", count=min(LOADED_AT_ONCE, count - done), shard_count=SHARDS, bucket_width_ms=BUCKET_WIDTH_MS,
            from_ms=from_ms, to_ms=to_ms, queues=queues,
        )  # fmt: skip


@contextmanager
def _all_spending(sides: Sequence[Side]) -> Iterator[list[Spent]]:
    with ExitStack() as stack:
        yield [stack.enter_context(spending(side.stub, process=side.process)) for side in sides]


def measure_ingesters(sides: Sequence[Side], sizes: Sizes) -> list[Measured]:
    """Feed them, let them warm up, measure one interval of all. The triggers they store are deleted."""
    from_ms = now_ms() + 2 * STORED_FOR_MS
    for stub, _ in sides:
        stub.ask(
            "feed", queue=INBOUND, messages=sizes.messages, jobs_a_message=PACKED_JOBS, shard_count=SHARDS,
            from_ms=from_ms, to_ms=from_ms + DAY_MS,
        )  # fmt: skip
    pause(sizes.window_s / 2)
    stored_before = [_stored(stub) for stub, _ in sides]
    with _all_spending(sides) as spent:
        pause(sizes.window_s)
        # A small run, a busy machine.
        while any(_stored(stub) == before for (stub, _), before in zip(sides, stored_before, strict=True)):
            pause(0.1)
    for stub, _ in sides:
        stub.ask("feed", queue=INBOUND, messages=0, jobs_a_message=0)
    pause(0.3)  # for messages already received
    for stub, _ in sides:
        stub.ask("forget", from_ms=from_ms)
    return [Measured(int(one.counts["entries"]["BatchWriteItem"]), one) for one in spent]


def _stored(stub: Stub) -> int:
    return int(stub.ask("counts")["entries"].get("BatchWriteItem", 0))


def measure_dispatchers(sides: Sequence[Side], sizes: Sizes, queues: int = 1) -> list[Measured]:
    """Load triggers due within one second, and measure until the last is removed, less the idle work."""
    stored = [stub.ask("triggers")["triggers"] for stub, _ in sides]
    with _all_spending(sides) as idle:
        pause(sizes.window_s)
    due_ms = due_from(sizes.due * len(sides))
    for stub, _ in sides:
        load(stub, sizes.due, from_ms=due_ms, to_ms=due_ms + 999, queues=queues)
    with _all_spending(sides) as spent:
        pause(max(0.0, (due_ms - now_ms()) / 1000))
        while any(stub.ask("triggers")["triggers"] > n for (stub, _), n in zip(sides, stored, strict=True)):
            pause(0.05)
    return [
        Measured(int(one.counts["entries"]["SendMessageBatch"]), one.less(nothing))
        for one, nothing in zip(spent, idle, strict=True)
    ]


def settle(stub: Stub) -> None:
    """Wait until a dispatcher that has just started has read the open time buckets, an hour of them."""
    pause(1.0)
    seen, quiet = 0, 0
    for _ in range(SETTLE_LOOKS_MAX):
        before, seen = seen, stub.ask("counts")["requests"].get("Query", 0)
        quiet = quiet + 1 if seen - before <= 4 * SHARDS else 0  # ticks
        if quiet == SETTLED_LOOKS:
            return
        pause(1.0)


NO_FORECAST = {"DYNEIN_FORECAST_INTERVAL_S": "0"}
"""The forecast's queries come once a minute, in one interval and not in the next. `benchmarks.idle` includes them."""
UNTHROTTLED = {"DYNEIN_INGEST_RATE_PER_S": "1000000", **NO_FORECAST}
MANY_QUEUES = 16
Measure = Callable[[Sequence[Side], Sizes], list[Measured]]
MEASURES: dict[str, dict[str, Measure]] = {
    "ingester": {"ingester": measure_ingesters},
    "dispatcher": {
        f"dispatcher, {MANY_QUEUES} destinations": partial(measure_dispatchers, queues=MANY_QUEUES),
        "dispatcher, 1 destination": measure_dispatchers,
    },
}
"""What is measured of each role, by the name of its row."""


def run(arguments: Sequence[str] | None = None) -> None:
    given = options(__doc__, arguments)
    sizes = QUICK if given.quick else FULL
    report = Report("pipeline", given)
    report.facts = {"jobs_counted": 0, "jobs_expected": 0, "targets": {}}
    clients = aws_clients(quick=given.quick)
    with ExitStack() as stack:
        stubs = {stored: stack.enter_context(stored_stub(stored)) for stored in sizes.stored}
        report.add(_costs(clients, stubs[sizes.stored[0]], sizes, report, given.repeats))
        report.add(_flatness(clients[-1], stubs, sizes, report, given.repeats))
    report.write()


@contextmanager
def _started(role: str, client: str, stubs: Sequence[Stub]) -> Iterator[list[Side]]:
    """A process on each stub, settled."""
    with ExitStack() as stack:
        settings = UNTHROTTLED | client_setting(client)
        sides = [Side(stub, stack.enter_context(Serve(stub, [role], settings))) for stub in stubs]
        for stub in stubs:
            settle(stub)
        yield sides
        for side in sides:
            side.process.stop()


def _costs(clients: Sequence[str], stub: Stub, sizes: Sizes, report: Report, repeats: int) -> Table:
    """Each process alone on its core."""
    table = Table(
        "pipeline", f"Jobs a core-second, stub engine, {sizes.stored[0]:,} triggers stored",
        "Median of repeats (least-greatest).",
    )  # fmt: skip
    with ExitStack() as stack:
        boto3 = Boto3.started(stack, stub)
        boto3.run(REFERENCE, stub.address, sizes.boto3_calls)
        for role, client in product(reversed(MEASURES), clients):
            figures: dict[str, list[Measured]] = {row: [] for row in MEASURES[role]}
            with _started(role, client, [stub]) as sides:
                for _, (row, measure) in product(range(repeats), MEASURES[role].items()):
                    [measured] = measure(sides, sizes)
                    reference = boto3.run(REFERENCE, stub.address, sizes.boto3_calls)
                    boto3_us = 1e6 * reference["cpu_s"] / reference["jobs"]
                    figures[row].append(measured._replace(boto3_us=boto3_us))
            for row, repeated in figures.items():
                table.add(**_cost_row(row, client, repeated))
                rate = median(m.rate for m in repeated)
                report.facts["targets"].setdefault(client, {})[f"{row} jobs a core-second"] = rate
                _count(report, role, repeated, sizes)
    return table


def _flatness(client: str, stubs: dict[int, Stub], sizes: Sizes, report: Report, repeats: int) -> Table:
    """One process for each number of stored triggers, all working at once on one core."""
    table = Table(
        "flat", "The same by number of stored triggers, all at the same moment on one core",
        "*flat*: relative to the process with the fewest stored, at the same moment. Sharing a core makes batches "
        "fuller, so a core-second does more than above: only the ratio matters.",
    )  # fmt: skip
    for role, rows in reversed(MEASURES.items()):
        figures: dict[str, list[list[Measured]]] = {row: [] for row in rows}
        with _started(role, client, list(stubs.values())) as sides:
            for _, (row, measure) in product(range(repeats), rows.items()):
                figures[row].append(measure(sides, sizes))
        for row, moments in figures.items():
            for stored, repeated in zip(stubs, zip(*moments, strict=True), strict=True):
                flat = spread(m.rate / moment[0].rate for m, moment in zip(repeated, moments, strict=True))
                table.add(**_flat_row(row, stored, repeated, flat))
                # Of the greatest number, which comes last.
                report.facts["targets"].setdefault(client, {})[f"{row} flat"] = flat["median"]
                _count(report, role, repeated, sizes)
    return table


def _count(report: Report, role: str, repeated: Sequence[Measured], sizes: Sizes) -> None:
    if role == "dispatcher":  # an ingester's supply is endless
        report.facts["jobs_counted"] += sum(m.jobs for m in repeated)
        report.facts["jobs_expected"] += sizes.due * len(repeated)


def _a_job(repeated: Sequence[Measured]) -> dict[str, float]:
    return {
        f"{counted.replace('_', ' ')} a job": median(m.spent.total(counted) / m.jobs for m in repeated)
        for counted in ("requests", "write_units", "read_units")
    }


def _cost_row(row: str, client: str, repeated: Sequence[Measured]) -> dict[str, object]:
    return {
        "role": row,
        "AWS client": client,
        "jobs a core-second": spread(m.rate for m in repeated),
        "at reference speed": spread(m.rate_at_reference_speed for m in repeated),
        "CPU µs a job": spread(1e6 * m.spent.cpu_s["process"] / m.jobs for m in repeated),
        **_a_job(repeated),
        "core %": median(m.spent.share("process") for m in repeated),
        "stub core %": median(m.spent.share("stub") for m in repeated),
    }


def _flat_row(row: str, stored: int, repeated: Sequence[Measured], flat: dict[str, float]) -> dict[str, object]:
    return {
        "role": row,
        "stored": stored,
        "flat": flat,
        "jobs a core-second": spread(m.rate for m in repeated),
        **_a_job(repeated),
    }


if __name__ == "__main__":
    run()
