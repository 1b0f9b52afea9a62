"""The ledger's two agents: every process posts what it has counted; one of the fleet reads what all have posted."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable

from dynein.core.ledger import LedgerStore, Posting, Tally
from dynein.observability.events.ledger import LEDGER_COUNTS_FORGOTTEN, LEDGER_COUNTS_MISSING, LEDGER_NOT_POSTED
from dynein.runtime.backoff import pause_s
from dynein.runtime.clock import Clock

POSTING_WINDOWS_MAX = 25
"""Windows a posting. DynamoDB takes 100 writes in a transaction, some emulators 25."""
CROWDED_WINDOWS = 1_000
"""With more windows waiting, postings follow each other without the usual pause."""
_CROWDED_PAUSE_S = 1.0


class LedgerBook:
    """Posts a tally at an interval. Processes that started together drift apart: ``rng`` varies it by a fifth."""

    def __init__(
        self,
        tally: Tally,
        store: LedgerStore,
        clock: Clock,
        rng: random.Random,
        *,
        interval_s: float,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._tally = tally
        self._store = store
        self._clock = clock
        self._rng = rng
        self._interval_s = interval_s
        self._new_id = new_id
        self._posting: Posting | None = None
        """On its way: nobody knows whether it arrived, so it is repeated as it was."""
        self._forgotten_jobs = 0

    @property
    def clear(self) -> bool:
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
        return self._interval_s * self._rng.uniform(0.8, 1.2)

    async def close(self, within_s: float) -> None:
        """Post all that is left, if it can be done in time."""
        posting = asyncio.ensure_future(self._post_all())
        sleeping = asyncio.ensure_future(self._clock.sleep(within_s))
        try:
            await asyncio.wait((posting, sleeping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            posting.cancel()
            sleeping.cancel()
            await asyncio.gather(posting, sleeping, return_exceptions=True)
        if not self.clear:
            LEDGER_COUNTS_MISSING.log()

    async def _post(self) -> None:
        if self._posting is None:
            windows = self._tally.take(self._clock.now_ms(), POSTING_WINDOWS_MAX)
            if not windows:
                return
            self._posting = Posting(self._new_id(), windows)
        await self._store.post(self._posting)
        self._posting = None

    async def _post_all(self) -> None:
        failures = 0
        while not self.clear:
            try:
                await self._post()
            except Exception as error:  # noqa: BLE001 - the ledger may never be in the way
                LEDGER_NOT_POSTED.log(error)
                failures += 1
                await self._clock.sleep(pause_s(failures, first_s=0.1, max_s=0.5, rng=self._rng))
