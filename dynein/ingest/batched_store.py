"""The trigger store as the ingester uses it: many messages share few calls, each repeated until it succeeds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from dynein.core.inbound_message import Arrival
from dynein.core.keys import TriggerKey, bucket_of
from dynein.core.shard_records import Layout
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import ADD_MAX, LOOKUP_MAX, REMOVE_MAX, Found, Tombstone, TriggerStore
from dynein.ingest.admission import jobs_max
from dynein.runtime.partitioned_commit import PartitionedCommit
from dynein.runtime.retry import Retry
from dynein.settings import Settings

CALLS_IN_FLIGHT_MAX = 8
"""Batch calls of one kind under way; also single-item calls, together."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class _Lookup:
    """One key, and what was found there."""

    __slots__ = ("found", "key")

    def __init__(self, key: TriggerKey) -> None:
        self.key = key
        self.found: Tombstone | None = None


class BatchedStore:
    """Every verb returns once the store has done it, however often that has to be tried.

    A partition that takes nothing delays what is in it, and nothing else: no call, and no place for one, is kept while
    something waits to be tried again. What waits for each kind of call is bounded by `jobs_max`, which `Admission`
    keeps from being reached.
    """

    def __init__(self, store: TriggerStore, layout: Layout, retry: Retry, settings: Settings) -> None:
        self._store = store
        self._bucket_width_ms = layout.bucket_width_ms
        self._waiting_max = jobs_max(settings)
        self._retry = retry
        self._singles = asyncio.Semaphore(CALLS_IN_FLIGHT_MAX)
        self._adds = self._commit("store triggers", self._add, ADD_MAX, lambda trigger: trigger.key)
        self._removals = self._commit("remove triggers", self._remove, REMOVE_MAX, lambda key: key)
        self._lookups = self._commit("look up tombstones", self._look_up, LOOKUP_MAX, lambda lookup: lookup.key)

    def _commit(
        self,
        what: str,
        call: Callable[[list[ItemT]], Awaitable[list[bool]]],
        entries_max: int,
        key_of: Callable[[ItemT], TriggerKey],
    ) -> PartitionedCommit[ItemT]:
        return PartitionedCommit(
            what,
            call,
            partition_of=lambda item: self._partition_of(key_of(item)),
            retry=self._retry,
            entries_max=entries_max,
            waiting_max=self._waiting_max,
            in_flight_max=CALLS_IN_FLIGHT_MAX,
        )

    async def add(self, triggers: Sequence[Trigger]) -> None:
        """Store them."""
        await asyncio.gather(*[self._adds.submit(trigger) for trigger in triggers])

    async def remove(self, key: TriggerKey) -> None:
        """Remove a trigger."""
        await self._removals.submit(key)

    async def tombstones(self, keys: Sequence[TriggerKey]) -> list[Tombstone | None]:
        """For each key its tombstone, if it has one, by a read begun after this call."""
        lookups = [_Lookup(key) for key in keys]
        await asyncio.gather(*[self._lookups.submit(lookup) for lookup in lookups])
        return [lookup.found for lookup in lookups]

    async def find(self, key: TriggerKey) -> Found:
        """What is stored at ``key``."""
        return await self._single("find a trigger", lambda: self._store.find(key))

    async def claim(self, arrival: Arrival) -> bool:
        """See `TriggerStore.claim`."""
        return await self._single("claim a prepared job", lambda: self._store.claim(arrival))

    async def _single(self, what: str, call: Callable[[], Awaitable[ResultT]]) -> ResultT:
        async def once() -> ResultT:
            async with self._singles:
                return await call()

        return await self._retry.call(what, once)

    async def _add(self, triggers: list[Trigger]) -> list[bool]:
        # DynamoDB refuses a batch that names a key twice, and two messages may bring the same job.
        distinct = list({trigger.key: trigger for trigger in triggers}.values())
        undone = {trigger.key for trigger in await self._store.add(distinct)}
        return [trigger.key not in undone for trigger in triggers]

    async def _remove(self, keys: list[TriggerKey]) -> list[bool]:
        undone = set(await self._store.remove(list(dict.fromkeys(keys))))
        return [key not in undone for key in keys]

    async def _look_up(self, lookups: list[_Lookup]) -> list[bool]:
        found = await self._store.tombstones(list(dict.fromkeys(lookup.key for lookup in lookups)))
        by_key = {tombstone.key: tombstone for tombstone in found}
        for lookup in lookups:
            lookup.found = by_key.get(lookup.key)
        return [True] * len(lookups)

    def _partition_of(self, key: TriggerKey) -> tuple[int, int]:
        return bucket_of(key.due_at_ms, self._bucket_width_ms), key.shard
