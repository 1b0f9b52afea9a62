"""What every `LedgerStore` must do."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from dynein.core.ledger import Counts, LedgerStore, Posting
from tests.contract.subjects import TABLES, Subject, needs_transactions, over

pytestmark = [*over(TABLES), needs_transactions]

HOUR_MS = 3_600_000
COUNTS_REPEATS = {
    "roto": "roto deviates: it takes no notice of ClientRequestToken",
    "moto": "moto deviates: it takes no notice of ClientRequestToken",
}
T0 = 500_000 * HOUR_MS


def posting(windows: dict[int, Counts]) -> Posting:
    return Posting(uuid.uuid4().hex, windows)


async def everything(ledger: LedgerStore) -> dict[int, Counts]:
    return await ledger.read(0, T0 + 1_000_000 * HOUR_MS)


async def test_empty(ledger: LedgerStore) -> None:
    assert await everything(ledger) == {}
    assert await ledger.read(T0, T0) == {}


async def test_every_flow_adds_up_and_may_be_taken_back(ledger: LedgerStore) -> None:
    await ledger.post(posting({T0: Counts(1, 2, 3, 4, 5, 6)}))
    await ledger.post(posting({T0: Counts(accepted=-1, delivered=10)}))
    assert await everything(ledger) == {T0: Counts(0, 2, 3, 14, 5, 6)}


async def test_many_windows_in_order_and_by_range(ledger: LedgerStore) -> None:
    windows = {T0 + number * HOUR_MS: Counts(accepted=number + 1) for number in range(25)}
    await ledger.post(posting(dict(reversed(windows.items()))))
    assert list((await everything(ledger)).items()) == list(windows.items())
    some = await ledger.read(T0 + HOUR_MS, T0 + 3 * HOUR_MS)
    assert some == {T0 + HOUR_MS: Counts(accepted=2), T0 + 2 * HOUR_MS: Counts(accepted=3)}


async def test_a_posting_repeated_counts_once(ledger: LedgerStore, subject: Subject) -> None:
    if subject.engine in COUNTS_REPEATS:
        pytest.skip(COUNTS_REPEATS[subject.engine])
    repeated = posting({T0: Counts(accepted=3), T0 + HOUR_MS: Counts(delivered=1)})
    for _ in range(3):
        await ledger.post(repeated)
    await ledger.post(posting({T0: Counts(accepted=1)}))
    await ledger.post(repeated)
    assert await everything(ledger) == {T0: Counts(accepted=4), T0 + HOUR_MS: Counts(delivered=1)}


async def test_many_processes_at_once(ledger: LedgerStore) -> None:
    await asyncio.gather(*(ledger.post(posting({T0: Counts(accepted=1, delivered=2)})) for _ in range(8)))
    assert await everything(ledger) == {T0: Counts(accepted=8, delivered=16)}
