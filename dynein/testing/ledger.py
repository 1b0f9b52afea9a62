"""An in-memory conservation ledger."""

from __future__ import annotations

from dynein.core.ledger import Counts, Posting
from dynein.testing.faults import Call, Faults


class FakeLedger:
    """A `dynein.core.ledger.LedgerStore` in memory. Calls come in through ``faults``."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults if faults is not None else Faults()
        self._windows: dict[int, Counts] = {}
        self._posted: set[str] = set()

    async def post(self, posting: Posting) -> None:
        """See `dynein.core.ledger.LedgerStore.post`. A repeat is always recognised."""
        assert posting.windows, "an empty posting"
        assert all(any(counts) for counts in posting.windows.values()), "a window without counts"
        call = Call("ledger", "post", "ledger", len(posting.windows))
        await self.faults.before(call)
        if posting.posting_id not in self._posted:
            self._posted.add(posting.posting_id)
            for start_ms, counts in posting.windows.items():
                self._windows[start_ms] = self._windows.get(start_ms, Counts()).plus(counts)
        await self.faults.after(call)

    async def read(self, from_ms: int, until_ms: int) -> dict[int, Counts]:
        """See `dynein.core.ledger.LedgerStore.read`."""
        call = Call("ledger", "read", "ledger", 0)
        await self.faults.before(call)
        found = {start_ms: self._windows[start_ms] for start_ms in sorted(self._windows)}
        await self.faults.after(call)
        return {start_ms: counts for start_ms, counts in found.items() if from_ms <= start_ms < until_ms}
