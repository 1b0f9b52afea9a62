"""One shard's lease: for how long it may be trusted, what may be read under it, and what becomes of it. No calls.

A lease is trusted until ``lease_ttl_s`` after the *start* of its last renewal that succeeded, less the time that a send
may take and a margin: another dispatcher cannot have taken the shard before that, since it counts the same time from
when it *saw* that renewal. When a renewal does not succeed in time, nothing is sent, but the lease is not given up: as
long as nobody has taken it, the next renewal that succeeds proves that nobody did, and work goes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

from dynein.core.shard_records import ShardRecord
from dynein.runtime.clock import Clock
from dynein.settings import Settings

_MARGIN_MAX_S = 0.5
_NONE_SETTLED = -1
"""No count of late writes: none has stood a tick yet."""


class LeaseTimes(NamedTuple):
    """What follows from the settings for how long a lease may be used, seconds."""

    settings: Settings

    @property
    def margin_s(self) -> float:
        """For clocks that do not run at quite the same rate, and for a busy event loop between check and send."""
        return min(_MARGIN_MAX_S, self.settings.tick_s / 2)

    @property
    def send_timeout_s(self) -> float:
        """A try that began this long ago is over, one way or the other."""
        return self.settings.call_timeout_s + self.margin_s

    @property
    def trust_s(self) -> float:
        """How long after the start of a renewal a try may begin."""
        return self.settings.lease_ttl_s - self.send_timeout_s

    @property
    def renew_timeout_s(self) -> float:
        """A renewal without a response for this long is repeated, while there is still time to."""
        return min(self.settings.call_timeout_s, max(self.settings.tick_s, self.trust_s / 3))


class LeaseState(Enum):
    """What we may do with a shard; `TRANSITIONS` is its life."""

    HELD = "held"
    """Ours: it is renewed, read and sent for."""
    CLOSING = "closing"
    """To be released once no call of it is under way; renewed until then, but nothing new is read or sent."""
    RELEASED = "released"
    """Given up: anyone may take it."""
    LOST = "lost"
    """Another dispatcher's. Remembered until no call of it is under way, and not taken back before."""


TRANSITIONS: Final[Mapping[LeaseState, frozenset[LeaseState]]] = {
    LeaseState.HELD: frozenset({LeaseState.CLOSING, LeaseState.LOST}),
    LeaseState.CLOSING: frozenset({LeaseState.RELEASED, LeaseState.LOST}),
    LeaseState.RELEASED: frozenset(),
    LeaseState.LOST: frozenset(),
}
"""What a lease may become. Both ends are final: a shard that is taken again has a new lease, under a new fence."""


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
        self.next_readable_ms = record.settled_mark_ms
        """What `readable_ms` will be once the next tick's renewal succeeds: the mark that the last one left."""
        self.settled_late_writes = self._late_writes = _NONE_SETTLED
        """A count of late writes that has stood a tick too.

        A job moved behind the read mark is counted by the transaction that moves it, so a read right after the count
        was raised might not show its trigger yet. Nor does the count that was there when the lease was taken show how
        long it had been.
        """
        self.valid_until = valid_until
        """Monotonic seconds: no send may begin later."""
        self.renewed_at = -math.inf
        """When the last tick's renewal began, monotonic seconds."""
        self.renewing = False
        """A renewal is under way."""
        self._state = LeaseState.HELD
        self._clock = clock

    @property
    def shard(self) -> int:
        """Which shard."""
        return self.record.shard

    @property
    def state(self) -> LeaseState:
        """Changed by `become` alone."""
        return self._state

    def valid(self) -> bool:
        """May a send begin now?"""
        return self._clock.monotonic() < self.valid_until

    def become(self, state: LeaseState) -> None:
        """Go on to another state. Raises, and changes nothing, if `TRANSITIONS` does not have it."""
        if state not in TRANSITIONS[self._state]:
            raise AssertionError(f"the lease of shard {self.shard} is {self._state.value}: not to become {state.value}")
        self._state = state
        if not TRANSITIONS[state]:
            self.valid_until = -math.inf

    def renewed(self, record: ShardRecord, started: float, trust_s: float, *, tick: bool) -> None:
        """A renewal that ``started`` then has succeeded and left ``record``. ``tick``: it was the one of this tick."""
        if tick:  # what the last tick's renewal left has stood for a tick
            self.readable_ms, self.next_readable_ms = self.next_readable_ms, record.read_mark_ms
            self.settled_late_writes, self._late_writes = self._late_writes, record.late_writes
            # Not by others: a renewal in between must not put off the tick that raises the mark.
            self.renewed_at = started
        self.record = record
        self.valid_until = started + trust_s
