"""Reads the fleet's ledger: one process of the fleet does, and exports what all have posted."""

from __future__ import annotations

from collections.abc import Callable

from dynein.core.ledger import Closing, LedgerStore, balance_of
from dynein.core.shard_records import Roster
from dynein.fleet.staleness import Staleness
from dynein.ledger.export import LedgerMetrics, Reading
from dynein.runtime.context import Context
from dynein.settings import Settings

LOOK_BACK_MS = 86_400_000
ROLES = ("dispatcher", "ingester")
"""Those whose processes are in the roster."""


class LedgerReader:
    """Reads the closed windows and has them exported, while ``is_observer`` says that this process is the one to."""

    def __init__(
        self,
        store: LedgerStore,
        roster: Roster,
        metrics: LedgerMetrics,
        context: Context,
        settings: Settings,
        *,
        is_observer: Callable[[], bool],
    ) -> None:
        self._store = store
        self._roster = roster
        self._metrics = metrics
        self._clock = context.clock
        self._is_observer = is_observer
        self._closing = closing_by(settings)
        self._interval_s = 2 * settings.ledger_interval_s
        self._member_ttl_s = settings.member_ttl_s
        self._staleness: dict[str, Staleness[str]] = {role: Staleness() for role in ROLES}

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
        """Members whose heartbeat is stale. A new reader has seen none be stale yet."""
        heartbeats = await self._roster.members(role)
        staleness = self._staleness[role]
        staleness.observe(heartbeats, self._clock.monotonic())
        return len(heartbeats) - len(staleness.changed_within(self._member_ttl_s, self._clock.monotonic()))


def closing_by(settings: Settings) -> Closing:
    """When windows close, by the settings."""
    return Closing(settings.ledger_window_s * 1000, round(settings.ledger_grace_in_force_s * 1000))
