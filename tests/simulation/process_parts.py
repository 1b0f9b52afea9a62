"""The real roles, put together in a simulated process by the assembly that `dynein.server.service` uses."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from dynein.api.app import create_app
from dynein.api.health import Health, Lifecycle
from dynein.core.ports import Deployment, Ports
from dynein.delivery.delivery import Delivery
from dynein.ledger.process import tally_by
from dynein.observability.telemetry import Telemetry
from dynein.runtime.context import Context
from dynein.server.assembly import Assembly, find_deployment
from tests.simulation.clients import Client, HttpClient
from tests.simulation.engines import WiredQueues, WiredTable
from tests.simulation.ledger import WiredLedger
from tests.simulation.network import Wire
from tests.simulation.process import Process, pause
from tests.simulation.world import World

_REQUESTS_CHECKED_EVERY_S = 0.05


class ProcessParts:
    """What one process is made of, open to the checker. Roles share what they share in a real process."""

    def __init__(self, world: World, process: Process, context: Context, deployment: Deployment) -> None:
        self._world = world
        self._process = process
        self.telemetry = context.telemetry
        self.tally = context.tally
        self.assembly = Assembly(
            process.roles,
            ports_of(world, process),
            deployment,
            context,
            world.settings,
            member=process.name,
            random_bytes=context.rng.randbytes,
        )
        self.submissions = self.assembly.submissions
        self.ingester = self.assembly.ingester
        self.dispatcher = self.assembly.dispatcher
        self._lifecycle = Lifecycle()
        self.client = self._client()

    @property
    def deliveries(self) -> list[Delivery]:
        """Of all its roles."""
        return self.assembly.deliveries

    async def run(self, stopping: asyncio.Event) -> None:
        """See `dynein.runtime.tasks.Agent`: stands in for the HTTP server, which also finishes the requests it has."""
        await stopping.wait()
        self._lifecycle.drain()
        while self._process.requests:
            await pause(self._world.loop, _REQUESTS_CHECKED_EVERY_S)
        if self.submissions is not None:
            await self.submissions.drained()

    def _client(self) -> Client | None:
        """What users call, if this process has an API."""
        world, submissions = self._world, self.submissions
        if submissions is None or not world.scenario.http:
            return submissions
        app = create_app(submissions, _always_ready, self._lifecycle, self.telemetry, world.settings)
        return HttpClient(app, lambda what: world.problems.append(f"{self._process.name}: {what}"))


async def _always_ready() -> Health:
    return Health([], [])


def wire(world: World, process: Process, role: str) -> Wire:
    """A process's connection to the engines. Each role has its own, so that the checker knows which made a call."""
    return Wire(world.network, process, role, world.settings.call_timeout_s)


def wired_queues(world: World, process: Process, role: str) -> WiredQueues:
    """SQS over such a connection."""
    return WiredQueues(world.queues, wire(world, process, role), world.evidence, world.books)


def wired_table(world: World, process: Process, role: str) -> WiredTable:
    """DynamoDB over such a connection."""
    return WiredTable(world.table, wire(world, process, role), world.evidence, world.books, world.faults)


def ports_of(world: World, process: Process) -> Callable[[str], Ports]:
    """A process's ports. Each part has connections of its own."""

    def of(part: str) -> Ports:
        table = wired_table(world, process, part)
        ledger = WiredLedger(world.ledger, wire(world, process, part), world.evidence, world.settings)
        return Ports(wired_queues(world, process, part), table, table, table, ledger)

    return of


async def live(world: World, process: Process) -> None:
    """One process's life, from its first call to the end of its drain. Raises what ended it."""
    rng = random.Random(f"{world.scenario.seed} {process.name}")
    context = Context(process.clock, rng, Telemetry(), tally_by(world.settings))
    layout = await wired_table(world, process, "start").layout()
    assert layout is not None
    deployment = await find_deployment(layout, ports_of(world, process), context, world.settings)
    parts = ProcessParts(world, process, context, deployment)
    world.opened(process, parts)
    await parts.assembly.run(process.stopping, parts)
