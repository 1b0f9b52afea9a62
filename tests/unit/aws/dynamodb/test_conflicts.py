"""A mass cancel or move on one shard, with conflicts as DynamoDB has them: renewals go through, no caller is refused.

While a transaction is under way on an item, DynamoDB refuses any other transaction and any write to it (Developer
Guide, "Transaction conflict handling"). Every cancel and move checks its shard's record, which its owner has to renew.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import TYPE_CHECKING, Any, cast

import pytest

from dynein.aws.dynamodb.items import shard_item, trigger_item
from dynein.aws.dynamodb.shards import DynamoShardRecords
from dynein.aws.dynamodb.table import DynamoTable
from dynein.aws.dynamodb.triggers import DynamoTriggerStore
from dynein.core.keys import TriggerKey
from dynein.core.shard_records import new_shard_record
from dynein.core.trigger_store import Cancelled, Moved
from dynein.errors import DyneinError
from dynein.observability.telemetry import Telemetry
from dynein.runtime.context import Context
from dynein.testing import ManualClock
from tests.unit.aws.dynamodb.test_table import refused, trigger

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient

TRANSACTION_S, WRITE_S = 0.012, 0.004
"""How long each has its items."""
NETWORK_S = 0.002
API_PROCESSES, CANCELS, MOVES = 4, 150, 40
RENEW_WITHIN_S = 3.0
"""The settings' ``lease_ttl_s`` less what a send may take, with the defaults: beyond it nothing is sent."""


TRIGGERS = {number: trigger(number) for number in range(API_PROCESSES * MOVES)}


class Contended:
    """A client of a table in which items under way are refused to others. It knows shard records alone."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._record = new_shard_record(0, clock.now_ms(), 60_000)._replace(owner="me", fence=1)
        self._under_way: set[str] = set()
        self.conflicts = 0
        self.meta = self.config = self
        self.read_timeout = 60.0

    async def transact_write_items(self, **request: Any) -> dict[str, Any]:
        actions = [next(iter(action.values())) for action in request["TransactItems"]]
        items = {str(action.get("Key") or action["Item"]["pk"]) for action in actions}
        await self._clock.sleep(NETWORK_S)
        if items & self._under_way:
            self.conflicts += 1
            raise refused("TransactionCanceledException", ["TransactionConflict"])
        self._under_way |= items
        await self._clock.sleep(TRANSACTION_S)
        self._under_way -= items
        return {}

    async def batch_get_item(self, **request: Any) -> dict[str, Any]:
        """Whatever job is asked for is stored, and no tombstone."""
        wanted = request["RequestItems"]["t"]["Keys"]
        await self._clock.sleep(NETWORK_S)
        stored = [trigger_item(TRIGGERS[number], 60_000) for number in TRIGGERS]
        found = [item for item in stored if {"pk": item["pk"], "sk": item["sk"]} in wanted]
        return {"Responses": {"t": [shard_item(self._record), *found]}}

    async def update_item(self, **request: Any) -> dict[str, Any]:
        item = str(request["Key"])
        await self._clock.sleep(NETWORK_S)
        if item in self._under_way:
            self.conflicts += 1
            raise refused("TransactionConflictException")
        self._under_way.add(item)
        await self._clock.sleep(WRITE_S)
        self._under_way.discard(item)
        return {"Attributes": shard_item(self._record)}


class Scene:
    def __init__(self, seed: int) -> None:
        self.clock = ManualClock()
        self.client = Contended(self.clock)
        self._seed = seed
        self.renewed_at = [0.0]

    def table(self, number: int) -> DynamoTable:
        """One process's."""
        context = Context(self.clock, random.Random(self._seed * 100 + number), Telemetry())
        return DynamoTable(cast("DynamoDBClient", self.client), "t", context)

    async def cancel(self, store: DynamoTriggerStore, number: int) -> str:
        key = TriggerKey(self.clock.now_ms() + 600_000 + number, number.to_bytes(12, "big"), 0)
        try:
            return "cancelled" if await store.cancel(key) is Cancelled.CANCELLED else "?"
        except DyneinError as error:
            return type(error).__name__

    async def move(self, store: DynamoTriggerStore, number: int) -> str:
        moved = trigger(number + 1_000_000)
        try:
            return "moved" if await store.move(trigger(number).key, moved) is Moved.MOVED else "?"
        except DyneinError as error:
            return type(error).__name__

    async def renew(self) -> None:
        """As a lease keeper does, once a second, each time for as long as it may take."""
        shards = DynamoShardRecords(self.table(99))
        mine = new_shard_record(0, 0, 60_000)._replace(owner="me", fence=1)
        while True:
            try:
                await shards.renew(mine, read_mark_ms=mine.read_mark_ms, settled_mark_ms=0, retired_before=0)
            except DyneinError:
                pass
            else:
                self.renewed_at.append(self.clock.monotonic())
            await self.clock.sleep(1.0)

    def longest_without_renewal_s(self) -> float:
        times = [*self.renewed_at, self.clock.monotonic()]
        return max(later - earlier for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize("seed", range(3))
async def test_a_mass_cancel_on_one_shard_starves_neither_its_owner_nor_its_callers(seed: int) -> None:
    scene = Scene(seed)
    renewing = asyncio.ensure_future(scene.renew())
    stores = [DynamoTriggerStore(scene.table(number), 60_000) for number in range(API_PROCESSES)]
    cancels = [
        asyncio.ensure_future(scene.cancel(store, number * CANCELS + i))
        for number, store in enumerate(stores)
        for i in range(CANCELS)
    ]
    await scene.clock.run_until(lambda: all(cancel.done() for cancel in cancels))
    renewing.cancel()
    outcomes = {cancel.result() for cancel in cancels}
    assert outcomes == {"cancelled"}
    assert scene.longest_without_renewal_s() < RENEW_WITHIN_S
    assert scene.client.conflicts < API_PROCESSES * CANCELS / 5, "a process has one transaction a shard at a time"


@pytest.mark.parametrize("seed", range(3))
async def test_nor_does_one_that_goes_on(seed: int) -> None:
    """Sixty cancels a second from each process, for ten seconds."""
    scene = Scene(seed)
    renewing = asyncio.ensure_future(scene.renew())
    stores = [DynamoTriggerStore(scene.table(number), 60_000) for number in range(API_PROCESSES)]
    cancels = []
    for second in range(10):
        for number, store in enumerate(stores):
            first = (number * 10 + second) * 60
            cancels += [asyncio.ensure_future(scene.cancel(store, first + i)) for i in range(60)]
        await scene.clock.advance(1.0)
    await scene.clock.run_until(lambda: all(cancel.done() for cancel in cancels))
    renewing.cancel()
    assert {cancel.result() for cancel in cancels} == {"cancelled"}
    assert scene.longest_without_renewal_s() < RENEW_WITHIN_S


@pytest.mark.parametrize("seed", range(3))
async def test_nor_does_a_mass_move(seed: int) -> None:
    scene = Scene(seed)
    renewing = asyncio.ensure_future(scene.renew())
    stores = [DynamoTriggerStore(scene.table(number), 60_000) for number in range(API_PROCESSES)]
    moves = [
        asyncio.ensure_future(scene.move(store, number * MOVES + i))
        for number, store in enumerate(stores)
        for i in range(MOVES)
    ]
    await scene.clock.run_until(lambda: all(move.done() for move in moves))
    renewing.cancel()
    assert {move.result() for move in moves} == {"moved"}
    assert scene.longest_without_renewal_s() < RENEW_WITHIN_S
