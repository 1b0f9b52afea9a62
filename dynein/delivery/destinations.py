"""Destination queues by name or URL, looked up once and remembered for a while."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import NamedTuple

from dynein.core.queues import Destination, Queues
from dynein.errors import UnknownQueue
from dynein.runtime.clock import Clock

_UNKNOWN_TTL_S = 5.0
"""A queue that did not exist a moment ago may have been created since; do not refuse it for long."""


class _LookedUp(NamedTuple):
    expires_at: float
    destination: Destination | None


class Destinations:
    """A cached `Queues.resolve`. Concurrent look-ups of one queue share a call."""

    def __init__(self, queues: Queues, clock: Clock, *, ttl_s: float, entries_max: int = 10_000) -> None:
        self._queues = queues
        self._clock = clock
        self._ttl_s = ttl_s
        self._entries_max = entries_max
        self._looked_up: OrderedDict[str, _LookedUp] = OrderedDict()
        self._looking_up: dict[str, asyncio.Task[Destination]] = {}

    def known(self, queue: str) -> Destination | None:
        """The destination, if it is remembered to exist; no I/O."""
        known = self._looked_up.get(queue)
        return known.destination if known is not None and known.expires_at > self._clock.monotonic() else None

    async def resolve(self, queue: str) -> Destination:
        """The destination. Raises `UnknownQueue`, or what `Queues.resolve` raises when SQS cannot respond."""
        known = self._looked_up.get(queue)
        if known is not None and known.expires_at > self._clock.monotonic():
            if known.destination is None:
                raise UnknownQueue(queue)
            return known.destination
        looking_up = self._looking_up.get(queue)
        if looking_up is None:
            looking_up = asyncio.ensure_future(self._look_up(queue))
            self._looking_up[queue] = looking_up
            looking_up.add_done_callback(lambda _: self._looking_up.pop(queue, None))
        return await asyncio.shield(looking_up)

    def forget(self, queue: str) -> None:
        """Look it up again next time: a send has just failed as if the queue were gone."""
        self._looked_up.pop(queue, None)

    async def _look_up(self, queue: str) -> Destination:
        try:
            destination = await self._queues.resolve(queue)
        except UnknownQueue:
            self._remember(queue, None, _UNKNOWN_TTL_S)
            raise
        self._remember(queue, destination, self._ttl_s)
        return destination

    def _remember(self, queue: str, destination: Destination | None, ttl_s: float) -> None:
        self._looked_up[queue] = _LookedUp(self._clock.monotonic() + ttl_s, destination)
        self._looked_up.move_to_end(queue)
        while len(self._looked_up) > self._entries_max:
            self._looked_up.popitem(last=False)
