"""A job moved away and back while a dispatcher reads: it never returns to a key it has left, so that it is not lost."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from dynein.api.schemas import MoveRequest
from dynein.api.stored_jobs import StoredJobs
from dynein.core.ports import Ports
from dynein.observability.telemetry import Telemetry
from dynein.runtime.context import Context
from dynein.testing import FakeLedger
from tests.unit.scheduler.world import SIGNER, World


@pytest.mark.parametrize("reads", range(4))
async def test_a_job_moved_back_between_two_pages_is_delivered(make_world: Callable[..., World], reads: int) -> None:
    """A dispatcher has read the tombstone that the first move left, and not yet the page after it.

    With a page for each record, that is so before one of the ``reads`` after the mark has passed the job's first key.
    """
    world = make_world(shard_count=1, page_jobs_max=1)
    api = StoredJobs(
        Ports(world.queues, world.table, world.table, world.table, FakeLedger()),
        SIGNER,
        Context(world.clock, random.Random(1), Telemetry()),
        world.settings,
    )
    (p,) = world.start("p")
    await world.until_owned()
    trigger = await world.add(world.now_ms + 20_000, "away and back")
    left_ms = trigger.key.due_at_ms
    away = await api.move(trigger.token, MoveRequest(run_at=left_ms + 60_000))
    await world.clock.run_until(lambda: world.record().read_mark_ms >= left_ms)
    for _ in range(reads):
        gate = p.table_faults.hold_before_next("read")
        await world.clock.run_until(gate.reached.is_set)
        gate.open()
    gate = p.table_faults.hold_before_next("read")
    await world.clock.run_until(gate.reached.is_set)
    assert world.now_ms < left_ms, "it can still be moved back"
    back = await api.move(away.token, MoveRequest(run_at=left_ms))
    gate.open()
    await world.until_empty(within_s=30.0)
    assert world.bodies() == ["away and back"]
    assert world.landed[0].at_ms >= back.due_at_ms
