"""Faults besides those of single calls: of processes, clocks, queues, services; deploys. All follow from the seed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from dynein.core.queues import OutgoingMessage
from dynein.testing.queue_message import Place
from tests.simulation.flight import Fate
from tests.simulation.process import Process, State, pause
from tests.simulation.world import World

PROCESSES_MAX = 4
"""Of one kind."""
SHARDS_MAX = 6


class QueueFault(NamedTuple):
    """A time during which a destination failed."""

    since: float
    until: float
    for_good: bool
    """It refused every message for good, for its content."""
    removed: bool


class FaultInjector:
    """Injects a fault every few seconds in the fault phase, then repairs everything."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = random.Random(f"fault injector {world.scenario.seed}")
        self.bad_queues: dict[str, list[QueueFault]] = {}
        """By destination."""
        self.kinds = tuple(world.scenario.fleet)
        """Of processes."""
        self.poison: list[str] = []
        self._active = True
        acts: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "crash": self._crash,
            "pause": self._pause,
            "suspend": self._suspend,
            "partition": self._partition,
            "outage": self._outage,
            "renewals": self._renewals,
            "redeliver": self._redeliver,
            "bad_queue": self._bad_queue,
            "step": self._step,
            "deploy": self._deploy,
            "scale": self._scale,
            "shards": self._shards,
            "poison": self._poison,
        }
        self._acts = [(name, act) for name, act in acts.items() if world.scenario.has(name)]

    async def run(self) -> None:
        """Until the end of the fault phase."""
        loop = self.world.loop
        while self._acts and loop.time() < self.world.scenario.fault_phase_s:
            await pause(loop, self.rng.expovariate(self.world.scenario.faults_per_s))
            if loop.time() < self.world.scenario.fault_phase_s:
                kind, act = self.rng.choice(self._acts)
                self.world.met[kind] += 1
                self.world.spawn(act())

    async def repair(self) -> None:
        """The fault phase is over: no more faults, and at least one process of each kind."""
        world = self.world
        self._active = False
        world.intensity.stop_faults()
        world.network.partitions.clear()
        world.network.outages.clear()
        world.network.no_renewals.clear()
        world.faults.failing_queues.clear()
        for process in world.processes:
            process.resume()
        for name in world.scenario.destinations:
            if name not in world.queues.names():
                world.queues.create(name)
        world.trace.note("faults", "repairs everything")
        self.keep_fleet()

    def keep_fleet(self) -> None:
        """Start a process of each kind of which none is left, as a supervisor does."""
        for kind in self.kinds:
            if not self.world.alive(kind):
                self.world.start(kind)

    async def supervise(self) -> None:
        """Until the run is over: start a successor, after a moment, for the last process of a kind that ended."""
        while True:
            await pause(self.world.loop, 1.0)
            if self._active and self.rng.random() < 0.5:
                continue
            self.keep_fleet()

    # ------------------------------------------------------------------------------------------------------------------

    def _pick_running(self) -> Process | None:
        kind = self.rng.choice(self.kinds)
        running = [p for p in self.world.processes if p.state is State.RUNNING and p.kind == kind]
        return self.rng.choice(running) if running else None

    async def _crash(self) -> None:
        process = self._pick_running()
        if process is not None:
            now = self.world.loop.time()
            self.world.evidence.disturb(process.name, now, now, "crash")
            self.world.kill(process)
            await pause(self.world.loop, self.rng.random() * 5)
            if self._active:
                self.world.start(process.kind)

    async def _pause(self) -> None:
        lease_s = self.world.settings.lease_ttl_s
        seconds = self.rng.choice((0.3, 3.0, 1.5 * lease_s, 3 * lease_s, 60.0)) * (0.7 + 0.6 * self.rng.random())
        await self._freeze(seconds, suspended=False)

    async def _suspend(self) -> None:
        await self._freeze(self.rng.choice((3.0, 15.0, 60.0)) * (0.5 + self.rng.random()), suspended=True)

    async def _freeze(self, seconds: float, *, suspended: bool) -> None:
        process = self._pick_running()
        if process is None:
            return
        loop, what = self.world.loop, "suspended" if suspended else "paused"
        since = loop.time()
        process.pause()
        self.world.trace.note(process.name, f"is {what} for {seconds:.1f} s")
        end = min(since + seconds, max(since, self.world.scenario.fault_phase_s))
        while loop.time() < end and process.state is State.PAUSED:
            await pause(loop, min(1.0, end - loop.time()))
        self.world.evidence.disturb(process.name, since, loop.time(), what)
        process.resume(suspended=suspended)
        self.world.trace.note(process.name, "resumes")

    async def _partition(self) -> None:
        process = self._pick_running()
        if process is None:
            return
        network, loop = self.world.network, self.world.loop
        since = loop.time()
        services = self.rng.choice((("table",), ("queues",), ("table", "queues")))
        fate = self.rng.choice((Fate.REQUEST_LOST, Fate.RESPONSE_LOST, Fate.REFUSED))
        seconds = self.rng.choice((2.0, 10.0, 40.0)) * (0.5 + self.rng.random())
        self.world.trace.note(process.name, f"is cut off from {services} ({fate.value}) for {seconds:.1f} s")
        for service in services:
            network.partitions[process.name, service] = fate
        await pause(loop, min(seconds, max(0.0, self.world.scenario.fault_phase_s - since)))
        for service in services:
            network.partitions.pop((process.name, service), None)
        self.world.evidence.disturb(process.name, since, loop.time(), "cut off")
        self.world.trace.note(process.name, "is connected again")

    async def _outage(self) -> None:
        network, loop = self.world.network, self.world.loop
        service = self.rng.choice(("table", "queues"))
        seconds = self.rng.choice((2.0, 10.0, 30.0)) * (0.5 + self.rng.random())
        since = loop.time()
        self.world.trace.note("faults", f"the {service} are down for {seconds:.1f} s")
        network.outages[service] = None
        await pause(loop, min(seconds, max(0.0, self.world.scenario.fault_phase_s - since)))
        network.outages.pop(service, None)
        for process in self.world.processes:
            self.world.evidence.disturb(process.name, since, loop.time(), f"outage of {service}")
        self.world.trace.note("faults", f"the {service} are up again")

    async def _renewals(self) -> None:
        """Often longer than a lease: all lose theirs, or nobody is there to take them. Begins when memory is full of
        what is due soon: what becomes of that is the question."""
        network, loop, lease_s = self.world.network, self.world.loop, self.world.settings.lease_ttl_s
        if network.no_renewals:
            return
        struck = [p for p in self.world.processes if p.state is State.RUNNING and "dispatcher" in p.roles]
        if len(struck) > 1 and self.rng.random() < 0.6:
            struck = [self.rng.choice(struck)]
        patience_until = loop.time() + 15.0
        while loop.time() < patience_until and not any(self._read_ahead(process) >= 3 for process in struck):
            await pause(loop, 0.05)
        if network.no_renewals or loop.time() >= self.world.scenario.fault_phase_s:
            return
        fate = self.rng.choice((Fate.REFUSED, Fate.THROTTLED, Fate.REQUEST_LOST, Fate.RESPONSE_LOST))
        seconds = self.rng.choice((0.6, 1.2, 3.0)) * lease_s
        for process in struck:
            self.world.trace.note(process.name, f"has its renewals fail ({fate.value}) for {seconds:.1f} s")
            network.no_renewals[process.name] = fate
        await pause(loop, min(seconds, max(0.0, self.world.scenario.fault_phase_s - loop.time())))
        for process in struck:
            network.no_renewals.pop(process.name, None)

    def _read_ahead(self, process: Process) -> int:
        """How many triggers a process has in memory."""
        parts = self.world.parts.get(process.name)
        dispatcher = parts.dispatcher if parts is not None else None
        return dispatcher.snapshot().read_ahead_jobs if dispatcher is not None else 0

    async def _redeliver(self) -> None:
        """SQS promises at least once: it may show a message that is being worked on, and one that was deleted."""
        evidence, now = self.world.evidence, self.world.loop.time()
        queue = self.world.queues._queues[self.world.settings.inbound_queue]
        queue.settle(now)
        share, deleted_too = self.rng.choice((0.3, 1.0)), self.rng.random() < 0.7
        shown = 0
        for message_id, message in evidence.inbound.items():
            if self.rng.random() >= share:
                continue
            if message.place is Place.IN_FLIGHT:
                queue.show(message, now)
            elif message.place is Place.GONE and deleted_too:
                message.place, message.visible_at = Place.DELAYED, now
                queue.enter(message, now)
            else:
                continue
            shown += 1
            evidence.quirks.setdefault(message_id, []).append((now, "delivered again by SQS"))
        queue.announce()
        self.world.trace.note("faults", f"SQS delivers {shown} inbound messages again")

    async def _bad_queue(self) -> None:
        world, loop = self.world, self.world.loop
        name = self.rng.choice(world.scenario.destinations)
        if name in world.faults.failing_queues or name not in world.queues.names():
            return
        seconds = self.rng.choice((3.0, 30.0, 120.0)) * (0.5 + self.rng.random())
        kind = self.rng.choice(("InternalError", "ThrottlingException", "InvalidParameterValue", "removed"))
        share = self.rng.choice((1.0, 1.0, 0.5))
        since = loop.time()
        episodes = self.bad_queues.setdefault(name, [])
        episodes.append(
            QueueFault(since, math.inf, for_good=kind == "InvalidParameterValue", removed=kind == "removed")
        )
        world.trace.note("faults", f"queue {name}: {kind} for {seconds:.1f} s, {share} of the entries")
        if kind == "removed":
            world.queues.remove(name)
        else:
            world.faults.failing_queues[name] = (kind, kind == "InvalidParameterValue", share)
        await pause(loop, min(seconds, max(0.0, world.scenario.fault_phase_s - since)))
        if name not in world.queues.names():
            world.queues.create(name)
        world.faults.failing_queues.pop(name, None)
        episodes[-1] = episodes[-1]._replace(until=loop.time())
        world.trace.note("faults", f"queue {name} works again")

    async def _step(self) -> None:
        process = self._pick_running()
        if process is not None:
            skew = self.world.scenario.skew_ms_max
            offset_ms = self.rng.randint(-skew, skew)
            process.clock.step_to(offset_ms)
            self.world.trace.note(process.name, f"its clock steps to {offset_ms:+d} ms")

    async def _deploy(self) -> None:
        kind = self.rng.choice(self.kinds)
        self.world.trace.note("faults", f"rolls out a new {kind}")
        for process in self.world.alive(kind):
            if process.state is not State.DEAD and not process.stopping.is_set() and self._active:
                self.world.start(kind)
                await self.world.stop(process)

    async def _scale(self) -> None:
        kind = self.rng.choice(self.kinds)
        there = [p for p in self.world.alive(kind) if p.state is State.RUNNING and not p.stopping.is_set()]
        if len(there) >= PROCESSES_MAX or (len(there) > 1 and self.rng.random() < 0.5):
            await self.world.stop(self.rng.choice(there))
        else:
            self.world.start(kind)

    async def _shards(self) -> None:
        count = min(len(self.world.table.shards()) + self.rng.choice((1, 2)), SHARDS_MAX)
        self.world.trace.note("faults", f"raises the shard count to {count}")
        self.world.raise_shard_count(count)

    async def _poison(self) -> None:
        queues = self.world.queues
        body = self.rng.choice(
            ("{garbage", '{"v":3,"jobs":[["x","y"]],"bytes":[2]}\n{}', '{"v":9,"jobs":[]}')
        ) + " " * len(self.poison)
        self.poison.append(body)
        self.world.trace.note("faults", "poisons the inbound queue")
        (failure,) = await queues.send(queues.url(self.world.settings.inbound_queue), [OutgoingMessage(body, {})])
        if failure is not None:
            self.poison.remove(body)
