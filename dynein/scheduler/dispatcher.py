"""The dispatcher: ties lease keeper, readers, sender and remover together, and ends them in order."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, NamedTuple

from dynein.core.ports import Deployment, Ports
from dynein.delivery.dead_letter_queue import DeadLetterQueue
from dynein.delivery.delivery import Delivery
from dynein.errors import DyneinError, Unavailable
from dynein.fleet.membership import Membership
from dynein.fleet.staleness import ShardsSeen
from dynein.observability.events.process import DRAIN_LATE, ROSTER_NOT_LEFT
from dynein.runtime.context import Context
from dynein.runtime.periodic import run_periodically
from dynein.runtime.tasks import Tasks, all_ended, any_set, first_of, until, within
from dynein.scheduler.lag import export
from dynein.scheduler.lease import Lease
from dynein.scheduler.lease_keeper import LeaseKeeper, ShardWork
from dynein.scheduler.memory_budget import MemoryBudget
from dynein.scheduler.read_plan import ReadPlan
from dynein.scheduler.read_pool import ReadPool
from dynein.scheduler.remover import Remover
from dynein.scheduler.sender import Sender
from dynein.scheduler.shard_reader import ShardReader
from dynein.settings import Settings

READS_MAX = 8
"""Reads of the trigger store under way at once."""
_HAND_OVER_POLL_S = 0.05


class Snapshot(NamedTuple):
    """A dispatcher at one moment."""

    shards: list[int]
    """Shards it owns."""
    read_ahead_jobs: int
    """Triggers in memory."""
    overdue_jobs: int
    """Of these, due and not acknowledged yet."""
    full_queues: list[str]
    """Destinations of which due triggers stay in the store, for want of room in memory."""
    undecodable: int
    """Records met that are no triggers; see ``dynein audit``."""


class Dispatcher:
    """One process's dispatcher role. `run` is its whole life."""

    def __init__(
        self,
        ports: Ports,
        membership: Membership,
        delivery: Delivery,
        dead_letters: DeadLetterQueue,
        deployment: Deployment,
        context: Context,
        settings: Settings,
    ) -> None:
        self._membership = membership
        self._delivery = delivery
        self._context = context
        self._settings = settings
        memory = MemoryBudget(settings.read_ahead_jobs_max, settings.page_jobs_max)
        self._remover = Remover(
            ports.triggers,
            dead_letters,
            memory,
            context,
            settings,
            bucket_width_ms=deployment.layout.bucket_width_ms,
        )
        self._sender = Sender(delivery, self._remover, memory, context, has_drained=self._read_for)
        self._readers: dict[int, ShardReader] = {}
        self._pool = ReadPool(memory, self._retire_at_once)
        self._new_plan = partial(
            ReadPlan,
            bucket_width_ms=deployment.layout.bucket_width_ms,
            read_ahead_ms=int(settings.read_ahead_s * 1000),
            retire_grace_ms=int(settings.retire_grace_s * 1000),
        )
        self._open_reader = partial(
            ShardReader,
            store=ports.triggers,
            sender=self._sender,
            memory=memory,
            clock=context.clock,
            schedule=self._pool.schedule,
            ended=self._forget,
        )
        self._keeper = LeaseKeeper(ports.shards, membership, context, settings, self._open_work)

    # --- its state --------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The state to show."""
        readers = self._readers.values()
        return Snapshot(
            shards=sorted(self._keeper.held),
            read_ahead_jobs=self._jobs_buffered(),
            overdue_jobs=self._sender.overdue(),
            full_queues=sorted({queue for reader in readers for queue in reader.buffer.evicted}),
            undecodable=sum(len(reader.reported) for reader in readers),
        )

    def owns(self, shard: int) -> bool:
        """Is the shard this process's now?"""
        return self._keeper.owns(shard)

    def shards_seen(self) -> ShardsSeen:
        """All shards, as of the last poll of their records."""
        return self._keeper.seen

    # --- the agent --------------------------------------------------------------------------------------------------

    async def run(self, stopping: asyncio.Event) -> None:
        """Dispatch until ``stopping`` is set, then hand the shards over within ``drain_s``.

        Raises `FatalError` when an operator has to act. Cancelling it is a crash: everything ends at once, and the
        leases stay until others see that they are stale.
        """
        tasks = Tasks()
        joined = asyncio.Event()
        agents = [tasks.start(self._be_member(joined, stopping)), tasks.start(self._keep_leases(joined, stopping))]
        for _ in range(READS_MAX):
            tasks.start(self._pool.run())
        tasks.start(self._sender.run())
        tasks.start(self._remover.run())
        try:
            await first_of(tasks.start(stopping.wait()), tasks.failure)
            # The agents end by themselves after the pass they are in: a take cut short would leave a lease to expire.
            draining = until(tasks.start(self._drain(agents)), [tasks.failure])
            try:
                await within(self._settings.drain_s, self._context.clock, draining)
            except Unavailable:
                DRAIN_LATE.log(role="dispatcher", within_s=self._settings.drain_s)
        finally:
            self._remover.kill()
            for reader in list(self._readers.values()):
                reader.close()
            self._measure()
            await tasks.cancel_all()

    async def _be_member(self, joined: asyncio.Event, stopping: asyncio.Event) -> None:
        async def run_once() -> float:
            wait_s = await self._membership.run_once()
            joined.set()
            return wait_s

        await run_periodically("membership", run_once, self._context.clock, stopping, self._context.rng)

    async def _keep_leases(self, joined: asyncio.Event, stopping: asyncio.Event) -> None:
        # Not before we know who else is there: we would take every shard, only to give most of them up.
        await any_set(joined, stopping)
        await run_periodically("lease keeper", self._pass, self._context.clock, stopping, self._context.rng)

    async def _pass(self) -> float:
        wait_s = await self._keeper.run_once()
        self._sender.evict_slow()
        self._measure()
        return wait_s

    def _measure(self) -> None:
        now_ms, telemetry = self._context.clock.now_ms(), self._context.telemetry
        telemetry.read_ahead.set(self._jobs_buffered())
        export([reader.lag(now_ms) for reader in self._readers.values()], now_ms, telemetry)

    async def _drain(self, agents: list[asyncio.Task[Any]]) -> None:
        """Leave the roster first, so that the others' shares have grown by the time the shards are released."""
        await all_ended(agents)
        self._delivery.stop()
        try:
            await self._membership.leave()
        except DyneinError as error:
            ROSTER_NOT_LEFT.log(error, role="dispatcher")
        await self._keeper.hand_over(_HAND_OVER_POLL_S)

    # --- shards -----------------------------------------------------------------------------------------------------

    def _open_work(self, lease: Lease) -> ShardWork:
        reader = self._readers[lease.shard] = self._open_reader(
            lease, self._new_plan(lease.record, lease.settled_late_writes)
        )
        return reader

    def _jobs_buffered(self) -> int:
        return sum(len(reader.buffer) for reader in self._readers.values())

    def _forget(self, reader: ShardReader) -> None:
        if self._readers.get(reader.lease.shard) is reader:
            del self._readers[reader.lease.shard]

    def _read_for(self, queue: str) -> None:
        for reader in self._readers.values():
            if queue in reader.buffer.evicted:
                reader.reread_evicted()

    async def _retire_at_once(self, reader: ShardReader) -> None:
        """Late writes kept moving between a bucket's empty read and the next tick: do not wait for the tick."""
        if reader.should_retire_at_once():
            await self._keeper.renew(reader.lease, read_on=False)
