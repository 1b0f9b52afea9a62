"""The ledger's reader: one process of the fleet reads what all have posted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dynein.core.ledger import Closing, LedgerStore, balance_of
from dynein.core.shard_records import Roster
from dynein.fleet.staleness import Staleness
from dynein.ledger.export import LedgerMetrics, Reading
from dynein.runtime.clock import Clock

LOOK_BACK_MS = 86_400_000


class LedgerObserver:
    """Reads the closed windows and has them exported, while ``is_observer`` says that this is for us to do."""

    def __init__(
        self,
        store: LedgerStore,
        roster: Roster,
        clock: Clock,
        metrics: LedgerMetrics,
        closing: Closing,
        *,
        is_observer: Callable[[], bool],
        interval_s: float,
        roles: Sequence[str],
        member_ttl_s: float,
    ) -> None:
        self._store = store
        self._roster = roster
        self._clock = clock
        self._metrics = metrics
        self._closing = closing
        self._is_observer = is_observer
        self._interval_s = interval_s
        self._member_ttl_s = member_ttl_s
        self._staleness: dict[str, Staleness[str]] = {role: Staleness() for role in roles}

    async def run_once(self) -> float:
        """Read once, or withdraw; the seconds until the next time."""
        if self._is_observer():
            now_ms = self._clock.now_ms()
            windows = await self._store.read(*self._closing.closed(now_ms, LOOK_BACK_MS))
            undrained = {role: await self._undrained(role) for role in self._staleness}
            self._metrics.publish(Reading(now_ms, balance_of(windows.values()), undrained))
        else:
            self._metrics.withdraw()
        return self._interval_s

    async def _undrained(self, role: str) -> int:
        """Members whose heartbeat is stale. A new observer has seen none be stale yet."""
        heartbeats = await self._roster.members(role)
        staleness = self._staleness[role]
        staleness.observe(heartbeats, self._clock.monotonic())
        return len(heartbeats) - len(staleness.changed_within(self._member_ttl_s, self._clock.monotonic()))
