"""Invariant 7: what a process holds stays within its settings' bounds, and nothing is left once all jobs are done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from dynein.core.queues import ENTRIES_MAX
from dynein.scheduler.dispatcher import READS_MAX
from dynein.scheduler.lease_keeper import CALLS_MAX
from tests.simulation.flight import OUTSIDE_OF_JOBS
from tests.simulation.process import Process, State, pause
from tests.simulation.process_parts import ProcessParts
from tests.simulation.world import World

_WATCH_EVERY_S = 1.0
_CALLS_OF_A_KIND_MAX = 16
"""Calls of one role and verb. Every batcher keeps 8 under way at most; some verbs serve two of them."""
_TASKS_IDLE_MAX = 80
"""Tasks of a process without work: its agents, and calls that are under way."""


class Level(NamedTuple):
    """How much of something there is, and how much there may be."""

    what: str
    now: int
    most: int


class Bounds:
    """Inspects every live process once a second."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.message_jobs_max = 1
        """Jobs of the largest inbound message so far, which is admitted even where it exceeds the bound."""
        self.violations: dict[str, None] = {}

    async def watch(self) -> None:
        """Until the run is over."""
        while True:
            await pause(self._world.loop, _WATCH_EVERY_S)
            for process, parts in self._live():
                for level in (*self._levels(parts), *self._calls(process)):
                    if level.now > level.most:
                        self._violated(f"{process.name}: {level.what}: {level.now}, at most {level.most} allowed")

    def check_idle(self) -> None:
        """Nothing is under way, so nothing may be held."""
        for process, parts in self._live():
            for level in self._levels(parts):
                if level.now:
                    self._violated(f"{process.name}: {level.what}: {level.now} left without any work")
            tasks = process.tasks_alive()
            if tasks > _TASKS_IDLE_MAX:
                self._violated(f"{process.name}: {tasks} tasks without any work")

    def check_shares(self) -> None:
        """Nobody has come or gone for long enough: each has its share of the shards, and of the rate."""
        live = list(self._live())
        owners = Counter(record.owner for record in self._world.table.shards())
        dispatchers = [process.name for process, parts in live if parts.dispatcher is not None]
        shares = sorted(owners[name] for name in dispatchers)
        if sum(shares) != owners.total() or shares[-1] - shares[0] > 1:
            self._violated(f"shares of the shards are {shares}, and {owners.total() - sum(shares)} have no live owner")
        rates = [parts.ingester.admission.rate_per_s for _, parts in live if parts.ingester is not None]
        rate = self._world.settings.ingest_rate_per_s
        if abs(sum(rates) - rate) > 0.01 * rate:
            self._violated(f"{len(rates)} ingesters take {sum(rates):.1f} jobs a second in all, of {rate:.1f}")

    def _violated(self, what: str) -> None:
        self.violations.setdefault(f"BOUND: {what}")

    def _live(self) -> Iterator[tuple[Process, ProcessParts]]:
        for process in self._world.processes:
            if process.state is State.RUNNING and process.name in self._world.parts:
                yield process, self._world.parts[process.name]

    def _levels(self, parts: ProcessParts) -> Iterator[Level]:
        settings = self._world.settings
        if parts.submissions is not None:
            sender = parts.submissions._sender
            waiting = [lane.waiting for lane in sender._direct._lanes._lanes.values()]
            waiting += [batcher.waiting for batcher in sender._inbound._batchers.values()]
            yield Level("submissions waiting for one queue", max(waiting, default=0), settings.submit_waiting_max)
        if parts.ingester is not None:
            held_max = max(settings.held_jobs_max, self.message_jobs_max)
            received_max = ENTRIES_MAX * settings.ingest_receivers
            yield Level("near jobs held", parts.ingester.near_jobs.jobs, held_max)
            # Those that only wait to be deleted take no room of `Admission`; a bound of their own keeps them.
            invisible_max = held_max + received_max + parts.ingester.inbox.deleting
            yield Level("messages kept invisible", len(parts.ingester.visibility), invisible_max)
        if parts.dispatcher is not None:
            snapshot = parts.dispatcher.snapshot()
            yield Level("triggers read ahead", snapshot.read_ahead_jobs, settings.read_ahead_jobs_max)
            yield Level("due triggers", snapshot.overdue_jobs, settings.read_ahead_jobs_max)
        for delivery in parts.deliveries:
            waiting = [lane._batcher.waiting for lane in delivery._lanes._lanes.values()]
            yield Level("due jobs waiting for one queue", max(waiting, default=0), settings.lane_waiting_max)

    def _calls(self, process: Process) -> Iterator[Level]:
        under_way = Counter(
            (flight.role, flight.verb, flight.target)
            for flight in self._world.network.under_way
            if flight.process == process.name and not flight.ended
        )
        for (role, verb, target), count in under_way.items():
            yield Level(f"{verb} calls of the {role} under way", count, self._calls_max(role, verb, target))

    def _calls_max(self, role: str, verb: str, target: str) -> int:
        settings = self._world.settings
        if role in OUTSIDE_OF_JOBS:
            return 1
        own = {"receive": settings.ingest_receivers, "read": READS_MAX}
        if verb in own or verb in ("renew", "take", "release"):
            return own.get(verb, CALLS_MAX)
        if verb == "send" and role in ("ingester", "dispatcher"):
            return 1 if target.endswith(".fifo") else settings.lane_in_flight_max
        if role == "api":
            return 2 * settings.submit_in_flight_max if verb == "send" else 100
        return _CALLS_OF_A_KIND_MAX
