"""Destinations with a lane of their own: opened when first needed, forgotten when idle and others need the room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from dynein.errors import Overloaded


class PooledLane(Protocol):
    """What a pool asks of a lane."""

    @property
    def idle(self) -> bool:
        """Nothing waits in it and nothing flies."""

    @property
    def failing(self) -> bool:
        """Has the last that was heard of its destination been a failure? Such a lane is worth remembering."""

    async def drained(self) -> None:
        """Return once it is idle."""


LaneT = TypeVar("LaneT", bound=PooledLane)


class LanePool(Generic[LaneT]):
    """Lanes by destination, ``lanes_max`` of them. ``open_lane`` makes one for a destination's name or URL.

    For a further one the least recently used idle lane is forgotten, a healthy one if there is one.
    """

    def __init__(self, lanes_max: int, open_lane: Callable[[str], LaneT]) -> None:
        self._lanes_max = lanes_max
        self._open_lane = open_lane
        self._lanes: OrderedDict[str, LaneT] = OrderedDict()

    def known(self, destination: str) -> LaneT | None:
        """Its lane, if it has one."""
        return self._lanes.get(destination)

    def lane(self, destination: str) -> LaneT:
        """Its lane, opened if need be. Raises `Overloaded` when there is no room for another."""
        lane = self._lanes.get(destination)
        if lane is None:
            self._make_room()
            lane = self._lanes[destination] = self._open_lane(destination)
        else:
            self._lanes.move_to_end(destination)
        return lane

    def has_room(self) -> bool:
        """Would `lane` open another now?"""
        return len(self._lanes) < self._lanes_max or any(lane.idle for lane in self._lanes.values())

    async def drained(self) -> None:
        """Return once all lanes are idle."""
        while busy := [lane for lane in self._lanes.values() if not lane.idle]:
            await busy[0].drained()

    def _make_room(self) -> None:
        if len(self._lanes) < self._lanes_max:
            return
        forgotten: str | None = None
        for destination, lane in self._lanes.items():
            if lane.idle:
                if not lane.failing:
                    forgotten = destination
                    break
                forgotten = forgotten or destination
        if forgotten is None:
            raise Overloaded(f"{self._lanes_max} destination queues have jobs on their way already")
        del self._lanes[forgotten]
