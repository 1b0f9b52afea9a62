"""Bugs in what a dispatcher holds in memory: triggers dropped, a broken heap, lost wake-ups, a lost lease forgotten."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from dynein.core.due_job import Outcome
from dynein.delivery.due_timer import DueTimer
from dynein.runtime.group_commit import GroupCommit
from dynein.scheduler.lease_keeper import LeaseKeeper
from dynein.scheduler.memory_budget import MemoryBudget
from dynein.scheduler.overflow import Overflow
from dynein.scheduler.read_pool import ReadPool
from dynein.scheduler.sender import Sender
from dynein.scheduler.shard_buffer import BufferedTrigger, ShardBuffer, Stage
from dynein.scheduler.shard_reader import ShardReader
from tests.simulation.mutation import Mutation


def _dropped_when_stale(original: Any) -> Any:
    def submit(self: Sender, entry: BufferedTrigger) -> None:
        if not entry.buffer.lease.valid():
            entry.buffer.drop(entry)
        else:
            original(self, entry)

    return submit


def _dropped_when_abandoned(original: Any) -> Any:
    def delivered(self: Sender, entry: BufferedTrigger, queue: str, future: Any) -> None:
        if not future.cancelled() and future.exception() is None and future.result() is Outcome.ABANDONED:
            self._overflow.lane_drained(queue, self._lanes.leave(queue, entry.slots))
            entry.future = None
            entry.buffer.drop(entry)
            return
        original(self, entry, queue, future)

    return delivered


def _dropped_from_the_overflow(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    def refill(self: Overflow, queue: str) -> None:
        while (entry := self._first(queue)) is not None:
            assert entry.job is not None
            if not entry.buffer.lease.valid():
                self._drop_first(queue)
                entry.buffer.drop(entry)
            elif self._send(entry, entry.job):
                self._drop_first(queue)
            else:
                return

    return refill


def _sent_when_stale(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    def may_send(self: BufferedTrigger) -> bool:
        self.stage = Stage.TRYING
        self.tried_at = self.buffer.clock.monotonic()
        return not self.buffer.closed

    return may_send


def _no_heap(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    def discard(self: DueTimer[Any], unwanted: Callable[[Any], bool]) -> list[Any]:
        discarded = sorted(entry for entry in self._heap if unwanted(entry[-1]))
        self._heap = [entry for entry in self._heap if not unwanted(entry[-1])]
        return [entry[-1] for entry in discarded]

    return discard


def _last_in_its_place(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    def discard(self: DueTimer[Any], unwanted: Callable[[Any], bool]) -> list[Any]:
        discarded, at = [], 0
        while at < len(self._heap):
            if not unwanted(self._heap[at][-1]):
                at += 1
                continue
            discarded.append(self._heap[at])
            last = self._heap.pop()
            if at < len(self._heap):
                self._heap[at] = last
        return [entry[-1] for entry in sorted(discarded)]

    return discard


def _only_the_first(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    def discard(self: DueTimer[Any], unwanted: Callable[[Any], bool]) -> list[Any]:
        discarded = []
        while self._heap and unwanted(self._heap[0][-1]):
            discarded.append(heapq.heappop(self._heap)[-1])
        return discarded

    return discard


def _all_shards(original: Any) -> Any:
    def forget(self: Sender, buffer: ShardBuffer) -> None:
        original(self, buffer)
        self._timer.discard(lambda _: True)

    return forget


def _whole_queues(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    def discard(self: Overflow, buffer: ShardBuffer) -> None:
        for queue in list(self._parked):
            if any(parked.entry.buffer is buffer for parked in self._parked[queue]):
                del self._parked[queue]

    return discard


def _forgotten_at_once(original: Any) -> Any:
    def lose(self: LeaseKeeper, lease: Any, work: Any) -> None:
        original(self, lease, work)
        del self._leases[lease.shard]

    return lose


def _removals_do_not_count(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    def settled(self: ShardBuffer, now: float, send_timeout_s: float) -> bool:
        return not any(
            entry.stage is not Stage.REMOVING and now - entry.tried_at < send_timeout_s
            for entry in self._entries.values()
        )

    return settled


def _not_while_reading(original: Any) -> Any:
    def schedule(self: ReadPool, reader: ShardReader) -> None:
        if reader not in self._reading:
            original(self, reader)

    return schedule


def _wake_only_when_empty(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    def add(self: DueTimer[Any], due_at_ms: int, item: Any, order: bytes = b"") -> None:
        self._added += 1
        if not self._heap:
            self._earlier.set()
        heapq.heappush(self._heap, (due_at_ms, order, self._added, item))

    return add


def _wake_nobody_for_room(original: Any) -> Any:
    def give_back(self: MemoryBudget, slots: int) -> None:
        waiting, self._waiting = self._waiting, type(self._waiting)()
        original(self, slots)
        self._waiting = waiting

    return give_back


def _no_launch_after_landing(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    def landed(self: GroupCommit[Any, Any], flight: Any) -> None:
        self._flights.discard(flight)
        if not self._waiting and not self._flights:
            self._idle.set()

    return landed


BUGS = (
    Mutation("drop a trigger that is due while the lease is stale", Sender, "_submit", _dropped_when_stale),
    Mutation("drop a trigger that its lane abandoned", Sender, "_delivered", _dropped_when_abandoned),
    Mutation("drop a parked trigger when the lease is stale", Overflow, "_refill", _dropped_from_the_overflow),
    Mutation("do not ask for the lease right before a send", BufferedTrigger, "may_send", _sent_when_stale),
    Mutation("leave no heap when a shard leaves", DueTimer, "discard", _no_heap),
    Mutation("fill gaps of the heap from its end when a shard leaves", DueTimer, "discard", _last_in_its_place),
    Mutation("discard only the first of a shard that leaves", DueTimer, "discard", _only_the_first),
    Mutation("forget the triggers of all shards when one leaves", Sender, "forget", _all_shards),
    Mutation("forget parked triggers of all shards when one leaves", Overflow, "discard", _whole_queues),
    Mutation("forget a lost lease while calls are under way", LeaseKeeper, "_lose", _forgotten_at_once),
    Mutation("removals do not keep a shard from being settled", ShardBuffer, "settled", _removals_do_not_count),
    Mutation("lose a wake-up during a read", ReadPool, "schedule", _not_while_reading),
    Mutation("wake the timer only when it was empty", DueTimer, "add", _wake_only_when_empty),
    Mutation("wake nobody when memory is free again", MemoryBudget, "give_back", _wake_nobody_for_room),
    Mutation("do not begin the next call when one has ended", GroupCommit, "_landed", _no_launch_after_landing),
)
