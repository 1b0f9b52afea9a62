"""Processes that count, on a fake ledger."""

from __future__ import annotations

import random

from dynein.core.ledger import Tally
from dynein.ledger.poster import LedgerPoster
from dynein.observability.telemetry import Telemetry
from dynein.runtime.context import Context
from dynein.settings import Settings
from dynein.testing import FakeLedger, ManualClock

WINDOW_MS = 60_000
GRACE_MS = 300_000
INTERVAL_S = 30.0
SETTINGS = Settings(
    ledger_window_s=WINDOW_MS // 1000,
    ledger_grace_s=GRACE_MS / 1000,
    ledger_interval_s=INTERVAL_S,
    retry_budget_s=GRACE_MS / 1000 - 2 * INTERVAL_S,
    member_ttl_s=8.0,
)


class Process:
    """One process's poster and tally."""

    def __init__(self, clock: ManualClock, ledger: FakeLedger, name: str = "p") -> None:
        self.clock = clock
        self.ledger = ledger
        self.tally = Tally(WINDOW_MS)
        self._name, self._postings = name, 0
        context = Context(clock, random.Random(1), Telemetry(), self.tally)
        self.poster = LedgerPoster(ledger, context, SETTINGS, new_id=self._new_id)

    def _new_id(self) -> str:
        self._postings += 1
        return f"{self._name}-{self._postings}"

    def posts(self) -> int:
        return sum(call.verb == "post" for call in self.ledger.faults.calls)
