"""Reads the fleet's ledger: one process of the fleet does, and exports what all have posted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dynein.core.ledger import Closing, Counts, LedgerStore, balance_of, windows_within
from dynein.core.shard_records import Roster
from dynein.fleet.staleness import Staleness
from dynein.ledger.export import LedgerMetrics, Reading
from dynein.runtime.context import Context
from dynein.settings import Settings

LOOK_BACK_MS = 86_400_000
_POSTED_BEFORE = 3
"""By so many posting intervals before its last heartbeat, a process has posted what it had counted."""
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
        self._interval_ms = round(settings.ledger_interval_s * 1000)
        self._member_ttl_s = settings.member_ttl_s
        self._staleness: dict[str, Staleness[str]] = {role: Staleness() for role in ROLES}

    async def run_once(self) -> float:
        """Read once, or withdraw; the seconds until the next time."""
        if self._is_observer():
            now_ms = self._clock.now_ms()
            windows = await self._store.read(*self._closing.closed(now_ms, LOOK_BACK_MS))
            ended = {role: await self._ended_undrained(role) for role in self._staleness}
            self._metrics.publish(self._reading(now_ms, windows, ended))
        else:
            self._metrics.withdraw()
        return self._interval_s

    def _reading(self, now_ms: int, windows: Mapping[int, Counts], ended: Mapping[str, Sequence[int]]) -> Reading:
        """Of the windows in which a process ended without draining it is uncertain what a gap means."""
        uncertain = {start_ms for times_ms in ended.values() for at_ms in times_ms for start_ms in self._touched(at_ms)}
        certain = [counts for start_ms, counts in windows.items() if start_ms not in uncertain]
        balance = balance_of(windows.values())
        gap_jobs = balance_of(certain).gap_jobs
        undrained = {role: sum(at_ms > now_ms - LOOK_BACK_MS for at_ms in times_ms) for role, times_ms in ended.items()}
        return Reading(now_ms, balance._replace(gap_jobs=gap_jobs), balance.gap_jobs - gap_jobs, undrained)

    def _touched(self, last_seen_ms: int) -> range:
        """The windows of the jobs that a process may have sent, on time, without posting that it did."""
        from_ms = last_seen_ms - _POSTED_BEFORE * self._interval_ms
        return windows_within(from_ms, last_seen_ms + round(2 * self._member_ttl_s * 1000), self._closing.window_ms)

    async def _ended_undrained(self, role: str) -> list[int]:
        """When each member with a stale heartbeat was last seen, ms. A new reader has seen none be stale yet."""
        heartbeats = await self._roster.members(role)
        staleness = self._staleness[role]
        staleness.observe(heartbeats, self._clock.monotonic())
        alive = set(staleness.changed_within(self._member_ttl_s, self._clock.monotonic()))
        if alive == heartbeats.keys():
            return []
        last_seen_ms = await self._roster.last_seen(role)
        return [last_seen_ms[member] for member in heartbeats if member not in alive and member in last_seen_ms]


def closing_by(settings: Settings) -> Closing:
    """When windows close, by the settings."""
    return Closing(settings.ledger_window_s * 1000, round(settings.ledger_grace_in_force_s * 1000))
