"""Posts what one process has counted to the fleet's ledger."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from dynein.core.ledger import LedgerStore, Posting
from dynein.errors import Unavailable
from dynein.observability.events.ledger import LEDGER_COUNTS_FORGOTTEN, LEDGER_COUNTS_MISSING, LEDGER_NOT_POSTED
from dynein.runtime.context import Context
from dynein.runtime.retry import Backoff, Retry
from dynein.runtime.tasks import within
from dynein.settings import Settings

POSTING_WINDOWS_MAX = 25
"""Windows a posting. DynamoDB takes 100 writes in a transaction, some emulators 25."""
CROWDED_WINDOWS = 1_000
"""With more windows waiting, postings follow each other without the usual pause."""
_CROWDED_PAUSE_S = 1.0
_CLOSING_BACKOFF = Backoff(first_s=0.1, max_s=0.5)


class LedgerPoster:
    """Posts ``context.tally`` at an interval, varied by a fifth so that processes started together drift apart."""

    def __init__(
        self,
        store: LedgerStore,
        context: Context,
        settings: Settings,
        *,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._store = store
        self._context = context
        self._tally = context.tally
        self._interval_s = settings.ledger_interval_s
        self._new_id = new_id
        self._posting: Posting | None = None
        """On its way. Whether it has arrived is not known, so it is repeated as it was."""
        self._forgotten_jobs = 0

    @property
    def is_clear(self) -> bool:
        """Is everything posted that was counted?"""
        return self._posting is None and len(self._tally) == 0

    async def run_once(self) -> float:
        """Post once, if there is anything; the seconds until the next time."""
        await self._post()
        if self._tally.forgotten_jobs > self._forgotten_jobs:
            self._forgotten_jobs = self._tally.forgotten_jobs
            LEDGER_COUNTS_FORGOTTEN.log(jobs=self._forgotten_jobs)
        if len(self._tally) > CROWDED_WINDOWS:
            return _CROWDED_PAUSE_S
        return self._interval_s * self._context.rng.uniform(0.8, 1.2)

    async def close(self, within_s: float) -> None:
        """Post all that is left, if it can be done in time. Raises nothing: the ledger is never in the way."""
        clock, rng, _, _ = self._context
        retry = Retry(clock, rng, _CLOSING_BACKOFF, failed=_log_failure)
        try:
            await within(within_s, clock, self._post_all(retry))
        except Unavailable:
            pass  # the time is up
        except Exception as error:  # noqa: BLE001 - a permission, a table: it will not come right in a moment
            LEDGER_NOT_POSTED.log(error)
        if not self.is_clear:
            LEDGER_COUNTS_MISSING.log()

    async def _post(self) -> None:
        if self._posting is None:
            windows = self._tally.take(self._context.clock.now_ms(), POSTING_WINDOWS_MAX)
            if not windows:
                return
            self._posting = Posting(self._new_id(), windows)
        await self._store.post(self._posting)
        self._posting = None

    async def _post_all(self, retry: Retry) -> None:
        while not self.is_clear:
            await retry.call("posting", self._post, retry_on=(Exception,))


def _log_failure(what: str, error: Exception, failures: int, pause_s: float) -> None:  # noqa: ARG001 - a `Failed`
    LEDGER_NOT_POSTED.log(error)
