"""Received messages: one task works on each, while it is kept invisible, until it is deleted or given back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from dynein.core.inbound_message import Unpacked, unpack
from dynein.core.queues import Received
from dynein.core.seal import Seal
from dynein.core.trigger import slots
from dynein.errors import FatalError
from dynein.ingest.admission import Admission
from dynein.ingest.inbox import Inbox
from dynein.ingest.message_processor import MessageProcessor
from dynein.ingest.poison import Poison
from dynein.ingest.receive_history import ReceiveHistory
from dynein.ingest.visibility import Visibility
from dynein.observability.events.ingest import INBOUND_GIVEN_BACK, INBOUND_LEFT
from dynein.runtime.tasks import Tasks, all_ended, all_of


class ReceivedMessages:
    """What one ingester has received and not yet deleted or given back. `Admission` bounds it."""

    def __init__(
        self,
        inbox: Inbox,
        visibility: Visibility,
        admission: Admission,
        processor: MessageProcessor,
        poison: Poison,
        seal: Seal,
    ) -> None:
        self._inbox = inbox
        self._visibility = visibility
        self._admission = admission
        self._processor = processor
        self._poison = poison
        self._seal = seal
        self._history = ReceiveHistory()
        self._working: dict[str, asyncio.Task[None]] = {}
        """By message id; each message is in `_visibility` too."""
        self._returning: dict[asyncio.Task[None], None] = {}
        """Tasks that are giving their message back: it is not ours any more."""

    def begin(self, messages: Sequence[Received], tasks: Tasks) -> None:
        """Work on each in a task of its own; call when they have just been received."""
        for message in messages:
            self._visibility.keep(message.message_id, message.receipt)
            # One that is being worked on has come again, since its timeout ended: it is ours by the new receipt now.
            if message.message_id not in self._working:
                self._admission.announce()
                self._working[message.message_id] = tasks.start(self._work(message))

    async def ended(self) -> None:
        """Return once the work on every message has ended."""
        await all_ended([*self._working.values(), *self._returning])

    async def give_back_unfinished(self, tasks: Tasks) -> None:
        """Stop the work on every message and make it visible.

        What is stored already is stored again by the ingester that receives it next; that changes nothing.
        """
        unfinished = list(self._working.items())
        INBOUND_GIVEN_BACK.log(messages=len(unfinished))
        receipts = [self._visibility.receipt(message_id) for message_id, _ in unfinished]
        for _, task in unfinished:
            task.cancel()
        await all_ended([task for _, task in unfinished])
        await all_ended([tasks.start(self._inbox.give_back(receipt)) for receipt in receipts])

    async def _work(self, message: Received) -> None:
        """One message, from its receive to its delete. Only a `FatalError` comes out."""
        try:
            await self._finish(message)
        except FatalError:
            raise
        except Exception as error:  # noqa: BLE001 - one message's error must not end the others' work
            INBOUND_LEFT.log(error, message_id=message.message_id)
        finally:
            self._release(message.message_id)
            self._returning.pop(_this_task(), None)

    async def _finish(self, message: Received) -> None:
        if self._history.recall(message.message_id).finished:
            self._admission.turn_away()
        elif not await self._process(message):
            await self._give_back(message)
            return
        await self._inbox.delete(self._visibility.receipt(message.message_id))

    async def _process(self, message: Received) -> bool:
        """Do everything but the delete. False if it was not begun, because we are shutting down."""
        try:
            arrivals, unreadable = self._unpack(message)
        except ValueError as error:
            await self._poison.dead_letter_message(message, str(error))
        else:
            room = sum(slots(len(arrival.trigger.record)) for arrival in arrivals)
            room += sum(slots(len(entry.body)) for entry in unreadable)
            if not await self._admission.enter(len(arrivals) + len(unreadable), room):
                return False
            try:
                progress = self._history.recall(message.message_id)
                await all_of(
                    [
                        self._processor.finish(arrivals, progress, received_before=message.receive_count > 1),
                        *[self._poison.dead_letter_entry(message, entry) for entry in unreadable],
                    ]
                )
            finally:
                self._admission.leave(room)
        self._history.finish(message.message_id)
        return True

    async def _give_back(self, message: Received) -> None:
        """Make it visible at once. It is not ours from before that on: a receive still under way may bring it again."""
        receipt = self._visibility.receipt(message.message_id)
        self._release(message.message_id)
        self._returning[_this_task()] = None
        await self._inbox.give_back(receipt)

    def _release(self, message_id: str) -> None:
        if self._working.get(message_id) is _this_task():
            self._visibility.drop(message_id)
            del self._working[message_id]

    def _unpack(self, message: Received) -> Unpacked:
        try:
            return unpack(message.body, self._seal)
        except Exception:
            self._admission.turn_away()
            raise


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None
    return task
