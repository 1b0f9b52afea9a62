"""The conservation ledger as one process sees it: the fake, behind its wire."""

from __future__ import annotations

from dynein.core.ledger import Counts, Posting
from dynein.ledger.reader import closing_by
from dynein.settings import Settings
from dynein.testing import FakeLedger
from tests.simulation.engines import TABLE
from tests.simulation.evidence import Evidence, PostAttempt
from tests.simulation.network import Wire


class WiredLedger:
    """`dynein.core.ledger.LedgerStore` over a `Wire`. It is in the table: what strikes DynamoDB strikes it too."""

    def __init__(self, ledger: FakeLedger, wire: Wire, evidence: Evidence, settings: Settings) -> None:
        self._ledger = ledger
        self._wire = wire
        self._evidence = evidence
        self._closing = closing_by(settings)

    async def post(self, posting: Posting) -> None:
        flight = self._wire.draw(TABLE, "post")
        attempt = PostAttempt(flight, posting)
        self._evidence.postings.setdefault(flight.process, []).append(attempt)

        async def post() -> None:
            await self._ledger.post(posting)
            self._evidence.applied.setdefault(posting.posting_id, posting)
            self._evidence.note(flight.process, f"posts counts of {len(posting.windows)} windows")

        await self._wire.call(TABLE, "post", post, flight=flight)
        attempt.acknowledged = True

    async def read(self, from_ms: int, until_ms: int) -> dict[int, Counts]:
        process, (window_ms, grace_ms) = self._wire.process, self._closing
        if until_ms + grace_ms > process.clock.now_ms() or until_ms % window_ms:
            self._evidence.violations.append(f"LEDGER: {process.name} reads windows that have not closed yet")
        return await self._wire.call(TABLE, "read_ledger", lambda: self._ledger.read(from_ms, until_ms))
