"""Which processes of a role are alive, as one of them sees it.

Every member writes a changing beat; an observer counts a member as alive while it sees that beat change, by its own
monotonic clock. So nobody compares wall clocks, and a frozen process drops out by itself. A member seen for the first
time counts as alive: joining takes effect at the next look, leaving cleanly too, dying after `ttl_s`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from dynein.core.trigger_store import Roster
from dynein.runtime.clock import Clock


class _Sighting(NamedTuple):
    beat: int
    at: float


class Liveness:
    """Pure: turns sightings of beats into the set of live members."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._sightings: dict[str, _Sighting] = {}

    def observe(self, beats: Mapping[str, int], now: float) -> None:
        """Take in what the roster said at ``now`` (monotonic seconds)."""
        seen = self._sightings
        self._sightings = {
            member: seen[member] if member in seen and seen[member].beat == beat else _Sighting(beat, now)
            for member, beat in beats.items()
        }

    def live(self, now: float) -> list[str]:
        """Members whose beat has changed within the last ``ttl_s`` seconds, sorted."""
        return sorted(member for member, sighting in self._sightings.items() if now - sighting.at < self._ttl_s)


class Membership:
    """One process's membership of one role."""

    def __init__(self, roster: Roster, clock: Clock, *, role: str, member: str, ttl_s: float) -> None:
        self._roster = roster
        self._clock = clock
        self._liveness = Liveness(ttl_s)
        self._beat = 0
        self.role = role
        self.member = member
        self.live: list[str] = [member]
        """Live members as of the last `run_once`, ourselves always among them."""
        self.interval_s = ttl_s / 4

    async def run_once(self) -> float:
        """Beat, look, and say in how many seconds to do so again."""
        self._beat += 1
        await self._roster.beat(self.role, self.member, self._beat)
        self._liveness.observe(await self._roster.members(self.role), self._clock.monotonic())
        self.live = sorted({self.member, *self._liveness.live(self._clock.monotonic())})
        return self.interval_s

    async def leave(self) -> None:
        """Stop counting, at once."""
        await self._roster.leave(self.role, self.member)
