"""Which processes of a role are alive, as one of them sees it.

Every member writes a changing heartbeat; an observer counts a member as alive while it sees that change
(`dynein.fleet.staleness`). A member seen for the first time counts as alive: joining and leaving take
effect at the next poll, dying after ``ttl_s`` seconds.
"""

from __future__ import annotations

from dynein.core.shard_records import Roster
from dynein.fleet.staleness import Staleness
from dynein.runtime.clock import Clock


class Membership:
    """One process's membership of one role."""

    def __init__(self, roster: Roster, clock: Clock, *, role: str, member: str, ttl_s: float) -> None:
        self._roster = roster
        self._clock = clock
        self._ttl_s = ttl_s
        self._staleness: Staleness[str] = Staleness()
        self._heartbeat = 0
        self.role = role
        self.member = member
        self.live: list[str] = [member]
        """Live members as of the last `run_once`, ourselves always among them."""
        self.interval_s = ttl_s / 4

    async def run_once(self) -> float:
        """Write a heartbeat, read the others', and return the seconds until the next pass."""
        self._heartbeat += 1
        await self._roster.heartbeat(self.role, self.member, self._heartbeat)
        self._staleness.observe(await self._roster.members(self.role), self._clock.monotonic())
        self.live = sorted({self.member, *self._staleness.changed_within(self._ttl_s, self._clock.monotonic())})
        return self.interval_s

    async def leave(self) -> None:
        """Leave the roster, at once."""
        await self._roster.leave(self.role, self.member)
