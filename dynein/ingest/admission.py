"""How many jobs at once and how fast: the bound on jobs in memory, and this ingester's share of the fleet's rate.

Room is counted in `dynein.core.trigger.slots`, the rate in jobs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dynein.runtime.clock import Clock, sleep_unless
from dynein.runtime.token_bucket import TokenBucket
from dynein.settings import Settings

BURST_S = 1.0
ENTRY_BYTES_MIN = 60
"""No job takes less of an inbound message: its token alone has 52 characters."""


def jobs_max(settings: Settings) -> int:
    """How many jobs can be admitted at a time: ``held_jobs_max``, or one message with more jobs than that.

    Bounds what may wait anywhere behind `Admission`.
    """
    return settings.held_jobs_max + settings.message_bytes_max // ENTRY_BYTES_MIN


class Admission:
    """Admits messages, in the order they came, once there is room for their jobs and tokens to pay for them.

    At most ``held_jobs_max`` slots are taken at a time. A message larger than that is admitted when it would be alone.
    """

    def __init__(self, clock: Clock, settings: Settings) -> None:
        self._clock = clock
        self.when_full: list[Callable[[], None]] = []
        """Called whenever something begins to wait for room: they may see to it that some is freed."""
        self._waits_for_room = False
        self._slots_max = settings.held_jobs_max
        self._tokens = TokenBucket(settings.ingest_rate_per_s, clock.monotonic(), burst_s=BURST_S)
        self._order = asyncio.Lock()
        self._changed = asyncio.Event()
        self._closed = asyncio.Event()
        self.rate_per_s = settings.ingest_rate_per_s
        self.slots = 0
        """What the admitted jobs take."""
        self.waiting = 0
        """Messages received and neither admitted nor turned away yet."""

    def set_rate(self, rate_per_s: float) -> None:
        """Change our share of the rate."""
        self.rate_per_s = rate_per_s
        self._tokens.set_rate(rate_per_s, self._clock.monotonic())

    async def until_ready(self) -> bool:
        """Wait until it makes sense to receive: no message waits, and there is room and a token. False once closed.

        What we cannot admit yet is better off in the queue, where another ingester may get it.
        """
        while not self._closed.is_set():
            if self.waiting or self.slots >= self._slots_max:
                if self.is_full:
                    self._note_full()
                await self._change()
            elif (wait_s := self._tokens.wait_s(self._clock.monotonic())) > 0:
                await sleep_unless(self._closed, self._clock, wait_s)
            else:
                return True
        return False

    @property
    def is_full(self) -> bool:
        """Is there no room for more, or not for the message whose turn it is?"""
        return self._waits_for_room or self.slots >= self._slots_max

    def announce(self) -> None:
        """A message is received: from now until its `enter` or `turn_away` it counts as waiting."""
        self.waiting += 1

    def turn_away(self) -> None:
        """An announced message that need not enter."""
        self.waiting -= 1
        assert self.waiting >= 0
        self._changed.set()

    async def enter(self, jobs: int, slots: int) -> bool:
        """Wait for the message's turn, for room and for tokens. False, with nothing taken, once closed."""
        try:
            async with self._order:
                await self._room_for(slots)
                while not self._closed.is_set():
                    wait_s = self._tokens.wait_s(self._clock.monotonic())
                    if wait_s <= 0:
                        break
                    await sleep_unless(self._closed, self._clock, wait_s)
                if self._closed.is_set():
                    return False
                self._tokens.take(jobs, self._clock.monotonic())
                self.slots += slots
                return True
        finally:
            self.turn_away()

    def leave(self, slots: int) -> None:
        """The jobs of an admitted message are done with."""
        self.slots -= slots
        assert self.slots >= 0
        self._changed.set()

    def close(self) -> None:
        """Admit nothing any more."""
        self._closed.set()
        self._changed.set()

    async def _room_for(self, slots: int) -> None:
        try:
            while self.slots and self.slots + slots > self._slots_max and not self._closed.is_set():
                self._waits_for_room = True
                self._note_full()
                await self._change()
        finally:
            self._waits_for_room = False

    def _note_full(self) -> None:
        for call in self.when_full:
            call()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
