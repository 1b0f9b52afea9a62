"""Deliberate bugs, to prove that the simulation finds such. ``python -m tests.simulation --mutations 40`` plants each.

Each is a test-only patch of one method of the product. A mutation that no seed finds says that the simulation is blind
there: then the simulation is improved, not the list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from dynein.errors import DyneinError
from dynein.ingest.ingester import Ingester
from dynein.ingest.late_writes import LateWrites
from dynein.ingest.shard_view import ShardView
from dynein.partition import TriggerKey, bucket_of
from dynein.queue import Received
from dynein.scheduler.dispatch_plan import Walk
from dynein.scheduler.due_heap import DueHeap
from dynein.scheduler.hand import Hand
from dynein.scheduler.leases import Lease, LeaseKeeper
from dynein.scheduler.sender import Sender
from dynein.scheduler.shard_reader import ShardReader
from dynein.testing.table_state import TableState
from tests.simulation.engines import WiredQueues, WiredTable


class Mutation(NamedTuple):
    """One bug."""

    name: str
    owner: type
    attribute: str
    make: Callable[[Any], Any]
    """From what is there to what stands there instead."""


def _delete_before_store(original: Any) -> Any:
    async def finish(self: Ingester, message: Received) -> None:
        await self._inbox.delete(message.receipt)
        await original(self, message)

    return finish


def _ignore_failed(original: Any) -> Any:
    async def send(self: WiredQueues, url: str, messages: Sequence[Any]) -> list[None]:
        await original(self, url, messages)
        return [None] * len(messages)

    return send


def _ignore_unprocessed(original: Any) -> Any:
    async def write(self: WiredTable, items: Sequence[Any]) -> list[Any]:
        await original(self, items)
        return []

    return write


def _answer(value: Any) -> Callable[[Any], Any]:
    def make(original: Any) -> Any:  # noqa: ARG001 - it is replaced
        async def verb(*_: Any, **__: Any) -> Any:
            return value

        return verb

    return make


def _return(value: Any) -> Callable[[Any], Any]:
    return lambda original: lambda *_, **__: value  # noqa: ARG005 - it is replaced


def _remove_when_due(original: Any) -> Any:
    def submit(self: Sender, entry: Any) -> None:
        removing = self._store.remove([entry.trigger.key])
        asyncio.ensure_future(_quietly(removing))  # noqa: RUF006 - as careless as the bug
        original(self, entry)

    return submit


async def _quietly(work: Coroutine[Any, Any, Any]) -> None:
    with suppress(DyneinError):
        await work


def _early(original: Any) -> Any:
    return lambda self, now_ms: original(self, now_ms + 300)


def _retire_unseen(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    def retire_before(self: ShardReader) -> int:
        return max(self.lease.record.retired_before, bucket_of(self._cursor_ms, self._limits.bucket_width_ms))

    return retire_before


def _cancel_ignores_marks(original: Any) -> Any:
    def cancel(self: TableState, key: TriggerKey) -> Any:
        record = self.shards[key.shard]
        self.shards[key.shard] = record._replace(read_mark_ms=0, hold_mark_ms=0)
        try:
            return original(self, key)
        finally:
            self.shards[key.shard] = record

    return cancel


def _forget_read_mark(original: Any) -> Any:
    async def renew(self: WiredTable, mine: Any, *, read_mark_ms: int, retired_before: int) -> Any:  # noqa: ARG001
        return await original(self, mine, read_mark_ms=mine.read_mark_ms, retired_before=retired_before)

    return renew


def _take_healthy(original: Any) -> Any:
    async def take(self: WiredTable, seen: Any, owner: str) -> Any:
        now = self._table.shards()[seen.shard]
        return await original(self, now, owner)

    return take


def _accept_before_acknowledged(original: Any) -> Any:
    async def send(self: WiredQueues, url: str, messages: Sequence[Any]) -> Any:
        if url.endswith("dynein-inbound"):
            try:
                await original(self, url, messages)
            except Exception:  # noqa: BLE001 - that is the bug
                return [None] * len(messages)
        return await original(self, url, messages)

    return send


def _half_page(original: Any) -> Any:
    async def read(self: WiredTable, *args: Any, **kwargs: Any) -> Any:
        page = await original(self, *args, **kwargs)
        return page._replace(resume=None)

    return read


MUTATIONS = (
    Mutation("delete the inbound message before its jobs are stored", Ingester, "_finish", _delete_before_store),
    Mutation("ignore `Failed` of SendMessageBatch", WiredQueues, "send", _ignore_failed),
    Mutation("ignore `UnprocessedItems` of a write", WiredTable, "add", _ignore_unprocessed),
    Mutation("skip the check after a write", LateWrites, "report", _answer([])),
    Mutation(
        "remove the trigger when it is due, not when its send is acknowledged", Sender, "_submit", _remove_when_due
    ),
    Mutation("send 300 ms early", DueHeap, "pop_due", _early),
    Mutation("trust a lease for ever", Lease, "valid", _return(value=True)),
    Mutation("take a shard without looking whether its owner still beats", WiredTable, "take", _take_healthy),
    Mutation("no fencing: renew whoever owns the shard", TableState, "_still_owned", _return(value=True)),
    Mutation("retire buckets without looking whether they are empty", ShardReader, "retire_before", _retire_unseen),
    Mutation("read without raising the read mark", WiredTable, "renew", _forget_read_mark),
    Mutation("cancel without looking at the marks", TableState, "cancel", _cancel_ignores_marks),
    Mutation("a dispatcher does not heed tombstones", Walk, "cancelled", _return(value=set())),
    Mutation("an ingester does not look for tombstones", WiredTable, "tombstones", _answer([])),
    Mutation("every create of a prepared job goes ahead", WiredTable, "claim", _answer(value=True)),
    Mutation("hold a job in hand without raising the hold mark", ShardView, "cover", _answer(None)),
    Mutation("take a page for the whole range", WiredTable, "read", _half_page),
    Mutation("202 although the inbound queue did not answer", WiredQueues, "send", _accept_before_acknowledged),
    Mutation("take in what was removed while it was read", Hand, "watch_removals", _return(value=set())),
    Mutation("never release a shard", LeaseKeeper, "_release", _answer(None)),
)


@contextmanager
def planted(mutation: Mutation) -> Iterator[None]:
    """With the bug in place."""
    original = getattr(mutation.owner, mutation.attribute)
    setattr(mutation.owner, mutation.attribute, mutation.make(original))
    try:
        yield
    finally:
        setattr(mutation.owner, mutation.attribute, original)
