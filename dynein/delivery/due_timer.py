"""What is in hand and not yet due, by due time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")


class DueHeap(Generic[ItemT]):
    """A heap by due time; among equals, first in, first out. As large as what is put into it: callers bound that."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, ItemT]] = []
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next_due_ms(self) -> int | None:
        """The earliest due time."""
        return self._heap[0][0] if self._heap else None

    def push(self, due_at_ms: int, item: ItemT) -> None:
        """Add ``item``."""
        self._pushed += 1
        heapq.heappush(self._heap, (due_at_ms, self._pushed, item))

    def pop_due(self, now_ms: int) -> ItemT | None:
        """Take the earliest item, if it is due."""
        if not self._heap or self._heap[0][0] > now_ms:
            return None
        return heapq.heappop(self._heap)[2]

    def discard(self, unwanted: Callable[[ItemT], bool]) -> None:
        """Forget items, at once: nothing of them stays in memory."""
        self._heap = [item for item in self._heap if not unwanted(item[2])]
        heapq.heapify(self._heap)
