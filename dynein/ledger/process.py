"""One process's part in the ledger, put together from its settings.

The ledger may never be in the way of a job: whatever fails here is logged and tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from dynein.core.ledger import NOT_KEPT, Closing, LedgerStore, Tally
from dynein.core.shard_records import Roster
from dynein.errors import FatalError
from dynein.ledger.export import LedgerMetrics
from dynein.ledger.poster import LedgerBook
from dynein.ledger.reader import LedgerObserver
from dynein.observability.events.ledger import LEDGER_STOPPED
from dynein.runtime.context import Context
from dynein.runtime.periodic import run_periodically
from dynein.settings import Settings

CLOSE_S = 2.0
"""Longest that the last postings may take, once everything else has drained."""
_STOPPED_PAUSE_S = 60.0


class ProcessLedger:
    """Posts what the roles count in ``context.tally``; reads the fleet's ledger if this process is the observer."""

    def __init__(self, store: LedgerStore, roster: Roster, context: Context, settings: Settings) -> None:
        self._store = store
        self._roster = roster
        self._context = context
        self._settings = settings
        self._closing = closing_by(settings)
        self._metrics = LedgerMetrics(context.clock, context.telemetry.workers_directory)
        context.telemetry.add_of_the_fleet(self._metrics)

    @asynccontextmanager
    async def kept(self, *, is_observer: Callable[[], bool]) -> AsyncIterator[None]:
        """Keep the ledger while the body runs, then post the last counts, within `CLOSE_S`.

        ``is_observer``: is this process, of the whole fleet, the one to read it?
        """
        if self._context.tally is NOT_KEPT:
            yield
            return
        settings, (clock, rng, _, tally) = self._settings, self._context
        book = LedgerBook(tally, self._store, clock, rng, interval_s=settings.ledger_interval_s)
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
            asyncio.ensure_future(run_periodically(name, _unstoppable(name, run_once), clock, ended, rng))
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


def tally_by(settings: Settings) -> Tally:
    """What a process counts in, if a ledger is to be kept."""
    return Tally(settings.ledger_window_s * 1000) if settings.ledger_interval_s > 0 else NOT_KEPT


def closing_by(settings: Settings) -> Closing:
    """When windows close, by the settings."""
    return Closing(settings.ledger_window_s * 1000, round(settings.ledger_grace_in_force_s * 1000))


def _unstoppable(name: str, run_once: Callable[[], Awaitable[float]]) -> Callable[[], Awaitable[float]]:
    """What elsewhere ends a process, since it cannot do without (a table, a permission), must not end it for this."""

    async def pass_on() -> float:
        try:
            return await run_once()
        except FatalError as error:
            LEDGER_STOPPED.log(error, what=name)
            return _STOPPED_PAUSE_S

    return pass_on
