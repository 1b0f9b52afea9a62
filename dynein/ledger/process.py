"""One process's part in the ledger, put together from its settings.

The ledger may never be in the way of a job: whatever fails here is logged and tried again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from dynein.aws.dynamodb.ledger import SLOTS, DynamoLedger
from dynein.core.ledger import NOT_KEPT, Closing, Tally
from dynein.core.trigger_store import Roster
from dynein.errors import Stop
from dynein.ledger.export import LedgerMetrics
from dynein.ledger.poster import LedgerBook, LedgerObserver
from dynein.observability.events.ledger import LEDGER_STOPPED
from dynein.observability.telemetry import Telemetry
from dynein.runtime.clock import Clock
from dynein.runtime.periodic import run_passes
from dynein.settings import Settings

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient

CLOSE_S = 2.0
"""Longest that the last postings may take, once everything else has drained."""
_STOPPED_PAUSE_S = 60.0


class ProcessLedger:
    """``tally`` is for the roles to count in; `kept` does the rest."""

    def __init__(
        self,
        settings: Settings,
        dynamodb: DynamoDBClient,
        roster: Roster,
        clock: Clock,
        telemetry: Telemetry,
        rng: random.Random,
    ) -> None:
        self._settings = settings
        self._roster = roster
        self._clock = clock
        self._rng = rng
        self._kept = settings.ledger_interval_s > 0
        self._closing = closing_by(settings)
        self._store = DynamoLedger(
            dynamodb, settings.table, clock, telemetry, self._closing.window_ms, slot=rng.randrange(SLOTS)
        )
        self._metrics = LedgerMetrics(clock, telemetry.workers_directory)
        telemetry.add_of_the_fleet(self._metrics)
        self.tally = Tally(self._closing.window_ms) if self._kept else NOT_KEPT

    @asynccontextmanager
    async def kept(self, *, is_observer: Callable[[], bool]) -> AsyncIterator[None]:
        """Keep the ledger while the body runs, then post the last counts, within `CLOSE_S`.

        ``is_observer``: is this process, of the whole fleet, the one to read it?
        """
        if not self._kept:
            yield
            return
        settings, clock = self._settings, self._clock
        book = LedgerBook(self.tally, self._store, clock, self._rng, interval_s=settings.ledger_interval_s)
        observer = LedgerObserver(
            self._store,
            self._roster,
            clock,
            self._metrics,
            self._closing,
            is_observer=is_observer,
            interval_s=2 * settings.ledger_interval_s,
            roles=("dispatcher", "ingester"),
            member_ttl_s=settings.member_ttl_s,
        )
        # Not ended when the process is told to stop: draining takes a while, and jobs are counted until its end.
        ended = asyncio.Event()
        tasks = [
            asyncio.ensure_future(run_passes(name, _unstoppable(name, run_once), clock, ended, self._rng))
            for name, run_once in (("ledger", book.run_once), ("ledger observer", observer.run_once))
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._metrics.withdraw()
            await book.close(CLOSE_S)


def closing_by(settings: Settings) -> Closing:
    """When windows close, by the settings."""
    return Closing(settings.ledger_window_s * 1000, round(settings.ledger_grace_in_force_s * 1000))


def _unstoppable(name: str, run_once: Callable[[], Awaitable[float]]) -> Callable[[], Awaitable[float]]:
    """What elsewhere ends a process, since it cannot do without (a table, a permission), must not end it for this."""

    async def pass_on() -> float:
        try:
            return await run_once()
        except Stop as error:
            LEDGER_STOPPED.log(error, what=name)
            return _STOPPED_PAUSE_S

    return pass_on
