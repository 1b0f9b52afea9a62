"""One process's part in the ledger, put together from its settings.

The ledger may never be in the way of a job: whatever fails here is logged and tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from dynein.core.ledger import NOT_KEPT, LedgerStore, Tally
from dynein.core.shard_records import Roster
from dynein.errors import FatalError
from dynein.ledger.export import LedgerMetrics
from dynein.ledger.poster import LedgerPoster
from dynein.ledger.reader import LedgerReader
from dynein.observability.events.ledger import LEDGER_STOPPED
from dynein.runtime.context import Context
from dynein.runtime.periodic import run_periodically
from dynein.runtime.tasks import Tasks
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
        self._metrics = LedgerMetrics(context.clock, context.telemetry.workers_directory)
        context.telemetry.add_of_the_fleet(self._metrics)

    @asynccontextmanager
    async def kept(self, *, is_observer: Callable[[], bool]) -> AsyncIterator[None]:
        """Keep the ledger while the body runs, then post the last counts, within `CLOSE_S`.

        ``is_observer``: is this process, of the whole fleet, the one to read it?
        """
        context, settings = self._context, self._settings
        if context.tally is NOT_KEPT:
            yield
            return
        poster = LedgerPoster(self._store, context, settings)
        reader = LedgerReader(self._store, self._roster, self._metrics, context, settings, is_observer=is_observer)
        # Not ended when the process begins to stop: draining takes a while, and jobs are counted until its end.
        ended = asyncio.Event()
        tasks = Tasks()
        for name, run_once in (("ledger", poster.run_once), ("ledger observer", reader.run_once)):
            tasks.start(run_periodically(name, _unstoppable(name, run_once), context.clock, ended, context.rng))
        try:
            yield
        finally:
            await tasks.cancel_all()
            self._metrics.withdraw()
            await poster.close(CLOSE_S)


def tally_by(settings: Settings) -> Tally:
    """What a process counts in, if a ledger is to be kept."""
    return Tally(settings.ledger_window_s * 1000) if settings.ledger_interval_s > 0 else NOT_KEPT


def _unstoppable(name: str, run_once: Callable[[], Awaitable[float]]) -> Callable[[], Awaitable[float]]:
    """What elsewhere ends a process, since it cannot do without (a table, a permission), must not end it for this."""

    async def pass_on() -> float:
        try:
            return await run_once()
        except FatalError as error:
            LEDGER_STOPPED.log(error, what=name)
            return _STOPPED_PAUSE_S

    return pass_on
