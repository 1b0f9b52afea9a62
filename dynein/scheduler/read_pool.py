"""Who reads next: a bounded number of reads at once, the shards taking turns page by page."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from dynein.errors import FatalError
from dynein.observability.events.scheduler import READ_FAILED
from dynein.scheduler.memory_budget import MemoryBudget
from dynein.scheduler.shard_reader import ShardReader, Step


class ReadPool:
    """Readers that have something to read. Each is in the queue once at most, so the number of shards bounds it."""

    def __init__(self, memory: MemoryBudget, after_step: Callable[[ShardReader], Awaitable[None]]) -> None:
        self._memory = memory
        self._after_step = after_step
        self._queue: deque[ShardReader] = deque()
        self._queued: set[ShardReader] = set()
        self._reading: set[ShardReader] = set()
        self._woken: set[ShardReader] = set()
        """Scheduled while they were reading a page: they read on after it."""
        self._wakers: deque[asyncio.Future[None]] = deque()
        self._turn = asyncio.Lock()
        """Held by the one of all readers that is taking in a page: what is due must get its turn in between."""

    def schedule(self, reader: ShardReader) -> None:
        """Let ``reader`` read until it has nothing more to."""
        if reader in self._reading:
            self._woken.add(reader)
        elif reader not in self._queued:
            self._queued.add(reader)
            self._queue.append(reader)
            self._wake_one()

    async def run(self) -> None:
        """One worker. Runs until cancelled; raises `FatalError` when an operator has to act."""
        while True:
            reader = await self._next()
            self._reading.add(reader)
            try:
                more = await self._step(reader)
            finally:
                self._reading.discard(reader)
            if more or reader in self._woken:
                self._woken.discard(reader)
                self.schedule(reader)

    async def _step(self, reader: ShardReader) -> bool:
        """One page; whether there is more. A failed read is tried again at the next tick, which is pause enough."""
        try:
            step = await reader.step(self._turn)
            await self._after_step(reader)
        except FatalError:
            raise
        except Exception as error:  # noqa: BLE001 - one shard's failure must not end the others' reading
            READ_FAILED.log(error, shard=reader.lease.shard)
            return False
        if step is Step.NO_ROOM:
            self._memory.when_room(reader.wake)
        return step is Step.MORE

    async def _next(self) -> ShardReader:
        while not self._queue:
            waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._wakers.append(waker)
            try:
                await waker
            finally:
                if waker in self._wakers:
                    self._wakers.remove(waker)
        reader = self._queue.popleft()
        self._queued.discard(reader)
        return reader

    def _wake_one(self) -> None:
        while self._wakers:
            waker = self._wakers.popleft()
            if not waker.done():
                waker.set_result(None)
                return
