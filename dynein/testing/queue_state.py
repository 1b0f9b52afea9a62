"""One in-memory queue: what is visible, in flight or delayed at an instant. No I/O, no clock: ``now`` is monotonic."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import NamedTuple

from dynein.core.queues import Depth, SendFailure
from dynein.errors import Remedy
from dynein.testing.queue_message import Message, Place

IN_FLIGHT_MAX = 120_000
"""SQS: messages received and neither deleted nor timed out, a queue."""
RETENTION_S = 4 * 86400.0
"""SQS's default MessageRetentionPeriod."""
DEDUPLICATION_S = 300.0
"""SQS: how long a FIFO queue remembers a deduplication id."""
_CANDIDATES = 4
"""When it is to reorder, a standard queue picks what it delivers among this many times what was asked for."""


class QueueOptions(NamedTuple):
    """What a queue is made with."""

    name: str
    fifo: bool
    delay_s: int
    receives_max: int
    """Then its messages go to the dead-letter queue, if it has one."""
    in_flight_max: int
    retention_s: float
    message_bytes_max: int
    readable: bool
    """May its attributes be read?"""


class QueueState:
    """All of one queue."""

    def __init__(self, options: QueueOptions, dead_letters: QueueState | None) -> None:
        self.options = options
        self.messages: dict[str, Message] = {}
        self.changed = asyncio.Event()
        self.in_flight = 0
        self._delayed = 0
        self._dead_letters = dead_letters
        self._timers: list[tuple[float, int, Message]] = []
        self._visible: list[tuple[float, int, Message]] = []
        self._seen_ids: dict[str, float] = {}

    @property
    def full(self) -> bool:
        """At the bound of messages in flight."""
        return self.in_flight >= self.options.in_flight_max

    def enter(self, message: Message, now: float) -> None:
        """Take in a new message."""
        self.messages[message.message_id] = message
        if message.visible_at > now:
            self._delayed += 1
            self._set_timer(message)
        else:
            self._make_visible(message)

    def is_duplicate(self, deduplication_id: str | None, now: float) -> bool:
        """Whether a FIFO queue has seen this id within five minutes; it has from now on."""
        if not self.options.fifo or deduplication_id is None:
            return False
        for seen in [seen for seen, at in self._seen_ids.items() if now - at >= DEDUPLICATION_S]:
            del self._seen_ids[seen]
        if deduplication_id in self._seen_ids:
            return True
        self._seen_ids[deduplication_id] = now
        return False

    def settle(self, now: float) -> None:
        """Bring the queue up to ``now``: delays and visibility timeouts that ended, messages kept too long."""
        while self._timers and self._timers[0][0] <= now:
            at, _, message = heapq.heappop(self._timers)
            if message.visible_at == at and message.place in (Place.DELAYED, Place.IN_FLIGHT):
                self._leave_place(message)
                self._make_visible(message)
        while self.messages:
            oldest = next(iter(self.messages.values()))
            if now - oldest.sent_at < self.options.retention_s:
                return
            self._drop(oldest)

    def next_change_at(self) -> float | None:
        """When the next delay or visibility timeout ends."""
        while self._timers:
            at, _, message = self._timers[0]
            if message.visible_at == at and message.place in (Place.DELAYED, Place.IN_FLIGHT):
                return at
            heapq.heappop(self._timers)
        return None

    def announce(self) -> None:
        """Wake those that poll."""
        self.changed.set()
        self.changed = asyncio.Event()

    def take(
        self, entries_max: int, now: float, visibility_timeout_s: int, reorder: Callable[[list[Message]], None]
    ) -> list[Message]:
        """Receive up to ``entries_max`` messages. Those received too often go to the dead-letter queue instead."""
        taken: list[Message] = []
        while (room := min(entries_max - len(taken), self.options.in_flight_max - self.in_flight)) > 0:
            found = self._next_visible(room, {message.group for message in taken}, reorder)
            if not found:
                break
            for message in found:
                if self._dead_letters is not None and message.receive_count >= self.options.receives_max:
                    self._drop(message)
                    message.place = Place.DELAYED
                    message.visible_at = now
                    self._dead_letters.enter(message, now)
                    self._dead_letters.announce()
                else:
                    message.receive_count += 1
                    self._hide(message, now + visibility_timeout_s)
                    taken.append(message)
        return taken

    def by_receipt(self, receipt: str) -> Message | None:
        """The message of a receipt, if that is the latest one."""
        message = self.messages.get(receipt.rpartition(".")[0])
        return message if message is not None and message.receipt == receipt else None

    def delete(self, receipt: str) -> SendFailure | None:
        """Delete one message. Repeating it, or a stale receipt, is acknowledged."""
        if not _is_receipt(receipt):
            return _bad_receipt(receipt)
        message = self.by_receipt(receipt)
        if message is None:
            return None
        if self.options.fifo and message.place is not Place.IN_FLIGHT:
            return SendFailure("InvalidParameterValue", "The receipt handle has expired.", Remedy.REJECT)
        self._drop(message)
        return None

    def extend(self, receipt: str, now: float, visibility_timeout_s: int) -> SendFailure | None:
        """Set one message's visibility timeout anew."""
        if not _is_receipt(receipt):
            return _bad_receipt(receipt)
        message = self.by_receipt(receipt)
        if message is None or message.place is not Place.IN_FLIGHT:
            return SendFailure(
                "InvalidParameterValue",
                "Message does not exist or is not available for visibility timeout change.",
                Remedy.REJECT,
            )
        if visibility_timeout_s == 0:
            self.show(message, now)
        else:
            message.visible_at = now + visibility_timeout_s
            self._set_timer(message)
        return None

    def show(self, message: Message, now: float) -> None:
        """Make a message in flight visible at once; its receipt stays good until it is received again."""
        if message.place is Place.IN_FLIGHT:
            self._leave_place(message)
            message.visible_at = now
            self._make_visible(message)

    def visible_in_order(self) -> list[Message]:
        """What is visible, oldest first."""
        visible = [message for message in self.messages.values() if message.place is Place.VISIBLE]
        return sorted(visible, key=lambda m: m.sequence if self.options.fifo else (m.visible_at, m.sequence))

    def depth(self) -> Depth:
        """Exact counts."""
        return Depth(len(self.messages) - self.in_flight - self._delayed, self.in_flight, self._delayed)

    # ----------------------------------------------------------------------------------------------------------------

    def _next_visible(
        self, count: int, own_groups: set[str | None], reorder: Callable[[list[Message]], None]
    ) -> list[Message]:
        if self.options.fifo:
            return self._next_of_groups(count, own_groups)
        found: list[Message] = []
        while self._visible and len(found) < count * _CANDIDATES:
            _, _, message = heapq.heappop(self._visible)
            if message.place is Place.VISIBLE and message not in found:
                found.append(message)
        reorder(found)
        for message in found[count:]:
            self._make_visible(message)
        return found[:count]

    def _next_of_groups(self, count: int, own_groups: set[str | None]) -> list[Message]:
        """In order within each group; a group with a message in flight from another receive waits."""
        blocked: set[str | None] = set()
        found: list[Message] = []
        for message in self.messages.values():
            if message.place is Place.VISIBLE:
                if message.group not in blocked and len(found) < count:
                    found.append(message)
            elif message.group not in own_groups:
                blocked.add(message.group)
        return found

    def _make_visible(self, message: Message) -> None:
        message.place = Place.VISIBLE
        if not self.options.fifo:
            heapq.heappush(self._visible, (message.visible_at, message.sequence, message))

    def _hide(self, message: Message, until: float) -> None:
        message.place = Place.IN_FLIGHT
        message.visible_at = until
        self.in_flight += 1
        self._set_timer(message)

    def _set_timer(self, message: Message) -> None:
        heapq.heappush(self._timers, (message.visible_at, message.sequence, message))

    def _leave_place(self, message: Message) -> None:
        if message.place is Place.IN_FLIGHT:
            self.in_flight -= 1
        elif message.place is Place.DELAYED:
            self._delayed -= 1

    def _drop(self, message: Message) -> None:
        self._leave_place(message)
        message.place = Place.GONE
        del self.messages[message.message_id]


def _is_receipt(receipt: str) -> bool:
    message_id, _, count = receipt.rpartition(".")
    return message_id.startswith("m") and message_id[1:].isdecimal() and count.isdecimal()


def _bad_receipt(receipt: str) -> SendFailure:
    return SendFailure("ReceiptHandleIsInvalid", f"The receipt handle {receipt!r} is not valid.", Remedy.REJECT)
