"""How the memory for triggers is shared among shards and destinations. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


def page_size(page_jobs_max: int, *, slots_max: int, slots: int, shard_slots: int) -> int:
    """How many triggers a shard may read now; 0: none until there is room.

    ``slots_max`` is the process's bound and ``slots`` what it holds, in `dynein.core.trigger.slots`; ``shard_slots`` is
    what this shard has read and not yet begun to send. A shard may hold as much of that as is left free: one busy shard
    gets half of the memory, n busy ones get an (n+1)th each, and a shard that holds nothing always finds room soon
    ("dynamic thresholds": Choudhury and Hahne, 1998, for the buffers of a switch).
    """
    size = min(page_jobs_max, max(1, slots_max // 4))
    free = slots_max - slots
    if free < size or (shard_slots and shard_slots + size > free):
        return 0
    return size


def lane_has_share(lane_slots: int, *, slots_max: int, lanes_slots: int) -> bool:
    """May one more due job of a destination stay in memory, where all destinations together take ``lanes_slots``?

    The same rule, within three quarters of the memory: however many destinations fail, the rest can be read for.
    """
    return lane_slots < slots_max * 3 // 4 - lanes_slots


class MemoryBudget:
    """The process's bound on triggers in hand, in `dynein.core.trigger.slots`, and who waits for room."""

    def __init__(self, slots_max: int, page_jobs_max: int) -> None:
        self.slots_max = slots_max
        self.slots = 0
        self._page_jobs_max = page_jobs_max
        self._waiting: deque[Callable[[], None]] = deque()
        self._freed = 0

    def reserve_page(self, shard_slots: int) -> int:
        """Set room aside for a page and say how large it may be (0: no room now). Give back what is not needed."""
        size = page_size(self._page_jobs_max, slots_max=self.slots_max, slots=self.slots, shard_slots=shard_slots)
        self.slots += size
        return size

    def take_more(self, slots: int) -> None:
        """A large trigger takes more than the one slot set aside for it: all of a page's by its bytes at most, which
        DynamoDB limits to 1 MB.
        """
        self.slots += slots

    def give_back(self, slots: int) -> None:
        """Triggers have left the hand, or room was set aside for nothing."""
        self.slots -= slots
        assert self.slots >= 0, self.slots
        self._freed += slots
        # Not at every single one: a page needs many.
        if self._waiting and self._freed >= max(1, min(self._page_jobs_max, self.slots_max) // 4):
            self._freed = 0
            self._waiting.popleft()()

    def when_room(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` once, when there may be room; in the order asked."""
        if wake not in self._waiting:
            self._waiting.append(wake)
