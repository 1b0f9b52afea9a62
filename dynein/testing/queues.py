"""In-memory SQS: the adapter that speaks `dynein.core.queues.Queues`. What one queue does is in `queue_state`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from dynein.core.queues import (
    ENTRIES_MAX,
    Depth,
    Destination,
    OutgoingMessage,
    Received,
    SendFailure,
    message_bytes,
)
from dynein.errors import Remedy, Throttled, UnknownQueue
from dynein.runtime.clock import Clock, sleep_unless
from dynein.testing.faults import Call, Faults
from dynein.testing.queue_message import Message
from dynein.testing.queue_rules import refusal
from dynein.testing.queue_state import IN_FLIGHT_MAX, RETENTION_S, QueueOptions, QueueState

URL_PREFIX = "https://sqs.fake.invalid/000000000000/"
WAIT_MAX_S = 20
VISIBILITY_MAX_S = 43_200


class Sent(NamedTuple):
    """A message as it entered a queue: what `FakeQueues.on_sent` is called with."""

    queue: str
    message_id: str
    message: OutgoingMessage
    visible_at: float
    """By the queues' own monotonic clock, seconds."""
    duplicate: bool
    """A FIFO queue acknowledged it and dropped it, for its deduplication id."""


class FakeQueues:
    """SQS in memory, on ``clock``. `connect` makes another connection to the same queues, with faults of its own."""

    def __init__(self, clock: Clock, *, message_bytes_max: int = 262_144, faults: Faults | None = None) -> None:
        self._clock = clock
        self._message_bytes_max = message_bytes_max
        self._queues: dict[str, QueueState] = {}
        self._ids = [0]
        self.faults = faults if faults is not None else Faults()
        self.on_sent: list[Callable[[Sent], None]] = []
        """Called at the instant a message enters a queue."""

    def connect(self, faults: Faults) -> Self:
        """The same queues, through other faults."""
        connection = copy.copy(self)
        connection.faults = faults
        return connection

    # --- what tests do past the protocol --------- -------------------------------------------------------------------

    def create(
        self,
        name: str,
        *,
        fifo: bool | None = None,
        delay_s: int = 0,
        dead_letter_queue: str | None = None,
        receives_max: int = 5,
        in_flight_max: int = IN_FLIGHT_MAX,
        retention_s: float = RETENTION_S,
        message_bytes_max: int | None = None,
        readable: bool = True,
    ) -> str:
        """Make a queue and return its URL. ``dead_letter_queue`` gets what was received ``receives_max`` times.

        ``message_bytes_max``: the largest message it takes, if that is less than what `FakeQueues` take at all.
        ``readable``: may its attributes be read?
        """
        is_fifo = name.endswith(".fifo") if fifo is None else fifo
        assert is_fifo == name.endswith(".fifo"), "SQS: the name of a FIFO queue, and of no other, ends in .fifo"
        assert dead_letter_queue is None or dead_letter_queue in self._queues, dead_letter_queue
        self._queues[name] = QueueState(
            QueueOptions(
                name,
                is_fifo,
                delay_s,
                receives_max,
                in_flight_max,
                retention_s,
                self._message_bytes_max if message_bytes_max is None else message_bytes_max,
                readable,
            ),
            dead_letters=self._queues[dead_letter_queue] if dead_letter_queue is not None else None,
        )
        return self.url(name)

    def change(self, name: str, *, delay_s: int | None = None, message_bytes_max: int | None = None) -> None:
        """Set attributes of a queue anew, as its owner may at any time."""
        state = self._queues[name]
        if delay_s is not None:
            state.options = state.options._replace(delay_s=delay_s)
        if message_bytes_max is not None:
            state.options = state.options._replace(message_bytes_max=message_bytes_max)

    def remove(self, name: str) -> None:
        """Delete a queue and what is in it."""
        del self._queues[name]

    def url(self, name: str) -> str:
        """The URL of a queue of ours."""
        return URL_PREFIX + name

    def names(self) -> list[str]:
        """Every queue, in the order they were made."""
        return list(self._queues)

    def messages(self, name: str) -> list[str]:
        """The bodies now visible, oldest first."""
        return [message.body for message in self.peek(name)]

    def peek(self, name: str) -> list[Received]:
        """The messages now visible, oldest first, without receiving them."""
        state = self._queues[name]
        state.settle(self._clock.monotonic())
        return [message.as_received() for message in state.visible_in_order()]

    def everything(self, name: str) -> list[Received]:
        """Every message of a queue: visible, in flight and delayed."""
        state = self._queues[name]
        state.settle(self._clock.monotonic())
        return [message.as_received() for message in state.messages.values()]

    # --- Queues -----------------------------------------------------------------------------------------------------

    async def resolve(self, queue: str) -> Destination:
        """See `dynein.core.queues.Queues.resolve`."""
        name = queue.removeprefix(URL_PREFIX)
        call = Call("queues", "resolve", name, 1)
        await self.faults.before(call)
        state = self._state(name)
        await self.faults.after(call)
        options = state.options
        if not options.readable:
            return Destination(self.url(name), options.fifo)
        return Destination(
            self.url(name), options.fifo, options.delay_s, options.message_bytes_max, int(options.retention_s)
        )

    async def send(self, url: str, messages: Sequence[OutgoingMessage]) -> list[SendFailure | None]:
        """See `dynein.core.queues.Queues.send`. A batch that is too large only together goes through, as in SQS's."""
        assert 1 <= len(messages) <= ENTRIES_MAX, len(messages)
        name = url.removeprefix(URL_PREFIX)
        call = Call("queues", "send", name, len(messages))
        await self.faults.before(call)
        state = self._state(name)
        failed = self.faults.failed_entries(call)
        results: list[SendFailure | None] = []
        for index, message in enumerate(messages):
            failure = (
                failed.get(index) or self._size_refusal(state, message) or refusal(message, fifo=state.options.fifo)
            )
            if failure is None:
                self._enter(state, message)
            results.append(failure)
        state.announce()
        await self.faults.after(call)
        return results

    async def receive(self, url: str, *, entries_max: int, wait_s: int, visibility_timeout_s: int) -> list[Received]:
        """See `dynein.core.queues.Queues.receive`."""
        assert 1 <= entries_max <= ENTRIES_MAX, entries_max
        assert 0 <= wait_s <= WAIT_MAX_S, wait_s
        assert 0 <= visibility_timeout_s <= VISIBILITY_MAX_S, visibility_timeout_s
        name = url.removeprefix(URL_PREFIX)
        call = Call("queues", "receive", name, entries_max)
        await self.faults.before(call)
        deadline = self._clock.monotonic() + wait_s
        while True:
            state = self._state(name)
            now = self._clock.monotonic()
            state.settle(now)
            if state.full and wait_s == 0:
                raise Throttled(f"OverLimit: {name} has {state.in_flight} messages in flight")
            taken = state.take(entries_max, now, visibility_timeout_s, lambda found: self.faults.reorder(call, found))
            if taken or now >= deadline:
                break
            changes_at = state.next_change_at()
            until = deadline if changes_at is None else min(deadline, changes_at)
            await sleep_unless(state.changed, self._clock, until - now)
        received = [message.as_received() for message in taken]
        if taken:
            state.announce()  # the visibility timeouts have changed, and other receivers wait for them
        for message in taken:
            if self.faults.duplicates(call, message.message_id):
                state.show(message, now)
        await self.faults.after(call)
        return received

    async def delete(self, url: str, receipts: Sequence[str]) -> list[SendFailure | None]:
        """See `dynein.core.queues.Queues.delete`. As in SQS, a stale receipt is acknowledged and deletes nothing."""
        return await self._with_receipts("delete", url, receipts, self._delete_one)

    async def extend(self, url: str, receipts: Sequence[str], visibility_timeout_s: int) -> list[SendFailure | None]:
        """See `dynein.core.queues.Queues.extend`."""
        assert 0 <= visibility_timeout_s <= VISIBILITY_MAX_S, visibility_timeout_s

        def extend_one(call: Call, state: QueueState, receipt: str) -> SendFailure | None:  # noqa: ARG001
            return state.extend(receipt, self._clock.monotonic(), visibility_timeout_s)

        return await self._with_receipts("extend", url, receipts, extend_one)

    async def depth(self, url: str) -> Depth:
        """See `dynein.core.queues.Queues.depth`. Exact here."""
        name = url.removeprefix(URL_PREFIX)
        call = Call("queues", "depth", name, 0)
        await self.faults.before(call)
        state = self._state(name)
        state.settle(self._clock.monotonic())
        depth = state.depth()
        await self.faults.after(call)
        return depth

    # ----------------------------------------------------------------------------------------------------------------

    async def _with_receipts(
        self,
        verb: str,
        url: str,
        receipts: Sequence[str],
        do_one: Callable[[Call, QueueState, str], SendFailure | None],
    ) -> list[SendFailure | None]:
        assert 1 <= len(receipts) <= ENTRIES_MAX, len(receipts)
        name = url.removeprefix(URL_PREFIX)
        call = Call("queues", verb, name, len(receipts))
        await self.faults.before(call)
        state = self._state(name)
        state.settle(self._clock.monotonic())
        failed = self.faults.failed_entries(call)
        results = [failed.get(i) or do_one(call, state, receipt) for i, receipt in enumerate(receipts)]
        state.announce()
        await self.faults.after(call)
        return results

    def _delete_one(self, call: Call, state: QueueState, receipt: str) -> SendFailure | None:
        message = state.by_receipt(receipt)
        if message is not None and self.faults.ignores_delete(call, message.message_id):
            return None
        return state.delete(receipt)

    def _size_refusal(self, state: QueueState, message: OutgoingMessage) -> SendFailure | None:
        size = message_bytes(message.body, message.attributes)
        if size > self._message_bytes_max:
            sentence = f"requests cannot be longer than {self._message_bytes_max} bytes. You have sent {size} bytes."
            return SendFailure("BatchRequestTooLong", sentence, Remedy.REJECT)
        if size > state.options.message_bytes_max:
            sentence = f"Reason: Message must be shorter than {state.options.message_bytes_max} bytes."
            return SendFailure("InvalidParameterValue", sentence, Remedy.REJECT)
        return None

    def _enter(self, state: QueueState, message: OutgoingMessage) -> None:
        now = self._clock.monotonic()
        self._ids[0] += 1
        delay_s = state.options.delay_s if state.options.fifo else message.delay_s
        entered = Message(
            f"m{self._ids[0]:08d}",
            message,
            sequence=self._ids[0],
            sent_at=now,
            sent_at_ms=self._clock.now_ms(),
            visible_at=now + delay_s,
        )
        duplicate = state.is_duplicate(message.deduplication_id, now)
        if not duplicate:
            state.enter(entered, now)
        for call in self.on_sent:
            call(Sent(state.options.name, entered.message_id, message, entered.visible_at, duplicate))

    def _state(self, name: str) -> QueueState:
        state = self._queues.get(name)
        if state is None:
            raise UnknownQueue(name)
        return state
