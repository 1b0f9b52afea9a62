"""Writes to a store of many partitions: in group commits, and each repeated until it is done.

DynamoDB limits each partition by itself, and of a batch it may write some items and leave those of a busy partition
undone. If a call were repeated until nothing of it is left, everything that shares the call would wait for that
partition, and a few such calls would hold up all other writes. So a call is made once. What it leaves undone waits
outside of any call, together with the further writes of its partition, and is tried again at that partition's own pace;
the other partitions' writes go on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

from dynein.errors import FatalError, Overloaded, Retryable
from dynein.runtime.group_commit import Batch, GroupCommit
from dynein.runtime.retry import Retry, RetryEnded

ItemT = TypeVar("ItemT")


class _Undone(NamedTuple, Generic[ItemT]):
    item: ItemT
    done: asyncio.Future[None]


class _SlowPartition(NamedTuple, Generic[ItemT]):
    """One that has left a write undone, until it has taken everything that waits for it."""

    waiting: deque[_Undone[ItemT]]
    working: asyncio.Task[None]


class PartitionedCommit(Generic[ItemT]):
    """Batches submissions into calls of ``write``; each submission is repeated until it is done.

    ``write`` gets up to ``entries_max`` items, and says of each whether it is done now. If it raises one of
    ``retry_on``, none is. Any other error, and any `FatalError`, becomes the result of all items of that call.
    ``partition_of`` an item may be anything that can be compared; items of one partition share their pauses, which are
    those of ``retry``. ``what`` describes the write in the log. At most ``in_flight_max`` first tries are under way at
    once, and as many repeats.
    """

    # What it is asked for, in one place: two callers, each with its own errors, bounds and pauses.
    def __init__(
        self,
        what: str,
        write: Callable[[list[ItemT]], Awaitable[Sequence[bool]]],
        *,
        partition_of: Callable[[ItemT], Hashable],
        retry: Retry,
        retry_on: tuple[type[Exception], ...] = (Retryable,),
        entries_max: int,
        waiting_max: int,
        in_flight_max: int,
    ) -> None:
        self._what = what
        self._write = write
        self._partition_of = partition_of
        self._retry = retry
        self._retry_on = retry_on
        self._entries_max = entries_max
        self._waiting_max = waiting_max
        self._first_tries: GroupCommit[ItemT, None] = GroupCommit(
            self._try_first, entries_max=entries_max, waiting_max=waiting_max, in_flight_max=in_flight_max
        )
        self._repeats: GroupCommit[_Undone[ItemT], None] = GroupCommit(
            self._try_again, entries_max=entries_max, waiting_max=waiting_max, in_flight_max=in_flight_max
        )
        self._slow: dict[Hashable, _SlowPartition[ItemT]] = {}
        self._undone = 0
        """Submissions that wait for slow partitions."""
        self._failures = 0
        """Calls that have failed in a row."""

    def submit(self, item: ItemT) -> asyncio.Future[None]:
        """Write ``item``; the future ends when that is done. Raises `Overloaded` when ``waiting_max`` are waiting.

        The future has `RetryEnded` if it was not done before the retries ended.
        """
        if not self._slow:
            return self._first_tries.submit(item)
        if self._undone + self._first_tries.waiting >= self._waiting_max:
            raise Overloaded(f"{self._waiting_max} submissions are waiting for one store already")
        slow = self._slow.get(self._partition_of(item))
        if slow is None:
            return self._first_tries.submit(item)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        slow.waiting.append(_Undone(item, done))
        self._undone += 1
        return done

    # --- tries ------------------------------------------------------------------------------------------------------

    async def _try_first(self, batch: Batch[ItemT, None]) -> list[None]:
        for index, done in enumerate(await self._try(list(batch))):
            if not done:
                self._set_aside(_Undone(batch[index], batch.take(index)))
        return [None] * len(batch)

    async def _try_again(self, undone: list[_Undone[ItemT]]) -> list[None]:
        try:
            results = await self._try([item for item, _ in undone])
        except Exception as error:  # noqa: BLE001 - it is the submitters'
            for _, future in undone:
                _fail(future, error)
        else:
            for (_, future), done in zip(undone, results, strict=True):
                if done and not future.done():
                    future.set_result(None)
        return [None] * len(undone)

    async def _try(self, items: list[ItemT]) -> Sequence[bool]:
        try:
            results = await self._write(items)
        except FatalError:
            raise
        except self._retry_on as error:
            self._failures += 1
            self._retry.report(self._what, error, self._failures)
            return [False] * len(items)
        self._failures = 0
        return results

    # --- slow partitions --------------------------------------------------------------------------------------------

    def _set_aside(self, undone: _Undone[ItemT]) -> None:
        partition = self._partition_of(undone.item)
        slow = self._slow.get(partition)
        if slow is None:
            waiting: deque[_Undone[ItemT]] = deque()
            slow = _SlowPartition(waiting, asyncio.ensure_future(self._work_off(partition, waiting)))
            self._slow[partition] = slow
        slow.waiting.append(undone)
        self._undone += 1

    async def _work_off(self, partition: Hashable, waiting: deque[_Undone[ItemT]]) -> None:
        """Repeat what waits for ``partition``: a call's worth after a pause, twice as much after each full success."""
        share, failures = self._entries_max, 1
        try:
            while waiting:
                if failures:
                    await self._retry.pause(failures)
                tried = self._next(waiting, share)
                if not tried:
                    continue
                await asyncio.wait([self._repeats.submit(undone) for undone in tried])
                left = [undone for undone in tried if not undone.done.done()]
                waiting.extendleft(reversed(left))
                self._undone += len(left)
                if not left:
                    share, failures = 2 * share, 0
                else:
                    share = max(self._entries_max, share // 2)
                    failures = failures + 1 if len(left) == len(tried) else 1
        except RetryEnded as error:
            for _, future in self._next(waiting, len(waiting)):
                _fail(future, error)
        finally:
            del self._slow[partition]

    def _next(self, waiting: deque[_Undone[ItemT]], items_max: int) -> list[_Undone[ItemT]]:
        """Take up to ``items_max`` that somebody still waits for."""
        taken = [waiting.popleft() for _ in range(min(items_max, len(waiting)))]
        self._undone -= len(taken)
        return [undone for undone in taken if not undone.done.done()]


def _fail(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # not every submitter waits for the end
