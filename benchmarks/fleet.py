"""How dispatchers share 64 shards, on virtual time: throughput, time of a takeover, idle calls.

The dispatchers are the real ones; queues and table are those of `dynein.testing`, behind a model of a call's duration:
a share of the process's one core (`CALL_CPU_US` and `ENTRY_CPU_US`, of the order that `benchmarks.pipeline` measures)
and the service's time. So throughput is a figure of the model; it shows how throughput grows with dispatchers.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import SecretStr

from benchmarks.jobs import QUEUE, SECRET, body_text
from benchmarks.results import Report, Table, options
from dynein.core.job import Job, encode_job
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import JOB_ID_BYTES, TriggerKey, shard_of
from dynein.core.ports import Deployment, Ports
from dynein.core.shard_records import Layout
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import ADD_MAX
from dynein.observability.telemetry import Telemetry
from dynein.runtime.clock import Clock
from dynein.runtime.context import Context
from dynein.server.assembly import DISPATCHER, Assembly
from dynein.settings import Settings
from dynein.testing import Call, FakeLedger, FakeQueues, FakeTriggerTable, Faults
from dynein.testing.queues import Sent
from tests.simulation.loop import SimulationLoop

SHARDS = 64
BUCKET_WIDTH_MS = 60_000
EPOCH_MS = 1_800_000_000_000
QUEUES = 64
CALL_CPU_US = {"queues": 150.0, "table": 150.0}
ENTRY_CPU_US = {"send": 25.0, "remove": 15.0}
PAGE_TRIGGER_CPU_US = 12.0
SERVICE_MS = {"queues": 8.0, "table": 5.0}
SETTLE_S = 30.0
DUE_WITHIN_MS = 10
HOUR_S = 3600.0


class Sizes(NamedTuple):
    dispatchers: Sequence[int]
    jobs_each: int
    """Due at once, for each dispatcher."""
    idle_s: float


FULL = Sizes((1, 2, 4, 8), 20_000, 60.0)
QUICK = Sizes((1, 2), 200, 5.0)


class VirtualClock:
    """The simulation loop's time."""

    def __init__(self, loop: SimulationLoop) -> None:
        self._loop = loop

    def now_ms(self) -> int:
        return EPOCH_MS + int(self._loop.time() * 1000)

    def now_us(self) -> int:
        return EPOCH_MS * 1000 + int(self._loop.time() * 1_000_000)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)  # noqa: TID251 - virtual time


class ServiceTimes(Faults):
    """One process's connection to the services: its core, then the call's service time. No call fails."""

    def __init__(self, clock: Clock, calls: Counter[str]) -> None:
        super().__init__()
        self._clock = clock
        self._core_free_at = 0.0
        self._counts = calls

    async def before(self, call: Call) -> None:
        self._counts[call.verb] += 1
        await self._work(CALL_CPU_US[call.service] + ENTRY_CPU_US.get(call.verb, 0.0) * call.entries)
        await self._clock.sleep(SERVICE_MS[call.service] / 1000)

    async def after(self, call: Call) -> None:
        """No delay on the response: its time is spent in `before`."""

    async def page_read(self, triggers: int) -> None:
        """Processing a page costs by its number of triggers, which is known only now."""
        await self._work(PAGE_TRIGGER_CPU_US * triggers)

    async def _work(self, cpu_us: float) -> None:
        now = self._clock.monotonic()
        self._core_free_at = max(now, self._core_free_at) + cpu_us / 1e6
        await self._clock.sleep(self._core_free_at - now)


class PagedTable(FakeTriggerTable):
    """A connection whose reads cost by the number of triggers they return."""

    async def read(self, bucket: int, shard: int, **range_: object):  # type: ignore[no-untyped-def]  # noqa: ANN201
        page = await super().read(bucket, shard, **range_)  # type: ignore[arg-type]
        if isinstance(self.faults, ServiceTimes):
            await self.faults.page_read(len(page.triggers))
        return page


