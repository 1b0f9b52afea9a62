"""Bugs in the defences against redelivery: what an ingester remembers, claims and looks up; and visibility."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dynein.core.queues import Received
from dynein.errors import Remedy
from dynein.ingest.batched_store import BatchedStore
from dynein.ingest.checked_writes import CheckedWrites
from dynein.ingest.inbox import Inbox
from dynein.ingest.message_processor import MessageProcessor
from dynein.ingest.receive_history import Progress, ReceiveHistory
from dynein.ingest.received_messages import ReceivedMessages
from dynein.ingest.visibility import Visibility
from dynein.runtime.tasks import Tasks
from tests.simulation.mutation import Mutation, answer, returns


def _nothing_sent_before(original: Any) -> Any:
    async def finish(self: MessageProcessor, arrivals: Any, progress: Progress, *, received_before: bool) -> None:
        del progress
        await original(self, arrivals, Progress(), received_before=received_before)

    return finish


def _received_for_the_first_time(original: Any) -> Any:
    async def finish(self: MessageProcessor, arrivals: Any, progress: Progress, *, received_before: bool) -> None:
        del received_before
        await original(self, arrivals, progress, received_before=False)

    return finish


def _all_absent(original: Any) -> Any:
    async def find(self: MessageProcessor, triggers: Any) -> Any:
        found = await original(self, triggers)
        return found._replace(absent=[*found.absent, *found.stored], stored=[])

    return find


def _a_task_for_each_receive(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    def begin(self: ReceivedMessages, messages: Sequence[Received], tasks: Tasks) -> None:
        for message in messages:
            self._visibility.keep(message.message_id, message.receipt)
            self._admission.announce()
            self._working[message.message_id] = tasks.start(self._work(message))

    return begin


def _first_receipt(original: Any) -> Any:
    def keep(self: Visibility, message_id: str, receipt: str) -> None:
        if message_id not in self._kept:
            original(self, message_id, receipt)

    return keep


def _stop_at_the_first_lost(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    async def extend(self: Visibility, batch: list[tuple[str, str]]) -> None:
        extend_at = self._context.clock.monotonic() + self._timeout_s / 2
        try:
            failures = await self._queues.extend(self._url, [receipt for _, receipt in batch], self._timeout_s)
        except Exception:  # noqa: BLE001 - the next pass tries again
            return
        for (message_id, receipt), failure in zip(batch, failures, strict=True):
            kept = self._kept.get(message_id)
            if kept is None or kept.receipt != receipt:
                continue
            if failure is not None and failure.remedy is Remedy.REJECT:
                for lost, _ in batch[batch.index((message_id, receipt)) :]:
                    if lost in self._kept:
                        self._kept[lost] = self._kept[lost]._replace(extend_at=float("inf"))
                return
            if failure is None:
                self._kept[message_id] = kept._replace(extend_at=extend_at)

    return extend


def _all_lost_together(original: Any) -> Any:
    async def extend(self: Visibility, batch: list[tuple[str, str]]) -> None:
        await original(self, batch)
        kept = [(message_id, self._kept[message_id]) for message_id, _ in batch if message_id in self._kept]
        if any(one.extend_at == float("inf") for _, one in kept):
            for message_id, one in kept:
                self._kept[message_id] = one._replace(extend_at=float("inf"))

    return extend


def _too_late(original: Any) -> Any:
    def init(self: Visibility, *args: Any) -> None:
        original(self, *args)
        self._timeout_s = 4 * self._timeout_s

    return init


BUGS = (
    Mutation("do not remember that a message was finished", ReceiveHistory, "finish", returns(value=None)),
    Mutation("do not remember which jobs of a message were sent", MessageProcessor, "finish", _nothing_sent_before),
    Mutation("take every receive for the first", MessageProcessor, "finish", _received_for_the_first_time),
    Mutation("send what the look-up found stored", MessageProcessor, "_find", _all_absent),
    Mutation("claim nothing for a prepared job", BatchedStore, "claim", answer(value=True)),
    Mutation("work on a message once for each receive", ReceivedMessages, "begin", _a_task_for_each_receive),
    Mutation("keep the first receipt of a message", Visibility, "keep", _first_receipt),
    Mutation("stop extending at the first lost receipt", Visibility, "_extend", _stop_at_the_first_lost),
    Mutation("stop extending a call's messages when one is lost", Visibility, "_extend", _all_lost_together),
    Mutation("extend the visibility of a message when it has ended", Visibility, "__init__", _too_late),
    Mutation("do not check what an earlier receive has stored", CheckedWrites, "check", answer(None)),
    Mutation("never delete an inbound message", Inbox, "delete", answer(value=True)),
)
