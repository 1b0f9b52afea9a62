"""The ledger's two agents: every process posts what it has counted; one of the fleet reads what all have posted."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Sequence

from dynein.core.ledger import Closing, LedgerStore, Posting, Tally, judge
from dynein.core.trigger_store import Roster
from dynein.fleet.membership import Liveness
from dynein.ledger.export import LedgerMetrics, Reading
from dynein.observability.events.ledger import LEDGER_COUNTS_FORGOTTEN, LEDGER_COUNTS_MISSING, LEDGER_NOT_POSTED
from dynein.runtime.backoff import pause_s
from dynein.runtime.clock import Clock

POSTING_WINDOWS_MAX = 25
"""Windows a posting. DynamoDB takes 100 writes in a transaction, some emulators 25."""
CROWDED_WINDOWS = 1_000
"""With more windows waiting, postings follow each other without the usual pause."""
LOOK_BACK_MS = 86_400_000
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
        self._liveness = {role: Liveness(member_ttl_s) for role in roles}

    async def run_once(self) -> float:
        """Read once, or withdraw; the seconds until the next time."""
        if self._is_observer():
            now_ms = self._clock.now_ms()
            windows = await self._store.read(*self._closing.closed(now_ms, LOOK_BACK_MS))
            undrained = {role: await self._undrained(role) for role in self._liveness}
            self._metrics.publish(Reading(now_ms, judge(windows.values()), undrained))
        else:
            self._metrics.withdraw()
        return self._interval_s

    async def _undrained(self, role: str) -> int:
        """Members whose beat stands still. A new observer has seen none stand still yet."""
        beats = await self._roster.members(role)
        liveness = self._liveness[role]
        liveness.observe(beats, self._clock.monotonic())
        return len(beats) - len(liveness.live(self._clock.monotonic()))
