"""The dispatcher: ties lease keeper, readers and sender together, and ends them in order."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, NamedTuple

from dynein.core.ports import Deployment, Ports
from dynein.delivery.dead_letter_queue import DeadLetterQueue
from dynein.delivery.delivery import Delivery
from dynein.errors import DyneinError
from dynein.fleet.membership import Membership
from dynein.fleet.staleness import ShardsSeen
from dynein.observability.events.process import DRAIN_LATE, ROSTER_NOT_LEFT
from dynein.runtime.context import Context
from dynein.runtime.periodic import run_periodically
from dynein.scheduler.lag import export
from dynein.scheduler.leases import Lease, LeaseKeeper, LeaseTimes, ShardWork
from dynein.scheduler.memory_budget import MemoryBudget
from dynein.scheduler.read_plan import ReadPlan
from dynein.scheduler.read_pool import ReadPool
from dynein.scheduler.sender import Backoff, Sender
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
        store, shards, bucket_width_ms = ports.triggers, ports.shards, deployment.layout.bucket_width_ms
        clock, telemetry, rng, tally = context.clock, context.telemetry, context.rng, context.tally
        self._store = store
        self._membership = membership
        self._delivery = delivery
        self._clock = clock
        self._telemetry = telemetry
        self._rng = rng
        self._drain_s = settings.drain_s
        self._new_plan = partial(
            ReadPlan,
            bucket_width_ms=bucket_width_ms,
            read_ahead_ms=int(settings.read_ahead_s * 1000),
            retire_grace_ms=int(settings.retire_grace_s * 1000),
        )
        self._memory = MemoryBudget(settings.read_ahead_jobs_max, settings.page_jobs_max)
        backoff = Backoff(settings.backoff_first_s, settings.backoff_max_s)
        self._sender = Sender(
            store,
            delivery,
            dead_letters,
            clock,
            telemetry,
            self._memory,
            backoff,
            rng,
            has_drained=self._read_for,
            tally=tally,
        )
        self._readers: dict[int, ShardReader] = {}
        self._pool = ReadPool(self._memory, self._retire_at_once)
        times = LeaseTimes(settings.lease_ttl_s, settings.tick_s, settings.call_timeout_s, settings.read_ahead_s)
        self._keeper = LeaseKeeper(
            shards, membership.member, lambda: membership.live, clock, telemetry, times, self._open_work
        )
        self._joined = asyncio.Event()

    # --- what is going on -------------------------------------------------------------------------------------------

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
        """All shards, as of the last look at their records."""
        return self._keeper.seen

    # --- the agent --------------------------------------------------------------------------------------------------

    async def run(self, stopping: asyncio.Event) -> None:
        """Dispatch until ``stopping`` is set, then buffer over within ``drain_s``.

        Raises `FatalError` when an operator has to act. Cancelling it is a crash: everything ends at once, and the
        leases stay until others see that they are stale.
        """
        tasks = [
            _start(run_periodically("membership", self._join, self._clock, stopping, self._rng), "membership"),
            _start(self._keep_leases(stopping), "lease keeper"),
        ]
        workers = [_start(self._pool.run(), f"reader {i}") for i in range(READS_MAX)]
        workers.append(_start(self._sender.run(), "sender"))
        stopped = _start(stopping.wait(), "stopping")
        try:
            await _until(stopped, tasks + workers)
            # The agents end by themselves after the pass they are in: a take cut short would leave a lease to expire.
            await self._within(self._drain(tasks, workers), self._drain_s)
        finally:
            self._sender.kill()
            for reader in list(self._readers.values()):
                reader.close()
            self._measure()
            await _cancel([stopped, *tasks, *workers])

    async def _join(self) -> float:
        wait_s = await self._membership.run_once()
        self._joined.set()
        return wait_s

    async def _keep_leases(self, stopping: asyncio.Event) -> None:
        # Not before we know who else is there: we would take every shard, only to give most of them up.
        joined = _start(self._joined.wait(), "joined")
        stopped = _start(stopping.wait(), "stopped")
        try:
            await asyncio.wait((joined, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            joined.cancel()
            stopped.cancel()
        await run_periodically("lease keeper", self._pass, self._clock, stopping, self._rng)

    async def _pass(self) -> float:
        wait_s = await self._keeper.run_once()
        self._sender.evict_slow()
        self._measure()
        return wait_s

    def _measure(self) -> None:
        now_ms = self._clock.now_ms()
        self._telemetry.read_ahead.set(self._jobs_buffered())
        export([reader.lag(now_ms) for reader in self._readers.values()], now_ms, self._telemetry)

    async def _drain(self, tasks: list[asyncio.Task[Any]], workers: list[asyncio.Task[Any]]) -> None:
        """Leave first, so that the others' shares have grown by the time the shards are released."""
        await _all(tasks)
        self._delivery.stop()
        try:
            await self._membership.leave()
        except DyneinError as error:
            ROSTER_NOT_LEFT.log(error, role="dispatcher")
        handing_over = _start(self._keeper.hand_over(_HAND_OVER_POLL_S), "handing over")
        try:
            await _until(handing_over, workers)
        finally:
            await _cancel([handing_over])

    async def _within(self, coroutine: Coroutine[Any, Any, None], seconds: float) -> None:
        draining = _start(coroutine, "draining")
        sleeping = _start(self._clock.sleep(seconds), "drain limit")
        try:
            await asyncio.wait((draining, sleeping), return_when=asyncio.FIRST_COMPLETED)
            if draining.done():
                draining.result()
            else:
                DRAIN_LATE.log(role="dispatcher", within_s=seconds)
        finally:
            await _cancel([draining, sleeping])

    # --- shards -----------------------------------------------------------------------------------------------------

    def _open_work(self, lease: Lease) -> ShardWork:
        reader = ShardReader(
            lease,
            self._new_plan(lease.record, lease.settled_late_writes),
            self._store,
            self._sender,
            self._memory,
            self._clock,
            schedule=self._pool.schedule,
            ended=self._forget,
        )
        self._readers[lease.shard] = reader
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


def _start(coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(coroutine, name=name)


async def _until(end: asyncio.Task[Any], others: list[asyncio.Task[Any]]) -> None:
    """Return once ``end`` is done; raise at once if it or one of ``others`` fails."""
    waiting = [end, *others]
    while not end.done():
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            if task.done():
                task.result()
        waiting = [task for task in waiting if not task.done()]
    end.result()


async def _all(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        await task


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
