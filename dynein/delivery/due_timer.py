"""Wakes whoever holds jobs when the next of them is due. One timer serves all that one holder has in memory."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

from dynein.runtime.clock import Clock, sleep_unless

RECHECK_S = 1.0
"""Longest sleep while something is held: how late a forward step of the wall clock is noticed."""
ITEMS_A_TURN_MAX = 500
"""Due items passed on before other tasks get their turn."""

ItemT = TypeVar("ItemT")


class DueTimer(Generic[ItemT]):
    """A heap by due time; among equals by ``order``, if one is given, then first in, first out.

    What is put into it is bounded by those who do.

    ``on_due`` gets each item once the wall clock shows its due millisecond, which is looked at again after every sleep:
    nothing is ever early. What follows (a lease to ask, a lane to choose) is up to ``on_due``.
    """

    def __init__(self, clock: Clock, on_due: Callable[[ItemT], None]) -> None:
        self._clock = clock
        self._on_due = on_due
        self._heap: list[tuple[int, bytes, int, ItemT]] = []
        self._added = 0
        self._sleeping_until_ms: int | None = None
        self._earlier = asyncio.Event()

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next_due_ms(self) -> int | None:
        """The earliest due time."""
        return self._heap[0][0] if self._heap else None

    def is_due(self, now_ms: int) -> bool:
        """Is there an item that is due?"""
        return bool(self._heap) and self._heap[0][0] <= now_ms

    def add(self, due_at_ms: int, item: ItemT, order: bytes = b"") -> None:
        """Pass ``item`` on at ``due_at_ms``, epoch milliseconds."""
        self._added += 1
        heapq.heappush(self._heap, (due_at_ms, order, self._added, item))
        if self._sleeping_until_ms is None or due_at_ms < self._sleeping_until_ms:
            self._earlier.set()

    def discard(self, unwanted: Callable[[ItemT], bool]) -> list[ItemT]:
        """Forget items, at once: nothing of them stays here. Returns them in due order."""
        discarded = sorted(entry for entry in self._heap if unwanted(entry[-1]))
        if discarded:
            self._heap = [entry for entry in self._heap if not unwanted(entry[-1])]
            heapq.heapify(self._heap)
        return [entry[-1] for entry in discarded]

    async def run(self) -> None:
        """Pass on what becomes due, until cancelled."""
        while True:
            await self.pass_on_due()
            due_at_ms = self._sleeping_until_ms = self.next_due_ms
            if due_at_ms is None:
                await self._earlier.wait()
            else:
                wait_s = min((due_at_ms - self._clock.now_ms()) / 1000, RECHECK_S)
                await sleep_unless(self._earlier, self._clock, wait_s)
            self._earlier.clear()

    async def pass_on_due(self) -> None:
        """Pass on everything that is due now."""
        passed_on = 0
        while self.is_due(self._clock.now_ms()):
            self._on_due(heapq.heappop(self._heap)[-1])
            passed_on += 1
            if passed_on % ITEMS_A_TURN_MAX == 0:
                await self._clock.sleep(0)
