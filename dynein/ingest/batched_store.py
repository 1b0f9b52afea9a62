"""The trigger store as the ingester uses it: what many messages ask for leaves in few calls, and gets through."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from dynein.core.inbound_message import Arrival
from dynein.core.keys import TriggerKey
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import ADD_MAX, LOOKUP_MAX, REMOVE_MAX, Found, Tombstone, TriggerStore
from dynein.errors import Retryable
from dynein.ingest.retrying import Retrying
from dynein.runtime.group_commit import GroupCommit

CALLS_IN_FLIGHT_MAX = 8
"""Batch calls of one kind under way; also single-item calls, together."""

ItemT = TypeVar("ItemT")


class BatchedStore:
    """Every verb returns once the store has done it, however often that takes.

    ``waiting_max`` bounds what waits for each kind of call; the gate keeps it from being reached.
    """

    def __init__(self, store: TriggerStore, retrying: Retrying, *, waiting_max: int) -> None:
        self._store = store
        self._retrying = retrying
        self._singles = asyncio.Semaphore(CALLS_IN_FLIGHT_MAX)
        self._adds: GroupCommit[Trigger, None] = GroupCommit(
            self._add, entries_max=ADD_MAX, waiting_max=waiting_max, in_flight_max=CALLS_IN_FLIGHT_MAX
        )
        self._removals: GroupCommit[TriggerKey, None] = GroupCommit(
            self._remove, entries_max=REMOVE_MAX, waiting_max=waiting_max, in_flight_max=CALLS_IN_FLIGHT_MAX
        )
        self._lookups: GroupCommit[TriggerKey, Tombstone | None] = GroupCommit(
            self._look_up, entries_max=LOOKUP_MAX, waiting_max=waiting_max, in_flight_max=CALLS_IN_FLIGHT_MAX
        )

    async def add(self, triggers: Sequence[Trigger]) -> None:
        """Store them."""
        await asyncio.gather(*[self._adds.submit(trigger) for trigger in triggers])

    async def remove(self, key: TriggerKey) -> None:
        """Remove a trigger."""
        await self._removals.submit(key)

    async def tombstones(self, keys: Sequence[TriggerKey]) -> list[Tombstone | None]:
        """For each key its tombstone, if it has one, by a read begun after this call."""
        return await asyncio.gather(*[self._lookups.submit(key) for key in keys])

    async def find(self, key: TriggerKey) -> Found:
        """What stands at ``key``."""
        async with self._singles:
            return await self._retrying.call("find a trigger", lambda: self._store.find(key))

    async def claim(self, arrival: Arrival) -> bool:
        """See `TriggerStore.claim`."""
        async with self._singles:
            return await self._retrying.call("claim a prepared job", lambda: self._store.claim(arrival))

    async def _add(self, triggers: list[Trigger]) -> Sequence[None]:
        # DynamoDB refuses a batch that names a key twice, and two messages may bring the same job.
        await self._until_none_is_left({trigger.key: trigger for trigger in triggers}, self._store.add)
        return [None] * len(triggers)

    async def _remove(self, keys: list[TriggerKey]) -> Sequence[None]:
        await self._until_none_is_left({key: key for key in keys}, self._store.remove)
        return [None] * len(keys)

    async def _look_up(self, keys: list[TriggerKey]) -> Sequence[Tombstone | None]:
        distinct = list(dict.fromkeys(keys))
        found = await self._retrying.call("look for tombstones", lambda: self._store.tombstones(distinct))
        by_key = {tombstone.key: tombstone for tombstone in found}
        return [by_key.get(key) for key in keys]

    async def _until_none_is_left(
        self, items: dict[TriggerKey, ItemT], write: Callable[[Sequence[ItemT]], Awaitable[list[ItemT]]]
    ) -> None:
        left = list(items.values())
        failures = 0
        while left:
            before = len(left)
            with contextlib.suppress(Retryable):  # the adapter has counted it; written again below
                left = await write(left)
            failures = 1 if len(left) < before else failures + 1
            if left:
                await self._retrying.pause(failures)
