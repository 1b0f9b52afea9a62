"""Destination queues by name or URL, looked up once and remembered for a while.

Anybody may name queues that do not exist, and one queue's URL has many spellings: the host may be any of SQS's. So what
is known of names, of URLs and of missing queues is kept apart, each up to a bound. However many names are made up, no
queue that exists is forgotten for them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Generic, NamedTuple, TypeVar

from dynein.core.queue_address import is_url
from dynein.core.queues import Destination, Queues
from dynein.errors import UnknownQueue
from dynein.runtime.clock import Clock

MISSING_TTL_S = 5.0
"""A queue that did not exist a moment ago may have been created since; do not refuse it for long."""
ValueT = TypeVar("ValueT")


class Destinations:
    """A cached `Queues.resolve`. Concurrent look-ups of one queue share a call.

    ``entries_max``: of names, of URLs, and of missing queues.
    """

    def __init__(self, queues: Queues, clock: Clock, *, ttl_s: float, entries_max: int = 10_000) -> None:
        self._queues = queues
        self._clock = clock
        self._names: _Recent[Destination] = _Recent(entries_max, ttl_s)
        self._urls: _Recent[Destination] = _Recent(entries_max, ttl_s)
        self._missing: _Recent[None] = _Recent(entries_max, MISSING_TTL_S)
        self._looking_up: dict[str, asyncio.Task[Destination]] = {}

    def known(self, queue: str) -> Destination | None:
        """The destination, if it is remembered to exist; no I/O."""
        found = self._found(queue).get(queue)
        return found.value if found is not None and found.expires_at > self._clock.monotonic() else None

    def is_missing(self, queue: str) -> bool:
        """Is it remembered not to exist? No I/O."""
        missing = self._missing.get(queue)
        return missing is not None and missing.expires_at > self._clock.monotonic()

    def has_been_known(self, queue: str) -> bool:
        """Was it found, if only a while ago?"""
        return self._found(queue).get(queue) is not None

    def is_being_looked_up(self, queue: str) -> bool:
        """Would `resolve` share a call that is under way?"""
        return queue in self._looking_up

    async def resolve(self, queue: str) -> Destination:
        """The destination. Raises `UnknownQueue`, or what `Queues.resolve` raises when SQS cannot respond."""
        known = self.known(queue)
        if known is not None:
            return known
        if self.is_missing(queue):
            raise UnknownQueue(queue)
        looking_up = self._looking_up.get(queue)
        if looking_up is None:
            looking_up = asyncio.ensure_future(self._look_up(queue))
            self._looking_up[queue] = looking_up
            looking_up.add_done_callback(lambda _: self._looking_up.pop(queue, None))
        return await asyncio.shield(looking_up)

    def forget(self, queue: str) -> None:
        """Look it up again next time: a send has just failed as if the queue were gone."""
        self._found(queue).remove(queue)
        self._missing.remove(queue)

    async def _look_up(self, queue: str) -> Destination:
        now = self._clock.monotonic
        try:
            destination = await self._queues.resolve(queue)
        except UnknownQueue:
            self._found(queue).remove(queue)
            self._missing.put(queue, None, now())
            raise
        self._missing.remove(queue)
        self._found(queue).put(queue, destination, now())
        return destination

    def _found(self, queue: str) -> _Recent[Destination]:
        return self._urls if is_url(queue) else self._names


class _Entry(NamedTuple, Generic[ValueT]):
    expires_at: float
    value: ValueT


class _Recent(Generic[ValueT]):
    """The entries asked for most recently, ``entries_max`` of them."""

    def __init__(self, entries_max: int, ttl_s: float) -> None:
        self._entries_max = entries_max
        self._ttl_s = ttl_s
        self._entries: OrderedDict[str, _Entry[ValueT]] = OrderedDict()

    def get(self, queue: str) -> _Entry[ValueT] | None:
        """Whatever is remembered, expired or not."""
        entry = self._entries.get(queue)
        if entry is not None:
            self._entries.move_to_end(queue)
        return entry

    def put(self, queue: str, value: ValueT, now: float) -> None:
        self._entries[queue] = _Entry(now + self._ttl_s, value)
        self._entries.move_to_end(queue)
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)

    def remove(self, queue: str) -> None:
        self._entries.pop(queue, None)
