"""The trigger store as the ingester uses it: many messages share few calls, each repeated until it succeeds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from dynein.core.inbound_message import Arrival
from dynein.core.keys import TriggerKey
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import ADD_MAX, LOOKUP_MAX, REMOVE_MAX, Found, Tombstone, TriggerStore
from dynein.ingest.admission import jobs_max
from dynein.runtime.group_commit import GroupCommit
from dynein.runtime.retry import Retry
from dynein.settings import Settings

CALLS_IN_FLIGHT_MAX = 8
"""Batch calls of one kind under way; also single-item calls, together."""

ItemT = TypeVar("ItemT")


class BatchedStore:
    """Every verb returns once the store has done it, however often that has to be tried.

    What waits for each kind of call is bounded by `jobs_max`, which `Admission` keeps from being reached.
    """

    def __init__(self, store: TriggerStore, retry: Retry, settings: Settings) -> None:
        waiting_max = jobs_max(settings)
        self._store = store
        self._retry = retry
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
        """What is stored at ``key``."""
        async with self._singles:
            return await self._retry.call("find a trigger", lambda: self._store.find(key))

    async def claim(self, arrival: Arrival) -> bool:
        """See `TriggerStore.claim`."""
        async with self._singles:
            return await self._retry.call("claim a prepared job", lambda: self._store.claim(arrival))

    async def _add(self, triggers: list[Trigger]) -> Sequence[None]:
        # DynamoDB refuses a batch that names a key twice, and two messages may bring the same job.
        distinct = list({trigger.key: trigger for trigger in triggers}.values())
        await self._write_all("store triggers", distinct, self._store.add)
        return [None] * len(triggers)

    async def _remove(self, keys: list[TriggerKey]) -> Sequence[None]:
        await self._write_all("remove triggers", list(dict.fromkeys(keys)), self._store.remove)
        return [None] * len(keys)

    async def _look_up(self, keys: list[TriggerKey]) -> Sequence[Tombstone | None]:
        distinct = list(dict.fromkeys(keys))
        found = await self._retry.call("look up tombstones", lambda: self._store.tombstones(distinct))
        by_key = {tombstone.key: tombstone for tombstone in found}
        return [by_key.get(key) for key in keys]

    async def _write_all(
        self, what: str, items: list[ItemT], write: Callable[[Sequence[ItemT]], Awaitable[list[ItemT]]]
    ) -> None:
        """Call ``write``, which returns what it left undone, until that is nothing."""
        left = items

        async def attempt() -> int:
            nonlocal left
            left = await write(left)
            return len(left)

        await self._retry.until_none_left(what, attempt)
