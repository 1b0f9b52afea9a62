"""How the memory for triggers is shared: among the shards that are read and the destinations that are sent to. Pure.

The unit is `dynein.core.trigger.slots`: a trigger of ordinary size takes one slot, a large one more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


def page_size(page_jobs_max: int, *, slots_max: int, slots: int, shard_slots: int) -> int:
    """How many triggers a shard may read now; 0: none until there is room.

    ``slots_max`` is the process's bound and ``slots`` what is taken of it; ``shard_slots`` is what this shard has read
    and not yet begun to send. A shard may hold as much of that as is left free: one busy shard gets half of the memory,
    n busy ones get an (n+1)th each, and a shard that holds nothing always finds room soon ("dynamic thresholds":
    Choudhury and Hahne, 1998, for the buffers of a switch).
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
    """The process's bound on triggers in memory, and who waits for room to read a page."""

    def __init__(self, slots_max: int, page_jobs_max: int) -> None:
        self.slots_max = slots_max
        self.slots = 0
        """What is taken: by buffered triggers, and by room set aside for pages that are being read."""
        self._page_jobs_max = page_jobs_max
        self._waiting: deque[Callable[[], None]] = deque()
        self._freed = 0

    def reserve_page(self, shard_slots: int) -> int:
        """Set room aside for a page; returns how many triggers it may have (0: no room now).

        Give back what is not needed. ``shard_slots``: see `page_size`.
        """
        size = page_size(self._page_jobs_max, slots_max=self.slots_max, slots=self.slots, shard_slots=shard_slots)
        self.slots += size
        return size

    def take_more(self, slots: int) -> None:
        """Take what a large trigger needs beyond the one slot set aside for it.

        This may pass the bound: by the bytes of one page at most, which DynamoDB limits to 1 MB.
        """
        self.slots += slots

    def give_back(self, slots: int) -> None:
        """Triggers have left memory, or room was set aside and not needed."""
        self.slots -= slots
        assert self.slots >= 0, self.slots
        self._freed += slots
        # Not for each trigger: a page needs room for many.
        if self._waiting and self._freed >= max(1, min(self._page_jobs_max, self.slots_max) // 4):
            self._freed = 0
            self._waiting.popleft()()

    def when_room(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` once, when there may be room; in the order asked."""
        if wake not in self._waiting:
            self._waiting.append(wake)


class LaneShares:
    """What each destination's due triggers take of the memory while they are in its lane.

    From when a trigger enters the lane until its delivery has ended, one way or the other.
    """

    def __init__(self, slots_max: int) -> None:
        self.jobs = 0
        """Triggers in all lanes."""
        self._slots_max = slots_max
        self._slots = 0
        self._by_queue: dict[str, int] = {}
        """Destinations with an empty lane are not listed, so the triggers bound it."""

    def slots_of(self, queue: str) -> int:
        """What the triggers in the lane of ``queue`` take; 0 means that none is in it."""
        return self._by_queue.get(queue, 0)

    def has_share(self, queue: str) -> bool:
        """May one more trigger enter the lane of ``queue``? See `lane_has_share`."""
        return lane_has_share(self._by_queue.get(queue, 0), slots_max=self._slots_max, lanes_slots=self._slots)

    def enter(self, queue: str, slots: int) -> None:
        """A trigger enters the lane of ``queue``."""
        self.jobs += 1
        self._slots += slots
        self._by_queue[queue] = self._by_queue.get(queue, 0) + slots

    def leave(self, queue: str, slots: int) -> int:
        """A delivery to ``queue`` has ended; returns the slots that are left in its lane."""
        self.jobs -= 1
        self._slots -= slots
        left = self._by_queue[queue] - slots
        if left:
            self._by_queue[queue] = left
        else:
            del self._by_queue[queue]
        return left
