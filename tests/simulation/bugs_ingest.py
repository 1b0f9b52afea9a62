"""Bugs between a request and the trigger store: what the API responds, what becomes of an inbound message."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from dynein.api import app, routes
from dynein.api.stored_jobs import StoredJobs
from dynein.core.keys import TriggerKey
from dynein.core.queues import Received
from dynein.errors import DyneinError, Overloaded, Unavailable
from dynein.ingest import received_messages
from dynein.ingest.admission import Admission
from dynein.ingest.batched_store import BatchedStore
from dynein.ingest.late_writes import LateWrites
from dynein.ingest.marks_cache import MarksCache
from dynein.ingest.received_messages import ReceivedMessages
from dynein.ingest.standing import Standing
from dynein.ingest.visibility import Visibility
from dynein.runtime.partitioned_commit import PartitionedCommit
from tests.simulation.engines import WiredQueues, WiredTable
from tests.simulation.mutation import GULLIBLE, Mutation, answer, result, returns


def _accept_before_acknowledged(original: Any) -> Any:
    async def send(self: WiredQueues, url: str, messages: Sequence[Any]) -> Any:
        if url.endswith("dynein-inbound"):
            try:
                await original(self, url, messages)
            except Exception:  # noqa: BLE001 - that is the bug
                return [None] * len(messages)
        return await original(self, url, messages)

    return send


def _cancels_anything(original: Any) -> Any:
    async def cancel(self: StoredJobs, ref: Any) -> None:
        try:
            await original(self, ref)
        except DyneinError:
            return

    return cancel


def _back_to_a_key_it_left(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    async def free_key(_: StoredJobs, key: TriggerKey, due_ms: int) -> TriggerKey:
        return key._replace(due_at_ms=due_ms)

    return free_key


def _nothing_was_accepted(original: Any) -> Any:
    return lambda error, instance: original(Overloaded("") if isinstance(error, Unavailable) else error, instance)


def _in_the_wrong_order(original: Any) -> Any:
    async def accept(submissions: Any, items: Sequence[Any], *arguments: Any) -> Any:
        outcomes = await original(submissions, items, *arguments)
        return [*outcomes[1:], *outcomes[:1]]

    return accept


def _delete_before_store(original: Any) -> Any:
    async def finish(self: ReceivedMessages, message: Received) -> None:
        await self._inbox.delete(message.receipt)
        await original(self, message)

    return finish


def _first_half(original: Any) -> Any:
    async def add(self: BatchedStore, triggers: Sequence[Any]) -> None:
        await original(self, triggers[: (len(triggers) + 1) // 2])

    return add


def _three_tries(original: Any) -> Any:
    tries: Counter[TriggerKey] = Counter()

    async def attempt(self: PartitionedCommit[Any], items: list[Any]) -> Any:
        if self._what != "store triggers":
            return await original(self, items)
        results = await original(self, items)
        tries.update(trigger.key for trigger in items)
        return [done or tries[trigger.key] >= 3 for trigger, done in zip(items, results, strict=True)]

    return attempt


def _flights_wait(original: Any) -> Any:
    """As it was: the call is repeated until nothing of it is left, and keeps its place among eight meanwhile."""

    async def attempt(self: PartitionedCommit[Any], items: list[Any]) -> Any:
        failures = 0
        left = items
        while left:
            results = await original(self, left)
            left = [item for item, done in zip(left, results, strict=True) if not done]
            failures += 1
            if left:
                await self._retry.pause(failures)
        return [True] * len(items)

    return attempt


def _mark_afterwards(original: Any) -> Any:
    async def cover(self: MarksCache, due_at_ms: Any) -> None:
        asyncio.ensure_future(original(self, due_at_ms))  # noqa: RUF006 - as careless as the bug

    return cover


def _every_message(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    async def enter(self: Admission, jobs: int, *rest: int) -> bool:
        self.turn_away()
        self.slots += rest[0] if rest else jobs
        return True

    return enter


def _unverified(original: Any) -> Any:
    return lambda body, _: original(body, GULLIBLE)


BUGS = (
    Mutation("202 although the inbound queue did not respond", WiredQueues, "send", _accept_before_acknowledged),
    Mutation("a cancel is 200 whatever its outcome in the store", StoredJobs, "_cancel", _cancels_anything),
    Mutation("a move goes back to a key that the job has left", StoredJobs, "_free_key", _back_to_a_key_it_left),
    Mutation("report a job in doubt as not accepted", app, "problem_of", _nothing_was_accepted),
    Mutation("the results of a batch are in the wrong order", routes, "_accept_batch", _in_the_wrong_order),
    Mutation(
        "delete the inbound message before its jobs are stored", ReceivedMessages, "_finish", _delete_before_store
    ),
    Mutation("delete the inbound message when half of it is stored", BatchedStore, "add", _first_half),
    Mutation("ignore `UnprocessedItems` of a write", WiredTable, "add", result(lambda left: left[:0])),
    Mutation("assume a trigger written after three tries", PartitionedCommit, "_try", _three_tries),
    Mutation("a partition that takes no writes holds up all others", PartitionedCommit, "_try", _flights_wait),
    Mutation("skip the check after a write", LateWrites, "report", answer([])),
    Mutation("report a late write without counting it", WiredTable, "report_late", answer(value=True)),
    Mutation("never extend the visibility of a message", Visibility, "run_once", answer(1.0)),
    Mutation("an ingester admits every message at once", Admission, "enter", _every_message),
    Mutation("an ingester does not verify signatures", received_messages, "unpack", _unverified),
    Mutation("every create of a prepared job goes ahead", WiredTable, "claim", answer(value=True)),
    Mutation("an ingester ignores tombstones", WiredTable, "tombstones", answer([])),
    Mutation("hold a job without raising the hold mark", MarksCache, "cover", answer(None)),
    Mutation("check for tombstones as soon as the hold mark is raised", Standing, "wait_s", returns(0.0)),
    Mutation("raise the hold mark after checking for tombstones", MarksCache, "cover", _mark_afterwards),
)
