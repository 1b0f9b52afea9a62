"""Long work, done in slices so that the other tasks of the event loop need not wait for its end."""

from __future__ import annotations

from dynein.runtime.clock import Clock

SLICE_S = 0.002


class TimeSlices:
    """One piece of work, such as a request with a thousand jobs. Between its steps it awaits `give_way`."""

    def __init__(self, clock: Clock, slice_s: float = SLICE_S) -> None:
        self._clock = clock
        self._slice_s = slice_s
        self._until = clock.monotonic() + slice_s

    async def give_way(self) -> None:
        """Let every other task that is ready run first, if this work has had its slice."""
        if self._clock.monotonic() >= self._until:
            await self._clock.sleep(0)
            self._until = self._clock.monotonic() + self._slice_s
