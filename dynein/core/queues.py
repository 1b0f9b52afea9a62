"""Queues as Dynein needs them: a protocol of verbs. `dynein.aws.sqs` is the one on SQS; `dynein.testing` has a fake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from dynein.core.job import Attribute
from dynein.errors import FatalError, Remedy, Throttled


class Destination(NamedTuple):
    """A queue that exists, with those of its attributes that matter to what is sent to it.

    They are as they were when it was looked up, and their defaults are what is assumed where they cannot be read.
    """

    url: str
    fifo: bool
    delay_s: int = 0
    """``DelaySeconds``: how long it keeps each message invisible that brings no delay of its own. On a FIFO queue no
    message can."""
    message_bytes_max: int | None = None
    """``MaximumMessageSize``: the largest message that it takes; ``None`` if that is not known."""
    retention_s: int | None = None
    """``MessageRetentionPeriod``: after which it drops a message that nobody consumed; ``None`` if not known."""

    @property
    def imposed_delay_s(self) -> int:
        """How much later than its send a message becomes visible that is to be visible at once."""
        return self.delay_s if self.fifo else 0


class OutgoingMessage(NamedTuple):
    """One message to send. Sizes and characters were checked when the job was accepted."""

    body: str
    attributes: Mapping[str, Attribute]
    delay_s: int = 0
    """After which it becomes visible, whatever the queue's own delay; of no meaning on a FIFO queue."""
    message_group_id: str | None = None
    deduplication_id: str | None = None


class SendFailure(NamedTuple):
    """Why one entry of a batch is not done."""

    code: str
    message: str
    remedy: Remedy
    """``REJECT``: this entry is refused for what is in it. Anything else: repeat it, unchanged, later."""
    throttled: bool = False
    """We ask for too much at a time (its remedy is ``RETRY``)."""


def call_failure(error: Exception) -> SendFailure:
    """A whole call's error as that of each of its entries.

    Never ``REJECT``: that the queue is missing, say, is not the fault of what was to be sent to it.
    """
    remedy = Remedy.STOP if isinstance(error, FatalError) else Remedy.RETRY
    return SendFailure(type(error).__name__, str(error), remedy, throttled=isinstance(error, Throttled))


class Received(NamedTuple):
    """One message received, invisible to others until its visibility timeout ends."""

    message_id: str
    receipt: str
    body: str
    receive_count: int
    attributes: Mapping[str, Attribute]
    sent_at_ms: int | None = None
    """When it was sent, by SQS's clock; ``None`` if it is not known."""


class Depth(NamedTuple):
    """SQS's approximate counts."""

    visible: int
    in_flight: int
    delayed: int


def message_bytes(body: str, attributes: Mapping[str, Attribute]) -> int:
    """What SQS counts against its payload limit: body plus attribute names, types and values, in UTF-8 bytes.

    Source: SQS API reference, SendMessage ("message size includes ... attributes"). A Binary value counts as its raw
    bytes; counting its base64 text, as here, is never less.
    """
    size = utf8_bytes(body)
    for name, attribute in attributes.items():
        size += utf8_bytes(name) + utf8_bytes(attribute.type) + utf8_bytes(attribute.value)
    return size


def utf8_bytes(text: str) -> int:
    """How long ``text`` is in UTF-8."""
    # Whether a str is ASCII is one of its flags: no need to encode most bodies only to count.
    return len(text) if text.isascii() else len(text.encode("utf-8"))


class Queues(Protocol):
    """All the queues one set of credentials can reach.

    Every verb may raise `dynein.errors.Throttled`, `Unavailable`, `AccessDenied` and, for a queue that is not there,
    `UnknownQueue`. A verb over many entries returns a result for each: a call that succeeds as a whole may have failed
    for some.
    """

    async def resolve(self, queue: str) -> Destination:
        """The destination for a queue name or URL. Not cached.

        A queue whose attributes may not be read is found all the same.
        """

    async def send(self, url: str, messages: Sequence[OutgoingMessage]) -> list[SendFailure | None]:
        """Send up to `entries_max` messages in one call; ``None`` for one that was acknowledged."""

    async def receive(self, url: str, *, entries_max: int, wait_s: int, visibility_timeout_s: int) -> list[Received]:
        """Up to 10 messages; waits up to ``wait_s`` seconds for the first."""

    async def delete(self, url: str, receipts: Sequence[str]) -> list[SendFailure | None]:
        """Delete up to 10 received messages."""

    async def extend(self, url: str, receipts: Sequence[str], visibility_timeout_s: int) -> list[SendFailure | None]:
        """Keep up to 10 received messages invisible for ``visibility_timeout_s`` seconds from now (0: give back)."""

    async def depth(self, url: str) -> Depth:
        """How many messages wait, by SQS's approximate counts."""


ENTRIES_MAX = 10
"""SQS: entries in one batch call."""
MESSAGE_BYTES_MAX = 1_048_576
"""SQS: the largest message of a queue that allows it, and all messages of a batch together (SendMessageBatch, "Message
sizes"; the default of a new queue's ``MaximumMessageSize`` too)."""
DELAY_MAX_S = 900
"""SQS: longest DelaySeconds."""
ATTRIBUTES_MAX = 10
"""SQS: message attributes a message."""
