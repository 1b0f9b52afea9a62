"""The lease keeper: owns this process's fair share of the shards, for as long as it can prove that it does.

A lease is trusted until ``lease_ttl_s`` after the *start* of its last renewal that was answered, less the time that a
send may take and a margin: another dispatcher cannot have taken the shard before that, since it counts the same time
from when it *saw* that renewal. When the answer does not come in time, nothing is sent, but the lease is not thrown
away: as long as nobody has taken it, the next renewal that goes through proves that nobody did, and work goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum, auto
from typing import NamedTuple, Protocol, TypeVar

from dynein.core.shard_records import ShardRecord, ShardRecords
from dynein.errors import FatalError, Unavailable
from dynein.fleet.staleness import ShardsSeen, Staleness, leases_of, shards_seen
from dynein.observability.events.scheduler import LEASE_CALL_FAILED, LEASE_LOST, LEASE_RELEASED, LEASE_TAKEN
from dynein.observability.telemetry import Telemetry
from dynein.runtime.clock import Clock
from dynein.scheduler.lease_assignment import plan, takeable

CALLS_MAX = 32
"""Calls for leases under way at once."""
_POLL_EVERY_TICKS = 2
_MARGIN_MAX_S = 0.5
_NONE_SETTLED = -1
"""No count of late writes: none has stood a tick yet."""

ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")


class LeaseTimes(NamedTuple):
    """The settings that leases go by, seconds."""

    lease_ttl_s: float
    tick_s: float
    call_timeout_s: float
    read_ahead_s: float

    @property
    def margin_s(self) -> float:
        """For clocks that do not run at quite the same rate, and for a busy event loop between check and send."""
        return min(_MARGIN_MAX_S, self.tick_s / 2)

    @property
    def send_timeout_s(self) -> float:
        """A try that began this long ago is over, one way or the other."""
        return self.call_timeout_s + self.margin_s

    @property
    def trust_s(self) -> float:
        """How long after the start of a renewal a try may begin."""
        return self.lease_ttl_s - self.send_timeout_s

    @property
    def renew_timeout_s(self) -> float:
        """A renewal unanswered for this long is repeated, while there is still time to."""
        return min(self.call_timeout_s, max(self.tick_s, self.trust_s / 3))


class _State(Enum):
    HELD = auto()
    CLOSING = auto()
    """To be released once everything on its way is over; renewed until then."""
    LOST = auto()
    """Somebody else's. Remembered until everything on its way is over, and not taken back before."""


class ShardWork(Protocol):
    """What is done with a shard while it is ours."""

    def retire_before(self) -> int:
        """The bucket before which all are finished with."""

    def renewed(self) -> None:
        """The lease was renewed: its record may say something new."""

    def close(self) -> None:
        """Stop: nothing is read or sent from now on."""

    def settled(self, send_timeout_s: float) -> bool:
        """Once closed: is everything that was on its way over?"""


class Lease:
    """One shard that is ours, as far as we know."""

    def __init__(self, record: ShardRecord, valid_until: float, clock: Clock) -> None:
        self.record = record
        self.readable_ms = record.settled_mark_ms
        """Triggers due up to this may be read: a read mark that had stood a tick when this owner last renewed or,
        until it has for a tick, when the former owner did.

        A cancel is a transaction that checked the mark, and DynamoDB isolates a Query from transactions item by item
        only ("read-committed"; Developer Guide, "DynamoDB transactions: how it works"). A read right after the mark was
        raised might still show the trigger of a cancel that is being committed.
        """
        self.stood_ms = record.settled_mark_ms
        """What `readable_ms` will be once the next tick's renewal goes through: the mark that the last one left."""
        self.settled_late_writes = self._late_writes = _NONE_SETTLED
        """A count of late writes that has stood a tick too.

        A job moved behind the read mark is counted by the transaction that moves it, so a read right after the count
        was raised might not show its trigger yet. Nor does the count that was there when the lease was taken say how
        long it had been.
        """
        self.valid_until = valid_until
        self.renewed_at = float("-inf")
        self.renewing = False
        self.state = _State.HELD
        self._clock = clock

    @property
    def shard(self) -> int:
        """Which shard."""
        return self.record.shard

    def tick(self, renewed: ShardRecord, started: float) -> None:
        """A tick's renewal went through: what the one before it left has stood for a tick."""
        self.readable_ms, self.stood_ms = self.stood_ms, renewed.read_mark_ms
        self.settled_late_writes, self._late_writes = self._late_writes, renewed.late_writes
        self.renewed_at = started  # a renewal in between must not put off the tick that raises the mark

    def valid(self) -> bool:
        """May a send begin now?"""
        return self.state is not _State.LOST and self._clock.monotonic() < self.valid_until


