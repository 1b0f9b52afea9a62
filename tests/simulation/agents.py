"""The real roles, started in a simulated process as `dynein.service` starts them in a real one."""

from __future__ import annotations

import random

from dynein.api.submission import Submissions
from dynein.dead_letters import DeadLetterQueue
from dynein.delivery import Delivery, Limits
from dynein.directory import Directory
from dynein.ingest import Ingester
from dynein.membership import Membership
from dynein.runner import run_passes
from dynein.scheduler.dispatcher import Dispatcher
from dynein.telemetry import Telemetry
from tests.simulation.engines import WiredQueues, WiredTable
from tests.simulation.process import Process
from tests.simulation.world import World


async def run_role(world: World, process: Process, queues: WiredQueues, table: WiredTable) -> None:
    """One process's life, from its first call to the end of its drain."""
    settings, clock = world.settings, process.clock
    rng = random.Random(f"{world.scenario.seed} {process.name}")
    telemetry = Telemetry()
    directory = Directory(queues, clock, ttl_s=settings.destination_cache_s)
    dead_letters = DeadLetterQueue(queues, directory, settings.dead_letter_queue)
    if process.role == "api":
        await _run_api(world, process, queues, table, directory, telemetry, rng)
        return
    layout = await table.layout()
    assert layout is not None
    delivery = Delivery(process.role, queues, directory, dead_letters, clock, telemetry, limits_of(world), rng)
    membership = Membership(table, clock, role=process.role, member=process.name, ttl_s=settings.member_ttl_s)
    if process.role == "ingester":
        destination = await directory.resolve(settings.inbound_queue)
        ingester = Ingester(
            queues=queues,
            store=table,
            shards=table,
            delivery=delivery,
            dead_letters=dead_letters,
            membership=membership,
            clock=clock,
            telemetry=telemetry,
            settings=settings,
            rng=rng,
            inbound_url=destination.url,
            bucket_width_ms=layout.bucket_width_ms,
        )
        await ingester.run(process.stopping)
    else:
        dispatcher = Dispatcher(
            store=table,
            shards=table,
            membership=membership,
            delivery=delivery,
            dead_letters=dead_letters,
            clock=clock,
            telemetry=telemetry,
            settings=settings,
            rng=rng,
            bucket_width_ms=layout.bucket_width_ms,
        )
        await dispatcher.run(process.stopping)


async def _run_api(
    world: World,
    process: Process,
    queues: WiredQueues,
    table: WiredTable,
    directory: Directory,
    telemetry: Telemetry,
    rng: random.Random,
) -> None:
    settings, clock = world.settings, process.clock
    layout = await table.layout()
    assert layout is not None
    inbound = await directory.resolve(settings.inbound_queue)
    submissions = Submissions(
        queues,
        directory,
        table,
        table,
        world.signer,
        clock,
        telemetry,
        settings,
        layout=layout,
        inbound_url=inbound.url,
        rng=rng,
        random_bytes=rng.randbytes,
    )
    world.apis[process.name] = submissions
    await run_passes("layout", submissions.run_once, clock, process.stopping, rng)
    await submissions.drained()


def limits_of(world: World) -> Limits:
    """As `dynein.service` makes them."""
    settings = world.settings
    return Limits(
        message_bytes_max=settings.message_bytes_max,
        lane_waiting_max=settings.lane_waiting_max,
        lane_in_flight_max=settings.lane_in_flight_max,
        backoff_first_s=settings.backoff_first_s,
        backoff_max_s=settings.backoff_max_s,
        retry_budget_s=settings.retry_budget_s,
    )
