"""Bugs between a request and the trigger store: what the API answers, what becomes of an inbound message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from dynein.api import app, routes
from dynein.api.stored_jobs import ExistingJobs
from dynein.core.queues import Received
from dynein.errors import DyneinError, Overloaded, Unavailable
from dynein.ingest.admission import Gate
from dynein.ingest.batched_store import BatchedStore
from dynein.ingest.ingester import Ingester
from dynein.ingest.late_writes import LateWrites
from dynein.ingest.marks_cache import ShardView
from dynein.ingest.visibility import Visibility
from tests.simulation.engines import WiredQueues, WiredTable
from tests.simulation.mutation import Mutation, answer, result


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
    async def cancel(self: ExistingJobs, ref: Any) -> None:
        try:
            await original(self, ref)
        except DyneinError:
            return

    return cancel


def _nothing_was_accepted(original: Any) -> Any:
    return lambda error, instance: original(Overloaded("") if isinstance(error, Unavailable) else error, instance)


def _in_the_wrong_order(original: Any) -> Any:
    async def accept(submissions: Any, items: Sequence[Any], *arguments: Any) -> Any:
        outcomes = await original(submissions, items, *arguments)
        return [*outcomes[1:], *outcomes[:1]]

    return accept


def _delete_before_store(original: Any) -> Any:
    async def finish(self: Ingester, message: Received) -> None:
        await self._inbox.delete(message.receipt)
        await original(self, message)

    return finish


def _first_half(original: Any) -> Any:
    async def add(self: BatchedStore, triggers: Sequence[Any]) -> None:
        await original(self, triggers[: (len(triggers) + 1) // 2])

    return add


def _three_tries(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    async def until_none_is_left(self: BatchedStore, items: dict[Any, Any], write: Any) -> None:
        left = list(items.values())
        for failures in range(1, 4):
            with suppress(Unavailable):
                left = await write(left)
            if not left:
                return
            await self._retrying.pause(failures)

    return until_none_is_left


def _mark_afterwards(original: Any) -> Any:
    async def cover(self: ShardView, due_at_ms: Any) -> None:
        asyncio.ensure_future(original(self, due_at_ms))  # noqa: RUF006 - as careless as the bug

    return cover


def _everybody(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    async def enter(self: Gate, jobs: int, *rest: int) -> bool:
        self.turn_away()
        self.slots += rest[0] if rest else jobs
        return True

    return enter


BUGS = (
    Mutation("202 although the inbound queue did not answer", WiredQueues, "send", _accept_before_acknowledged),
    Mutation("answer a cancel with 200 whatever the store says", ExistingJobs, "_cancel", _cancels_anything),
    Mutation("say that nothing was accepted when nobody knows", app, "problem_of", _nothing_was_accepted),
    Mutation("answer the jobs of a batch in another order", routes, "_accept_batch", _in_the_wrong_order),
    Mutation("delete the inbound message before its jobs are stored", Ingester, "_finish", _delete_before_store),
    Mutation("delete the inbound message when half of it is stored", BatchedStore, "add", _first_half),
    Mutation("ignore `UnprocessedItems` of a write", WiredTable, "add", result(lambda left: left[:0])),
    Mutation("take a trigger for written after three tries", BatchedStore, "_until_none_is_left", _three_tries),
    Mutation("skip the check after a write", LateWrites, "report", answer([])),
    Mutation("report a late write without counting it", WiredTable, "report_late", answer(value=True)),
    Mutation("never extend the visibility of a message", Visibility, "run_once", answer(1.0)),
    Mutation("an ingester lets in whatever comes", Gate, "enter", _everybody),
    Mutation("every create of a prepared job goes ahead", WiredTable, "claim", answer(value=True)),
    Mutation("an ingester does not look for tombstones", WiredTable, "tombstones", answer([])),
    Mutation("hold a job in hand without raising the hold mark", ShardView, "cover", answer(None)),
    Mutation("raise the hold mark after looking for tombstones", ShardView, "cover", _mark_afterwards),
)