class World:
    """One fleet on one table."""

    def __init__(self, loop: SimulationLoop) -> None:
        self.clock = VirtualClock(loop)
        self.calls: Counter[str] = Counter()
        self.queues = FakeQueues(self.clock)
        self.queues.create("dynein-dead-letter")
        for number in range(QUEUES):
            self.queues.create(f"{QUEUE}-{number}")
        self.table = PagedTable(self.clock, bucket_width_ms=BUCKET_WIDTH_MS, shard_count=SHARDS)
        self.sent_at: list[float] = []
        self.queues.on_sent.append(self._sent)
        self.running: dict[str, tuple[asyncio.Task[None], asyncio.Event]] = {}
        self._rng = random.Random(7)

    def start(self, name: str) -> None:
        """One more dispatcher."""
        settings = Settings(ledger_interval_s=0, token_secrets=SecretStr(SECRET))
        context = Context(self.clock, random.Random(name), Telemetry())
        times = ServiceTimes(self.clock, self.calls)
        queues, table = self.queues.connect(times), self.table.connect(times)
        ports = Ports(queues, table, table, table, FakeLedger())
        deployment = Deployment(Layout(BUCKET_WIDTH_MS, SHARDS, SHARDS), "", "", 262_144)
        process = Assembly([DISPATCHER], lambda _: ports, deployment, context, settings, member=name)
        assert process.dispatcher is not None
        stopping = asyncio.Event()
        self.running[name] = (asyncio.ensure_future(process.dispatcher.run(stopping)), stopping)

    async def load(self, jobs: int, due_at_ms: int) -> None:
        """Store triggers, all due at about the same moment."""
        signer = TokenSigner([SECRET.encode()])
        triggers = []
        for number in range(jobs):
            job_id = self._rng.randbytes(JOB_ID_BYTES)
            key = TriggerKey(due_at_ms + self._rng.randrange(DUE_WITHIN_MS), job_id, shard_of(job_id, SHARDS))
            record = encode_job(Job(queue=f"{QUEUE}-{number % QUEUES}", body=body_text()))
            triggers.append(Trigger(key, signer.sign(JobRef(TokenKind.SCHEDULED, key)), record))
        for start in range(0, jobs, ADD_MAX):
            await self.table.add(triggers[start : start + ADD_MAX])

    async def kill(self, name: str) -> None:
        """Crash it, by cancelling its task."""
        task, _ = self.running.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def stop(self, name: str) -> None:
        """Stop it as SIGTERM does."""
        task, stopping = self.running.pop(name)
        stopping.set()
        await task

    async def balanced(self) -> float:
        """Seconds until a running dispatcher owns every shard, and none owns more than its share."""
        started = self.clock.monotonic()
        while not self._is_balanced():
            await self.clock.sleep(0.05)
        return self.clock.monotonic() - started

    def _is_balanced(self) -> bool:
        owners = Counter(record.owner for record in self.table.shards())
        most = -(-SHARDS // len(self.running))
        return all(owner in self.running for owner in owners) and max(owners.values()) <= most

    def _sent(self, sent: Sent) -> None:
        del sent
        self.sent_at.append(self.clock.monotonic())


class Result(NamedTuple):
    start_s: float
    jobs_per_s: float
    sent: int
    jobs: int
    idle_calls_an_hour: float
    kill_s: float | None
    stop_s: float | None


async def live(loop: SimulationLoop, dispatchers: int, sizes: Sizes) -> Result:
    """Run one fleet: start, an idle period, a burst, a crash, a leave."""
    world = World(loop)
    names = [f"dispatcher-{n}" for n in range(dispatchers)]
    for name in names:
        world.start(name)
    start_s = await world.balanced()
    await world.clock.sleep(SETTLE_S)
    before = sum(world.calls.values())
    await world.clock.sleep(sizes.idle_s)
    idle = (sum(world.calls.values()) - before) / sizes.idle_s * HOUR_S
    jobs = sizes.jobs_each * dispatchers
    due_in_s = 8.0
    due_at = world.clock.monotonic() + due_in_s
    await world.load(jobs, world.clock.now_ms() + int(due_in_s * 1000))
    while world.table.triggers():
        await world.clock.sleep(0.25)
    rate = jobs / (world.sent_at[-1] - due_at)
    kill_s = stop_s = None
    if dispatchers > 1:
        await world.kill(names[0])
        kill_s = await world.balanced()
        world.start(names[0])
        await world.balanced()
        await world.stop(names[1])
        stop_s = await world.balanced()
    for name in list(world.running):
        await world.kill(name)
    return Result(start_s, rate, len(world.sent_at), jobs, idle, kill_s, stop_s)


def run(arguments: Sequence[str] | None = None) -> None:
    given = options(__doc__, arguments)
    sizes = QUICK if given.quick else FULL
    report = Report("fleet", given)
    report.facts = {"jobs_counted": 0, "jobs_expected": 0, "targets": {}}
    table = Table(
        "fleet", f"Dispatchers over {SHARDS} shards, simulated",
        f"Model: {SERVICE_MS} ms a call, CPU {CALL_CPU_US} µs a call and {ENTRY_CPU_US} µs an entry, one core each. "
        "*crash*, *leave*: seconds until all shards are owned and shared evenly again.",
    )  # fmt: skip
    first = 0.0
    for dispatchers in sizes.dispatchers:
        loop = SimulationLoop()
        result = loop.run_until_complete(live(loop, dispatchers, sizes))
        first = first or result.jobs_per_s / dispatchers
        of_linear = result.jobs_per_s / dispatchers / first
        report.facts["jobs_expected"] += result.jobs
        report.facts["jobs_counted"] += result.sent
        report.facts["targets"][f"{dispatchers} dispatchers: throughput / linear"] = of_linear
        table.add(**{
            "dispatchers": dispatchers, "jobs/s": result.jobs_per_s, "of linear": of_linear,
            "start s": result.start_s, "crash s": result.kill_s or "", "leave s": result.stop_s or "",
            "idle calls/h": result.idle_calls_an_hour, "sent": result.sent, "of": result.jobs,
        })  # fmt: skip
    report.add(table)
    report.write()


if __name__ == "__main__":
    run()
