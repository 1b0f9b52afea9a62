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


class _Answer(NamedTuple):
    expires_at: float
    destination: Destination | None


class Destinations:
    """A cached `Queues.resolve`. Concurrent look-ups of one queue share a call."""

    def __init__(self, queues: Queues, clock: Clock, *, ttl_s: float, entries_max: int = 10_000) -> None:
        self._queues = queues
        self._clock = clock
        self._ttl_s = ttl_s
        self._entries_max = entries_max
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Destination]] = {}

    def known(self, queue: str) -> Destination | None:
        """The destination, if it is remembered to exist; no I/O."""
        answer = self._answers.get(queue)
        return answer.destination if answer is not None and answer.expires_at > self._clock.monotonic() else None

    async def resolve(self, queue: str) -> Destination:
        """The destination. Raises `UnknownQueue`, or what `Queues.resolve` raises when SQS cannot answer."""
        answer = self._answers.get(queue)
        if answer is not None and answer.expires_at > self._clock.monotonic():
            if answer.destination is None:
                raise UnknownQueue(queue)
            return answer.destination
        asking = self._asking.get(queue)
        if asking is None:
            asking = asyncio.ensure_future(self._ask(queue))
            self._asking[queue] = asking
            asking.add_done_callback(lambda _: self._asking.pop(queue, None))
        return await asyncio.shield(asking)

    def forget(self, queue: str) -> None:
        """Ask anew next time: a send has just failed as if the queue were gone."""
        self._answers.pop(queue, None)

    async def _ask(self, queue: str) -> Destination:
        try:
            destination = await self._queues.resolve(queue)
        except UnknownQueue:
            self._remember(queue, None, _UNKNOWN_TTL_S)
            raise
        self._remember(queue, destination, self._ttl_s)
        return destination

    def _remember(self, queue: str, destination: Destination | None, ttl_s: float) -> None:
        self._answers[queue] = _Answer(self._clock.monotonic() + ttl_s, destination)
        self._answers.move_to_end(queue)
        while len(self._answers) > self._entries_max:
            self._answers.popitem(last=False)
