"""One run's engines and processes, and what happened in it."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from dynein.core.job_token import TokenSigner
from dynein.core.seal import Seal
from dynein.core.shard_records import NEW_SHARD_LOOK_BACK_MS
from dynein.errors import DyneinError, FatalError
from dynein.testing import FakeLedger, FakeQueues, FakeTriggerTable
from tests.simulation.books import Books
from tests.simulation.evidence import Evidence
from tests.simulation.loop import SimulationLoop
from tests.simulation.network import Network
from tests.simulation.process import Process, ProcessClock, State, pause
from tests.simulation.quirks import EngineFaults
from tests.simulation.scenario import SECRET, FaultIntensity, Scenario

if TYPE_CHECKING:
    from tests.simulation.clients import Client
    from tests.simulation.process_parts import ProcessParts

EPOCH_MS = 1_750_000_000_000
_SHARDS_MADE_MS = NEW_SHARD_LOOK_BACK_MS - 60_000
RECEIVES_MAX = 100
"""As `dynein bootstrap` sets it."""


class Trace:
    """What happened, line by line. The digest says whether two runs were the same."""

    def __init__(self, loop: SimulationLoop, *, keep: bool) -> None:
        self._loop = loop
        self._keep = keep
        self._digest = hashlib.sha256()
        self.lines: list[str] = []

    def note(self, who: str, what: str) -> None:
        """Add a line."""
        line = f"{self._loop.time():10.4f}  {who:<14} {what}"
        self._digest.update(line.encode())
        if self._keep:
            self.lines.append(line)

    @property
    def digest(self) -> str:
        """Of all lines so far."""
        return self._digest.hexdigest()[:16]


class World:
    """Engines, network and processes of one run."""

    def __init__(self, scenario: Scenario, loop: SimulationLoop, *, keep_trace: bool) -> None:
        self.scenario = scenario
        self.settings = scenario.settings
        self.loop = loop
        self.rng = random.Random(f"world {scenario.seed}")
        self.trace = Trace(loop, keep=keep_trace)
        self.clock = ProcessClock(loop, EPOCH_MS, 0, 0.0)
        self.intensity = FaultIntensity()
        self.met: Counter[str] = Counter()
        """How often each kind of fault struck."""
        network_rng = random.Random(f"network {scenario.seed}")
        self.network = Network(loop, network_rng, self.intensity, copy_context(), self.met)
        engines_rng = random.Random(f"engines {scenario.seed}")
        self.faults = EngineFaults(engines_rng, self.intensity, scenario, self.clock, loop, self.met)
        self.queues = FakeQueues(self.clock, faults=self.faults)
        self.table = FakeTriggerTable(
            self.clock,
            bucket_width_ms=scenario.bucket_width_s * 1000,
            shard_count=0,
            faults=self.faults,
        )
        self.raise_shard_count(scenario.shard_count)
        self.ledger = FakeLedger()
        self.evidence = Evidence(self.trace.note)
        self.books = Books()
        self.faults.quirks = self.evidence.quirks
        self.network.on_trouble = self.evidence.trouble
        self.network.slow_s = self.settings.call_timeout_s / 2
        self.signer, self.seal = TokenSigner([SECRET.encode()]), Seal([SECRET.encode()])
        self.processes: list[Process] = []
        self.apis: dict[str, Client] = {}
        """By process name: those that accept requests."""
        self.problems: list[str] = []
        """Unexpected errors: agents that ended with one, and those that were logged."""
        self.parts: dict[str, ProcessParts] = {}
        """By process name; of those that have died, as they were then."""
        self._names = dict.fromkeys(scenario.fleet, 0)
        self._lives: dict[str, asyncio.Task[None]] = {}
        self.queues.create(self.settings.dead_letter_queue)
        self.queues.create(
            self.settings.inbound_queue, dead_letter_queue=self.settings.dead_letter_queue, receives_max=RECEIVES_MAX
        )
        for name in scenario.destinations:
            self.queues.create(name)

    def raise_shard_count(self, shard_count: int) -> None:
        """As ``dynein bootstrap`` does, 59 minutes ago: a new shard's owner reads an hour back, which takes long."""
        self.clock.offset_ms += _SHARDS_MADE_MS
        self.table.raise_shard_count(shard_count)
        self.clock.offset_ms -= _SHARDS_MADE_MS

    def now_ms(self) -> int:
        """True wall time."""
        return self.clock.now_ms()

    def alive(self, kind: str) -> list[Process]:
        """Processes of a kind that are running, paused or draining."""
        return [p for p in self.processes if p.kind == kind and p.state is not State.DEAD]

    def start(self, kind: str) -> Process:
        """Start one more process."""
        self._names[kind] += 1
        name = f"{kind}-{self._names[kind]}"
        skew = self.scenario.skew_ms_max
        offset_ms = self.rng.randint(-skew, skew) if self.scenario.has("skew") else 0
        if offset_ms:
            self.met["skew"] += 1
        clock = ProcessClock(self.loop, EPOCH_MS, offset_ms, self.rng.random() * 1e6)
        process = Process(name, kind, self.loop, clock)
        self.processes.append(process)
        self.trace.note(name, f"starts, its clock is {offset_ms:+d} ms off")
        self._lives[name] = process.spawn(self._live(process))
        return process

    def opened(self, process: Process, parts: ProcessParts) -> None:
        """A process has found its queues, and begins to work."""
        self.parts[process.name] = parts
        if parts.client is not None:
            self.apis[process.name] = parts.client

    def closed(self, process: Process) -> None:
        """No user reaches it any more."""
        self.apis.pop(process.name, None)

    async def _live(self, process: Process) -> None:
        from tests.simulation.process_parts import live  # noqa: PLC0415 - agents know the world

        try:
            await live(self, process)
        except (FatalError, DyneinError) as error:
            self.trace.note(process.name, f"exits: {type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001 - an unexpected error is a violation
            self.problems.append(f"{process.name} died of {type(error).__name__}: {error}")
            self.trace.note(process.name, f"dies: {type(error).__name__}: {error}")
        else:
            self.trace.note(process.name, "exits")
        self.closed(process)
        process.exited = True
        self.loop.call_soon(process.kill, context=self.network.context.copy())

    def kill(self, process: Process) -> None:
        """SIGKILL."""
        self.trace.note(process.name, "is killed")
        process.kill()
        self.closed(process)

    async def stop(self, process: Process) -> None:
        """SIGTERM, and SIGKILL after the grace period."""
        self.trace.note(process.name, "is told to stop")
        self.closed(process)
        process.told_to_stop_at = self.loop.time()
        process.last_call_at = self.loop.time() + 0.75 * self.settings.drain_s
        process.stopping.set()
        life = self._lives[process.name]
        deadline = self.loop.time() + self.settings.drain_s + 5.0
        while not life.done() and process.state is not State.DEAD and self.loop.time() < deadline:
            await pause(self.loop, 0.1)
        if process.state is not State.DEAD and not life.done():
            self.trace.note(process.name, "did not stop in time")
            self.evidence.disturb(process.name, self.loop.time(), self.loop.time(), "did not stop in time")
            self.kill(process)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something that belongs to no process."""
        return self.loop.create_task(work, context=self.network.context.copy())