class LeaseKeeper:
    """Takes, renews and releases. ``open_work`` is called for each lease taken, ``live`` for the live members."""

    def __init__(
        self,
        shards: ShardRecords,
        me: str,
        live: Callable[[], Sequence[str]],
        clock: Clock,
        telemetry: Telemetry,
        times: LeaseTimes,
        open_work: Callable[[Lease], ShardWork],
    ) -> None:
        self._shards = shards
        self._me = me
        self._live = live
        self._clock = clock
        self._telemetry = telemetry
        self._times = times
        self._open_work = open_work
        self._leases: dict[int, tuple[Lease, ShardWork]] = {}
        self._own_fences: dict[int, int] = {}
        self._staleness: Staleness[int] = Staleness()
        self.seen = ShardsSeen(0, 0)
        """At the last look at all shards; none before the first."""
        self._polled_at = float("-inf")
        self._polled_for: list[str] = []
        self._poll_fast = True
        self._calls = asyncio.Semaphore(CALLS_MAX)

    @property
    def held(self) -> list[int]:
        """Shards that something may be sent for now, or will be at their next renewal."""
        return [shard for shard, (lease, _) in self._leases.items() if lease.state is _State.HELD]

    def owns(self, shard: int) -> bool:
        """May something be sent for this shard now?"""
        lease, _ = self._leases.get(shard, (None, None))
        return lease is not None and lease.state is _State.HELD and lease.valid()

    @property
    def owning(self) -> bool:
        """Is there any shard left that others cannot have?"""
        return any(lease.state is not _State.LOST for lease, _ in self._leases.values())

    async def run_once(self) -> float:
        """Renew, release, take; returns the seconds until the next pass. Raises only `FatalError`."""
        started = self._clock.monotonic()
        await self._renew_all(started)
        await self._settle()
        if self._poll_is_due(started):
            await self._rebalance()
        self._telemetry.leases.set(len(self.held))
        pass_s = self._times.tick_s / 2 if self._poll_fast else self._times.tick_s
        return max(0.0, started + pass_s - self._clock.monotonic())

    async def hand_over(self, poll_s: float) -> None:
        """Stop all work, keep renewing while something is on its way, release every shard as soon as it is free."""
        for lease, work in self._leases.values():
            self._close(lease, work)
        while self.owning:
            await self._settle()
            if self.owning:
                await self._clock.sleep(poll_s)
                await self._renew_all(self._clock.monotonic())
        self._telemetry.leases.set(0)

    # --- renewing ---------------------------------------------------------------------------------------------------

    async def _renew_all(self, now: float) -> None:
        due = [
            lease
            for lease, _ in self._leases.values()
            if lease.state is not _State.LOST and now - lease.renewed_at >= self._times.tick_s * 0.9
        ]
        due.sort(key=lambda lease: (lease.valid_until, lease.shard))
        await self._together([self._guarded("renewing a lease", self.renew, lease) for lease in due])

    async def renew(self, lease: Lease, *, read_on: bool = True) -> None:
        """Renew one lease now. Raises what the store does; a lost race is noted, not raised.

        ``read_on``: raise the read mark too. Once a tick, or the mark would not have stood long enough (`Lease`).
        """
        shard = lease.shard
        if lease.renewing or self._leases.get(shard, (None,))[0] is not lease or lease.state is _State.LOST:
            return
        work = self._leases[shard][1]
        lease.renewing = True
        try:
            started = self._clock.monotonic()
            mine = lease.record
            read_mark_ms, retired_before = mine.read_mark_ms, mine.retired_before
            settled_mark_ms = lease.stood_ms if read_on else lease.readable_ms
            if lease.state is _State.HELD:
                if read_on:
                    read_mark_ms = max(read_mark_ms, self._clock.now_ms() + int(self._times.read_ahead_s * 1000))
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
        if read_on:
            lease.tick(renewed, started)
        lease.record = renewed
        lease.valid_until = started + self._times.trust_s
        if lease.state is _State.HELD:
            work.renewed()

    def _lose(self, lease: Lease, work: ShardWork) -> None:
        LEASE_LOST.log(shard=lease.shard, fence=lease.record.fence)
        lease.state = _State.LOST
        self._poll_fast = True
        self._telemetry.lease_events.labels("lost").inc()
        work.close()

    # --- releasing --------------------------------------------------------------------------------------------------

    def _close(self, lease: Lease, work: ShardWork) -> None:
        if lease.state is _State.HELD:
            lease.state = _State.CLOSING
            work.close()

    async def _settle(self) -> None:
        """Release what was closed, forget what was lost, once nothing of it is on its way any more."""
        settled = [
            (lease, work)
            for lease, work in self._leases.values()
            if lease.state is not _State.HELD and not lease.renewing and work.settled(self._times.send_timeout_s)
        ]
        for lease, _ in settled:
            if lease.state is _State.LOST:
                del self._leases[lease.shard]
        await self._together(
            [
                self._guarded("releasing a lease", self._release, lease)
                for lease, _ in settled
                if lease.state is _State.CLOSING
            ]
        )

    async def _release(self, lease: Lease) -> None:
        released = await self._in_time(self._shards.release(lease.record))
        del self._leases[lease.shard]
        self._telemetry.lease_events.labels("released" if released else "lost").inc()
        (LEASE_RELEASED if released else LEASE_LOST).log(shard=lease.shard, fence=lease.record.fence)

    # --- taking -----------------------------------------------------------------------------------------------------

    def _poll_is_due(self, now: float) -> bool:
        return (
            self._poll_fast
            or list(self._live()) != self._polled_for
            or now - self._polled_at >= (_POLL_EVERY_TICKS - 0.5) * self._times.tick_s
        )

    async def _rebalance(self) -> None:
        """Look at all records and act on what they say at once: a plan is only as good as its view is fresh."""
        live = list(self._live())
        records: list[ShardRecord] = []
        await self._guarded("reading the shard records", self._poll, records)
        if not records:
            return
        now = self._clock.monotonic()
        self._polled_at, self._polled_for = now, live
        self._staleness.observe(leases_of(records), now)
        self.seen = shards_seen(records, self._staleness, now=now, lease_ttl_s=self._times.lease_ttl_s)
        free = takeable(
            records,
            self._staleness,
            now=now,
            lease_ttl_s=self._times.lease_ttl_s,
            me=self._me,
            own_fences=self._own_fences,
            blocked=self._leases,
        )
        wanted = plan(self._me, live, records, mine=self.held, free=free)
        # Looks come thick while something is about to change hands, so that it changes hands soon.
        self._poll_fast = wanted.lacking > 0 or bool(wanted.release) or bool(free)
        for shard in wanted.release:
            self._close(*self._leases[shard])
        await self._together([self._guarded("taking a lease", self._take, record) for record in wanted.take])
        await self._settle()

    async def _poll(self, into: list[ShardRecord]) -> None:
        into.extend(await self._in_time(self._shards.all()))

    async def _take(self, seen: ShardRecord) -> None:
        started = self._clock.monotonic()
        # Noted before the call: if its answer is lost, the record may say that we own a shard we know nothing of.
        self._own_fences[seen.shard] = seen.fence + 1
        taken = await self._in_time(self._shards.take(seen, self._me))
        if taken is None:
            self._own_fences.pop(seen.shard, None)
            return
        lease = Lease(taken, started + self._times.trust_s, self._clock)
        self._leases[seen.shard] = (lease, self._open_work(lease))
        self._telemetry.lease_events.labels("taken").inc()
        LEASE_TAKEN.log(shard=taken.shard, fence=taken.fence, member=self._me)
        await self.renew(lease)

    # --- calls ------------------------------------------------------------------------------------------------------

    async def _together(self, calls: Sequence[Awaitable[None]]) -> None:
        if not calls:
            return
        for result in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _guarded(self, what: str, act: Callable[[ArgumentT], Awaitable[None]], argument: ArgumentT) -> None:
        """Nothing but `FatalError` may end a pass: the next shard's renewal must not wait for a backoff."""
        try:
            async with self._calls:
                await act(argument)
        except FatalError:
            raise
        except Exception as error:  # noqa: BLE001 - see above
            LEASE_CALL_FAILED.log(error, what=what)

    async def _in_time(self, call: Awaitable[ResultT]) -> ResultT:
        """Await a call that may be repeated, but not for longer than leaves time to repeat it."""
        calling = asyncio.ensure_future(call)
        sleeping = asyncio.ensure_future(self._clock.sleep(self._times.renew_timeout_s))
        try:
            await asyncio.wait((calling, sleeping), return_when=asyncio.FIRST_COMPLETED)
            if not calling.done():
                raise Unavailable(f"no answer within {self._times.renew_timeout_s:.1f} s")
            return calling.result()
        finally:
            sleeping.cancel()
            calling.cancel()
