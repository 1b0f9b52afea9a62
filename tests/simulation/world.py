"""One run's engines and processes, and what happened in it."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from dynein.errors import DyneinError, Stop
from dynein.testing import FakeQueues, FakeTriggerTable
from dynein.token import TokenSigner
from tests.simulation.engines import Observer, WiredQueues, WiredTable
from tests.simulation.loop import SimulationLoop
from tests.simulation.network import EngineFaults, Network, Wire
from tests.simulation.process import Process, ProcessClock, State, pause
from tests.simulation.scenario import Scenario, Weather

if TYPE_CHECKING:
    from dynein.api.submission import Submissions

EPOCH_MS = 1_750_000_000_000
RECEIVES_MAX = 100
"""As `dynein bootstrap` sets it."""
ROLES = ("api", "ingester", "dispatcher")


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
        self.weather = Weather()
        self.network = Network(loop, random.Random(f"network {scenario.seed}"), self.weather, copy_context())
        self.faults = EngineFaults(random.Random(f"engines {scenario.seed}"), self.weather)
        self.queues = FakeQueues(self.clock, faults=self.faults)
        self.table = FakeTriggerTable(
            self.clock,
            bucket_width_ms=scenario.bucket_width_s * 1000,
            shard_count=scenario.shard_count,
            faults=self.faults,
        )
        self.observer = Observer(self.trace.note)
        self.signer = TokenSigner([b"a secret for the simulation"])
        self.processes: list[Process] = []
        self.apis: dict[str, Submissions] = {}
        self.problems: list[str] = []
        """What went wrong by itself: agents that died of a bug."""
        self._names = dict.fromkeys(ROLES, 0)
        self._lives: dict[str, asyncio.Task[None]] = {}
        self.queues.create(self.settings.dead_letter_queue)
        self.queues.create(
            self.settings.inbound_queue, dead_letter_queue=self.settings.dead_letter_queue, receives_max=RECEIVES_MAX
        )
        for name in scenario.destinations:
            self.queues.create(name)

    def now_ms(self) -> int:
        """True wall time."""
        return self.clock.now_ms()

    def alive(self, role: str) -> list[Process]:
        """Processes of a role that are running, paused or draining."""
        return [p for p in self.processes if p.role == role and p.state is not State.DEAD]

    def start(self, role: str) -> Process:
        """Start one more process."""
        self._names[role] += 1
        name = f"{role}-{self._names[role]}"
        skew = self.scenario.skew_ms_max
        offset_ms = self.rng.randint(-skew, skew) if self.scenario.has("skew") else 0
        clock = ProcessClock(self.loop, EPOCH_MS, offset_ms, self.rng.random() * 1e6)
        process = Process(name, role, self.loop, clock)
        self.processes.append(process)
        self.trace.note(name, f"starts, its clock is {offset_ms:+d} ms off")
        wire = Wire(self.network, process, self.settings.call_timeout_s)
        queues = WiredQueues(self.queues, wire, self.observer)
        table = WiredTable(self.table, wire, self.observer)
        self._lives[name] = process.spawn(self._live(process, queues, table))
        return process

    async def _live(self, process: Process, queues: WiredQueues, table: WiredTable) -> None:
        from tests.simulation.agents import run_role  # noqa: PLC0415 - agents know the world

        try:
            await run_role(self, process, queues, table)
        except (Stop, DyneinError) as error:
            self.trace.note(process.name, f"exits: {type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the auditor wants to know
            self.problems.append(f"{process.name} died of {type(error).__name__}: {error}")
            self.trace.note(process.name, f"dies: {type(error).__name__}: {error}")
        else:
            self.trace.note(process.name, "exits")
        self.loop.call_soon(process.kill, context=self.network.context.copy())

    def kill(self, process: Process) -> None:
        """SIGKILL."""
        self.trace.note(process.name, "is killed")
        process.kill()
        self.apis.pop(process.name, None)

    async def stop(self, process: Process) -> None:
        """SIGTERM, and SIGKILL after the grace period."""
        self.trace.note(process.name, "is told to stop")
        self.apis.pop(process.name, None)
        process.stopping.set()
        life = self._lives[process.name]
        deadline = self.loop.time() + self.settings.drain_s + 5.0
        while not life.done() and process.state is not State.DEAD and self.loop.time() < deadline:
            await pause(self.loop, 0.1)
        if process.state is not State.DEAD and not life.done():
            self.trace.note(process.name, "did not stop in time")
            self.observer.disturb(process.name, self.loop.time(), self.loop.time(), "did not stop in time")
            self.kill(process)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something that belongs to no process."""
        return self.loop.create_task(work, context=self.network.context.copy())
