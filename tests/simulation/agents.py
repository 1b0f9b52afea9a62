"""The real roles, started in a simulated process as `dynein.server.service` starts them in a real one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable

from dynein.api.app import create_app
from dynein.api.health import Lifecycle
from dynein.api.submission import Submissions
from dynein.core.trigger_store import Layout
from dynein.delivery.dead_letter_queue import DeadLetterQueue
from dynein.delivery.delivery import Delivery, Limits
from dynein.delivery.destinations import Directory
from dynein.fleet.membership import Membership
from dynein.ingest import Ingester
from dynein.observability.telemetry import Telemetry
from dynein.runtime.periodic import run_passes
from dynein.scheduler.dispatcher import Dispatcher
from tests.simulation.clients import Client, HttpClient
from tests.simulation.engines import WiredQueues, WiredTable
from tests.simulation.network import Wire
from tests.simulation.process import Process
from tests.simulation.world import World

DEAD_LETTERS = "dead letters"
"""In place of a role: what all roles of a process share."""


class Innards:
    """What one process is made of, where the auditor can look at it. Roles share what they share in a real process."""

    def __init__(
        self, world: World, process: Process, telemetry: Telemetry, directory: Directory, layout: Layout, inbound: str
    ) -> None:
        self._world = world
        self._process = process
        self._layout = layout
        self._inbound_url = inbound
        self._rng = random.Random(f"{world.scenario.seed} {process.name}")
        self._directory = directory
        self._dead_letters = DeadLetterQueue(
            wired_queues(world, process, DEAD_LETTERS), directory, world.settings.dead_letter_queue
        )
        self.telemetry = telemetry
        self.deliveries: list[Delivery] = []
        self._lifecycle = Lifecycle()
        self.submissions = self._submissions() if "api" in process.roles else None
        self.client = self._client(self.submissions) if self.submissions is not None else None
        self.ingester = self._ingester() if "ingester" in process.roles else None
        self.dispatcher = self._dispatcher() if "dispatcher" in process.roles else None

    def work(self, stopping: asyncio.Event) -> list[Awaitable[None]]:
        """All that the process does, until it has drained."""
        work: list[Awaitable[None]] = []
        if self.submissions is not None:
            work.append(self._serve(self.submissions, stopping))
        if self.ingester is not None:
            work.append(self.ingester.run(stopping))
        if self.dispatcher is not None:
            work.append(self.dispatcher.run(stopping))
        return work

    async def _serve(self, submissions: Submissions, stopping: asyncio.Event) -> None:
        await run_passes("layout", submissions.run_once, self._process.clock, stopping, self._rng)
        self._lifecycle.drain()
        await submissions.drained()

    def _client(self, submissions: Submissions) -> Client:
        """What users call."""
        world = self._world
        if not world.scenario.http:
            return submissions
        app = create_app(submissions, _always_ready, self._lifecycle, self.telemetry, world.settings)
        return HttpClient(app, lambda what: world.problems.append(f"{self._process.name}: {what}"))

    def _submissions(self) -> Submissions:
        world, process = self._world, self._process
        table = wired_table(world, process, "api")
        return Submissions(
            wired_queues(world, process, "api"),
            self._directory,
            table,
            table,
            world.signer,
            process.clock,
            self.telemetry,
            world.settings,
            layout=self._layout,
            inbound_url=self._inbound_url,
            rng=self._rng,
            random_bytes=self._rng.randbytes,
        )

    def _ingester(self) -> Ingester:
        world, process = self._world, self._process
        table = wired_table(world, process, "ingester")
        return Ingester(
            queues=wired_queues(world, process, "ingester"),
            store=table,
            shards=table,
            delivery=self._delivery("ingester"),
            dead_letters=self._dead_letters,
            membership=self._membership("ingester", table),
            clock=process.clock,
            telemetry=self.telemetry,
            settings=world.settings,
            rng=self._rng,
            inbound_url=self._inbound_url,
            bucket_width_ms=self._layout.bucket_width_ms,
        )

    def _dispatcher(self) -> Dispatcher:
        world, process = self._world, self._process
        table = wired_table(world, process, "dispatcher")
        return Dispatcher(
            store=table,
            shards=table,
            membership=self._membership("dispatcher", table),
            delivery=self._delivery("dispatcher"),
            dead_letters=self._dead_letters,
            clock=process.clock,
            telemetry=self.telemetry,
            settings=world.settings,
            rng=self._rng,
            bucket_width_ms=self._layout.bucket_width_ms,
        )

    def _membership(self, role: str, roster: WiredTable) -> Membership:
        settings = self._world.settings
        return Membership(
            roster, self._process.clock, role=role, member=self._process.name, ttl_s=settings.member_ttl_s
        )

    def _delivery(self, role: str) -> Delivery:
        world, process, settings = self._world, self._process, self._world.settings
        limits = Limits(
            message_bytes_max=settings.message_bytes_max,
            lane_waiting_max=settings.lane_waiting_max,
            lane_in_flight_max=settings.lane_in_flight_max,
            backoff_first_s=settings.backoff_first_s,
            backoff_max_s=settings.backoff_max_s,
            retry_budget_s=settings.retry_budget_s,
        )
        queues = wired_queues(world, process, role)
        delivery = Delivery(
            role, queues, self._directory, self._dead_letters, process.clock, self.telemetry, limits, self._rng
        )
        self.deliveries.append(delivery)
        return delivery


async def _always_ready() -> list[str]:
    return []


def wire(world: World, process: Process, role: str) -> Wire:
    """A process's way to the engines. One for each role, so that the auditor knows which role made a call."""
    return Wire(world.network, process, role, world.settings.call_timeout_s)


def wired_queues(world: World, process: Process, role: str) -> WiredQueues:
    """SQS by such a way."""
    return WiredQueues(world.queues, wire(world, process, role), world.evidence)


def wired_table(world: World, process: Process, role: str) -> WiredTable:
    """DynamoDB by such a way."""
    return WiredTable(world.table, wire(world, process, role), world.evidence, world.faults)


async def live(world: World, process: Process) -> None:
    """One process's life, from its first call to the end of its drain. Raises what ended it."""
    telemetry = Telemetry()
    directory = Directory(
        wired_queues(world, process, "directory"), process.clock, ttl_s=world.settings.destination_cache_s
    )
    layout = await wired_table(world, process, "start").layout()
    assert layout is not None
    inbound = await directory.resolve(world.settings.inbound_queue)
    innards = Innards(world, process, telemetry, directory, layout, inbound.url)
    world.opened(process, innards)
    tasks = [asyncio.ensure_future(part) for part in innards.work(process.stopping)]
    watch = asyncio.ensure_future(process.stopping.wait())
    await asyncio.wait([watch, *tasks], return_when=asyncio.FIRST_COMPLETED)
    # Either it was told to stop, or one part ended by an error: then the others drain too.
    process.stopping.set()
    await asyncio.wait([watch, *tasks])
    for task in tasks:
        task.result()
