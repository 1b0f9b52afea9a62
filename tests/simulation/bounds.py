"""Invariant 7: whatever a process holds stays within its settings' bounds, and nothing is left once all is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from dynein.core.queues import ENTRIES_MAX
from dynein.scheduler.dispatcher import READS_MAX
from dynein.scheduler.lease_keeper import CALLS_MAX
from tests.simulation.agents import Innards
from tests.simulation.process import Process, State, pause
from tests.simulation.world import World

_WATCH_EVERY_S = 1.0
_CALLS_OF_A_KIND_MAX = 16
"""Of one role about one thing. Every batcher keeps 8 under way at most; some verbs serve two of them."""
_TASKS_IDLE_MAX = 80
"""Of a process that has nothing to do: its agents, and calls that are under way."""


class Level(NamedTuple):
    """How much there is of something, and how much there may be."""

    what: str
    now: int
    most: int


class Bounds:
    """Looks at every live process now and then."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.message_jobs_max = 1
        """Jobs of the largest inbound message so far, which is let in even where it exceeds the bound."""
        self.violations: dict[str, None] = {}

    async def watch(self) -> None:
        """Until the run is over."""
        while True:
            await pause(self._world.loop, _WATCH_EVERY_S)
            for process, innards in self._live():
                for level in (*self._levels(innards), *self._calls(process)):
                    if level.now > level.most:
                        self._violated(f"{process.name}: {level.what}: {level.now}, at most {level.most} allowed")

    def judge_idle(self) -> None:
        """Nothing is under way, so nothing may be held."""
        for process, innards in self._live():
            for level in self._levels(innards):
                if level.now:
                    self._violated(f"{process.name}: {level.what}: {level.now} left, and nothing to do")
            tasks = process.tasks_alive()
            if tasks > _TASKS_IDLE_MAX:
                self._violated(f"{process.name}: {tasks} tasks, and nothing to do")

    def _violated(self, what: str) -> None:
        self.violations.setdefault(f"BOUND: {what}")

    def _live(self) -> Iterator[tuple[Process, Innards]]:
        for process in self._world.processes:
            if process.state is State.RUNNING and process.name in self._world.innards:
                yield process, self._world.innards[process.name]

    def _levels(self, innards: Innards) -> Iterator[Level]:
        settings = self._world.settings
        if innards.submissions is not None:
            direct, inbound = innards.submissions._direct._lanes, innards.submissions._inbound._lanes
            waiting = [lane.waiting for lane in direct.values()] + [lane.waiting for lane in inbound.values()]
            yield Level("submissions waiting for one queue", max(waiting, default=0), settings.submit_waiting_max)
        if innards.ingester is not None:
            held_max = max(settings.held_jobs_max, self.message_jobs_max)
            received_max = ENTRIES_MAX * settings.ingest_receivers
            yield Level("near jobs held", innards.ingester.near_jobs.jobs, held_max)
            # Those that only wait to be deleted take no room of `Admission`; a bound of their own keeps them.
            invisible_max = held_max + received_max + innards.ingester.inbox.deleting
            yield Level("messages kept invisible", len(innards.ingester.visibility), invisible_max)
        if innards.dispatcher is not None:
            snapshot = innards.dispatcher.snapshot()
            yield Level("triggers read ahead", snapshot.read_ahead_jobs, settings.read_ahead_jobs_max)
            yield Level("due triggers", snapshot.overdue_jobs, settings.read_ahead_jobs_max)
        for delivery in innards.deliveries:
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
        if verb == "receive":
            return settings.ingest_receivers
        if verb == "read":
            return READS_MAX
        if verb in ("renew", "take", "release"):
            return CALLS_MAX
        if verb == "send" and role in ("ingester", "dispatcher"):
            return 1 if target.endswith(".fifo") else settings.lane_in_flight_max
        if role == "api":
            return 2 * settings.submit_in_flight_max if verb == "send" else 100
        return _CALLS_OF_A_KIND_MAX
