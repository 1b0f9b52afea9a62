"""Bugs in when a lease begins and ends, as its owner and the others count, and in who should have how many shards."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

from dynein.fleet.membership import Membership
from dynein.fleet.staleness import Staleness, _Seen
from dynein.ingest.ingester import Ingester
from dynein.scheduler import lease_assignment, lease_keeper
from dynein.scheduler.lease import Lease, LeaseTimes
from dynein.scheduler.shard_buffer import BufferedTrigger, ShardBuffer
from dynein.scheduler.shard_reader import ShardReader
from tests.simulation.mutation import Mutation


def _from_the_response(original: Any) -> Any:
    def renewed(self: Lease, record: Any, started: float, trust_s: float, *, tick: bool) -> None:
        original(self, record, started, trust_s, tick=tick)
        self.valid_until = self._clock.monotonic() + trust_s

    return renewed


def _whole_ttl(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    return property(lambda self: self.settings.lease_ttl_s)


def _from_the_look_before(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    def observe(self: Staleness[Any], values: Mapping[Any, Hashable], now: float) -> None:
        looked_before = getattr(self, "looked_at", now)
        self.looked_at = now  # type: ignore[attr-defined]
        seen = self._seen
        self._seen = {
            key: before
            if (before := seen.get(key)) is not None and before.value == value
            else _Seen(value, looked_before)
            for key, value in values.items()
        }

    return observe


def _since_the_owner_changed(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    return lambda records: {record.shard: (record.owner, record.fence) for record in records}


def _long_ago(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    def unchanged_s(self: Staleness[Any], key: Any, now: float) -> float:
        seen = self._seen.get(key)
        return math.inf if seen is None else now - seen.since

    return unchanged_s


def _half_the_time(original: Any) -> Any:
    def takeable(*args: Any, lease_ttl_s: float, **kwargs: Any) -> Any:
        return original(*args, lease_ttl_s=lease_ttl_s / 2, **kwargs)

    return takeable


def _tried_when_read(original: Any) -> Any:
    def may_send(self: BufferedTrigger) -> bool:
        before = self.tried_at
        allowed: bool = original(self)
        self.tried_at = before
        return allowed

    return may_send


def _settled_in_half_the_time(original: Any) -> Any:
    def settled(self: ShardBuffer, now: float, send_timeout_s: float) -> bool:
        done: bool = original(self, now, send_timeout_s / 4)
        return done

    return settled


def _count_as_just_seen(original: Any) -> Any:
    def view(self: ShardReader) -> Any:
        return original(self)._replace(settled_late_writes=self.lease.record.late_writes)

    return view


def _settled_at_any_renewal(original: Any) -> Any:
    def renewed(self: Lease, record: Any, started: float, trust_s: float, *, tick: bool) -> None:  # noqa: ARG001
        original(self, record, started, trust_s, tick=True)

    return renewed


def _without_us(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    def fair_share(me: str, live: Any, held: Any, shard_count: int) -> int:  # noqa: ARG001 - as the original
        others = max(1, len([member for member in live if member != me]))
        floor, extras = divmod(shard_count, others)
        return floor + (sorted(live).index(me) < extras)

    return fair_share


def _rounded_down(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    return lambda me, live, held, shard_count: max(1, shard_count // len(live))  # noqa: ARG005


def _kept_are_not_counted(original: Any) -> Any:
    def plan(me: str, live: Any, records: Any, *, mine: Any, free: Any) -> Any:
        made = original(me, live, records, mine=mine, free=free)
        lacking = made.lacking + len(mine)
        return made._replace(take=sorted(free, key=lambda record: record.shard)[:lacking], lacking=lacking)

    return plan


def _one_too_few(original: Any) -> Any:
    def plan(me: str, live: Any, records: Any, *, mine: Any, free: Any) -> Any:
        made = original(me, live, records, mine=mine, free=free)
        return made._replace(take=made.take[: max(0, made.lacking - 1)])

    return plan


def _rate_of_the_fleet(original: Any) -> Any:
    async def share_once(self: Ingester) -> float:
        wait_s: float = await original(self)
        self.admission.set_rate(self._settings.ingest_rate_per_s)
        return wait_s

    return share_once


def _only_the_others(original: Any) -> Any:
    async def run_once(self: Membership) -> float:
        wait_s: float = await original(self)
        if self.role == "ingester":
            self.live = [member for member in self.live if member != self.member] or [self.member]
        return wait_s

    return run_once


BUGS = (
    Mutation("trust a lease from the response to its renewal on", Lease, "renewed", _from_the_response),
    Mutation("trust a lease for all of its time", LeaseTimes, "trust_s", _whole_ttl),
    Mutation("an owner counts as seen since the look before", Staleness, "observe", _from_the_look_before),
    Mutation("renewals do not show that an owner is alive", lease_keeper, "leases_of", _since_the_owner_changed),
    Mutation("an owner never seen before counts as stale", Staleness, "unchanged_s", _long_ago),
    Mutation("a lease is over after half of its time", lease_keeper, "takeable", _half_the_time),
    Mutation("a send is taken for over from when it began to wait", BufferedTrigger, "may_send", _tried_when_read),
    Mutation("a send is taken for over in a quarter of its time", ShardBuffer, "settled", _settled_in_half_the_time),
    Mutation("a count of late writes has settled when it is seen", ShardReader, "_view", _count_as_just_seen),
    Mutation("a mark has settled at any renewal", Lease, "renewed", _settled_at_any_renewal),
    Mutation("a dispatcher does not count itself", lease_assignment, "fair_share", _without_us),
    Mutation("shares are rounded down", lease_assignment, "fair_share", _rounded_down),
    Mutation("what a dispatcher owns is not counted towards its share", lease_keeper, "plan", _kept_are_not_counted),
    Mutation("a dispatcher takes one shard too few", lease_keeper, "plan", _one_too_few),
    Mutation("every ingester takes the rate of the fleet", Ingester, "share_once", _rate_of_the_fleet),
    Mutation("an ingester does not count itself", Membership, "run_once", _only_the_others),
)
