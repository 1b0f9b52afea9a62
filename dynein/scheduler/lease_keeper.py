"""The lease keeper: takes, renews and releases leases, so that this process owns its fair share of the shards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar

from dynein.core.shard_records import ShardRecord, ShardRecords
from dynein.errors import FatalError
from dynein.fleet.membership import Membership
from dynein.fleet.staleness import ShardsSeen, Staleness, leases_of, shards_seen
from dynein.observability.events.scheduler import LEASE_CALL_FAILED, LEASE_LOST, LEASE_RELEASED, LEASE_TAKEN
from dynein.runtime.context import Context
from dynein.runtime.tasks import all_of, within
from dynein.scheduler.lease import Lease, LeaseState, LeaseTimes
from dynein.scheduler.lease_assignment import PollSchedule, plan, takeable
from dynein.settings import Settings

CALLS_MAX = 32
"""Calls for leases under way at once."""

ResultT = TypeVar("ResultT")


class ShardWork(Protocol):
    """What is done with a shard while it is ours."""

    def retire_before(self) -> int:
        """The bucket before which all are finished with."""

    def renewed(self) -> None:
        """The lease was renewed: its record may have changed."""

    def close(self) -> None:
        """Stop: nothing is read or sent from now on."""

    def settled(self, send_timeout_s: float) -> bool:
        """Once closed: have all calls that were under way ended?"""


class LeaseKeeper:
    """One process's leases. ``open_work`` is called for each lease taken."""

    def __init__(
        self,
        shards: ShardRecords,
        membership: Membership,
        context: Context,
        settings: Settings,
        open_work: Callable[[Lease], ShardWork],
    ) -> None:
        self._shards = shards
        self._membership = membership
        self._context = context
        self._settings = settings
        self._times = LeaseTimes(settings)
        self._open_work = open_work
        self._leases: dict[int, tuple[Lease, ShardWork]] = {}
        self._own_fences: dict[int, int] = {}
        """The fence of the last try to take each shard; see `takeable`."""
        self._staleness: Staleness[int] = Staleness()
        self._polls = PollSchedule()
        self.seen = ShardsSeen(0, 0)
        """As of the last poll of all shards; none before the first."""
        self._calls = asyncio.Semaphore(CALLS_MAX)

    @property
    def held(self) -> list[int]:
        """Shards that may be sent for now, or after their next renewal."""
        return [shard for shard, (lease, _) in self._leases.items() if lease.state is LeaseState.HELD]

    def owns(self, shard: int) -> bool:
        """May this shard be sent for now?"""
        lease, _ = self._leases.get(shard, (None, None))
        return lease is not None and lease.state is LeaseState.HELD and lease.valid()

    @property
    def owning(self) -> bool:
        """Is there any shard left that others cannot have?"""
        return any(lease.state is not LeaseState.LOST for lease, _ in self._leases.values())

    async def run_once(self) -> float:
        """Renew, release, take; returns the seconds until the next pass. Raises only `FatalError`."""
        clock, tick_s = self._context.clock, self._settings.tick_s
        started = clock.monotonic()
        await self._renew_all(started)
        await self._settle()
        if self._polls.is_due(started, self._membership.live, tick_s):
            await self._rebalance()
        self._context.telemetry.leases.set(len(self.held))
        return max(0.0, started + self._polls.pause_s(tick_s) - clock.monotonic())

    async def hand_over(self, poll_s: float) -> None:
        """Stop all work; release each shard as soon as no call of it is under way, and renew it until then."""
        for lease, work in self._leases.values():
            self._close(lease, work)
        while self.owning:
            await self._settle()
            if self.owning:
                await self._context.clock.sleep(poll_s)
                await self._renew_all(self._context.clock.monotonic())
        self._context.telemetry.leases.set(0)

    # --- renewing ---------------------------------------------------------------------------------------------------

    async def _renew_all(self, now: float) -> None:
        due = [
            lease
            for lease, _ in self._leases.values()
            if lease.state is not LeaseState.LOST and now - lease.renewed_at >= self._settings.tick_s * 0.9
        ]
        due.sort(key=lambda lease: (lease.valid_until, lease.shard))
        await all_of([self._guarded("renewing a lease", partial(self.renew, lease)) for lease in due])

    async def renew(self, lease: Lease, *, read_on: bool = True) -> None:
        """Renew one lease now. Raises what the store does; a lost race is noted, not raised.

        ``read_on``: raise the read mark too. Once a tick, or the mark would not have stood long enough (`Lease`).
        """
        shard = lease.shard
        if lease.renewing or self._leases.get(shard, (None,))[0] is not lease or lease.state is LeaseState.LOST:
            return
        clock, work = self._context.clock, self._leases[shard][1]
        lease.renewing = True
        try:
            started = clock.monotonic()
            mine = lease.record
            read_mark_ms, retired_before = mine.read_mark_ms, mine.retired_before
            settled_mark_ms = lease.next_readable_ms if read_on else lease.readable_ms
            if lease.state is LeaseState.HELD:
                if read_on:
                    read_mark_ms = max(read_mark_ms, clock.now_ms() + int(self._settings.read_ahead_s * 1000))
                retired_before = work.retire_before()
            call = self._shards.renew(
                mine, read_mark_ms=read_mark_ms, settled_mark_ms=settled_mark_ms, retired_before=retired_before
            )
            renewed = await self._in_time(call)
        finally:
            lease.renewing = False
        if renewed is None:
            self._lose(lease, work)
            return
        lease.renewed(renewed, started, self._times.trust_s, tick=read_on)
        if lease.state is LeaseState.HELD:
            work.renewed()

    def _lose(self, lease: Lease, work: ShardWork) -> None:
        LEASE_LOST.log(shard=lease.shard, fence=lease.record.fence)
        lease.become(LeaseState.LOST)
        self._polls.hurry()
        self._context.telemetry.lease_events.labels("lost").inc()
        work.close()

    # --- releasing --------------------------------------------------------------------------------------------------

    def _close(self, lease: Lease, work: ShardWork) -> None:
        if lease.state is LeaseState.HELD:
            lease.become(LeaseState.CLOSING)
            work.close()

    async def _settle(self) -> None:
        """Release what was closed, forget what was lost, once no call of it is under way any more."""
        settled = [
            lease
            for lease, work in self._leases.values()
            if lease.state is not LeaseState.HELD and not lease.renewing and work.settled(self._times.send_timeout_s)
        ]
        closing = [lease for lease in settled if lease.state is LeaseState.CLOSING]
        for lease in settled:
            if lease.state is LeaseState.LOST:
                del self._leases[lease.shard]
        await all_of([self._guarded("releasing a lease", partial(self._release, lease)) for lease in closing])

    async def _release(self, lease: Lease) -> None:
        released = await self._in_time(self._shards.release(lease.record))
        lease.become(LeaseState.RELEASED if released else LeaseState.LOST)
        del self._leases[lease.shard]
        self._context.telemetry.lease_events.labels(lease.state.value).inc()
        (LEASE_RELEASED if released else LEASE_LOST).log(shard=lease.shard, fence=lease.record.fence)

    # --- taking -----------------------------------------------------------------------------------------------------

    async def _rebalance(self) -> None:
        """Read all records and act on them at once: a plan is only as good as its view is fresh."""
        live = list(self._membership.live)
        records = await self._guarded("reading the shard records", self._poll)
        if not records:
            return
        now, lease_ttl_s, me = self._context.clock.monotonic(), self._settings.lease_ttl_s, self._membership.member
        self._staleness.observe(leases_of(records), now)
        self.seen = shards_seen(records, self._staleness, now=now, lease_ttl_s=lease_ttl_s)
        free = takeable(
            records,
            self._staleness,
            now=now,
            lease_ttl_s=lease_ttl_s,
            me=me,
            own_fences=self._own_fences,
            blocked=self._leases,
        )
        wanted = plan(me, live, records, mine=self.held, free=free)
        self._polls.polled(now, live, fast=wanted.lacking > 0 or bool(wanted.release) or bool(free))
        for shard in wanted.release:
            self._close(*self._leases[shard])
        await all_of([self._guarded("taking a lease", partial(self._take, record)) for record in wanted.take])
        await self._settle()

    async def _poll(self) -> list[ShardRecord]:
        return await self._in_time(self._shards.all())

    async def _take(self, seen: ShardRecord) -> None:
        started = self._context.clock.monotonic()
        # Noted before the call: if its response is lost, the record may name us as the owner of a shard that we do not
        # know to be ours.
        self._own_fences[seen.shard] = seen.fence + 1
        taken = await self._in_time(self._shards.take(seen, self._membership.member))
        if taken is None:
            self._own_fences.pop(seen.shard, None)
            return
        lease = Lease(taken, started + self._times.trust_s, self._context.clock)
        self._leases[seen.shard] = (lease, self._open_work(lease))
        self._context.telemetry.lease_events.labels("taken").inc()
        LEASE_TAKEN.log(shard=taken.shard, fence=taken.fence, member=self._membership.member)
        await self.renew(lease)

    # --- calls ------------------------------------------------------------------------------------------------------

    async def _guarded(self, what: str, act: Callable[[], Awaitable[ResultT]]) -> ResultT | None:
        """The result of ``act``, or ``None`` once its error is logged.

        Nothing but `FatalError` may end a pass: the next shard's renewal must not wait for a backoff.
        """
        try:
            async with self._calls:
                return await act()
        except FatalError:
            raise
        except Exception as error:  # noqa: BLE001 - see above
            LEASE_CALL_FAILED.log(error, what=what)
            return None

    async def _in_time(self, call: Awaitable[ResultT]) -> ResultT:
        """Await a call that may be repeated, but not for longer than leaves time to repeat it."""
        return await within(self._times.renew_timeout_s, self._context.clock, call)
