"""The dead-letter queue: where a job goes that cannot be delivered, with the reason, and how it comes back.

The body is the job's record (or a whole inbound message that could not be read), untouched; everything said about it is
in message attributes, so that ``dynein redrive`` and a person with any SQS client can both work with it.
"""

from __future__ import annotations

from typing import NamedTuple

from dynein.directory import Directory
from dynein.errors import Unavailable
from dynein.job import Attribute
from dynein.outgoing import DUE_AT_ATTRIBUTE, TOKEN_ATTRIBUTE
from dynein.queue import OutgoingMessage, Queues, Received

REASON_ATTRIBUTE = "dynein-reason"
KIND_ATTRIBUTE = "dynein-dead-letter"
KIND_JOB = "job"
KIND_INBOUND = "inbound"
REASON_CHARS_MAX = 1024
OVERHEAD_BYTES = REASON_CHARS_MAX * 4 + 512
"""Upper bound of what we add to a job record when it is dead-lettered."""


class DeadLetter(NamedTuple):
    """A dead letter read back. ``token`` and ``due_at_ms`` are ``None`` for an unreadable inbound message."""

    kind: str
    body: str
    reason: str
    token: str | None
    due_at_ms: int | None


def read_dead_letter(message: Received) -> DeadLetter:
    """Inverse of what `DeadLetterQueue` writes; SQS's own redrive leaves no attributes: that is an inbound message."""
    attributes = {name: attribute.value for name, attribute in message.attributes.items()}
    due_at = attributes.get(DUE_AT_ATTRIBUTE, "")
    return DeadLetter(
        kind=attributes.get(KIND_ATTRIBUTE, KIND_INBOUND),
        body=message.body,
        reason=attributes.get(REASON_ATTRIBUTE, "received too often (moved by SQS)"),
        token=attributes.get(TOKEN_ATTRIBUTE),
        due_at_ms=int(due_at) if due_at.isdecimal() else None,
    )


class DeadLetterQueue:
    """Sends dead letters."""

    def __init__(self, queues: Queues, directory: Directory, queue: str) -> None:
        self._queues = queues
        self._directory = directory
        self._queue = queue

    async def add_job(self, record: bytes, token: str, due_at_ms: int, reason: str) -> None:
        """Acknowledged once this returns. Raises `dynein.errors.Retryable` or `UnknownQueue` when it is not."""
        attributes = {
            KIND_ATTRIBUTE: Attribute("String", KIND_JOB),
            TOKEN_ATTRIBUTE: Attribute("String", token),
            DUE_AT_ATTRIBUTE: Attribute("Number", str(due_at_ms)),
            REASON_ATTRIBUTE: Attribute("String", _legal(reason)),
        }
        await self._send(OutgoingMessage(record.decode("utf-8"), attributes))

    async def add_inbound(self, body: str, reason: str) -> None:
        """The same for an inbound message that cannot be read."""
        attributes = {
            KIND_ATTRIBUTE: Attribute("String", KIND_INBOUND),
            REASON_ATTRIBUTE: Attribute("String", _legal(reason)),
        }
        await self._send(OutgoingMessage(body, attributes))

    async def _send(self, message: OutgoingMessage) -> None:
        destination = await self._directory.resolve(self._queue)
        (failure,) = await self._queues.send(destination.url, [message])
        if failure is not None:
            raise Unavailable(f"the dead-letter queue refused a message: {failure.code} {failure.message}")


def _legal(reason: str) -> str:
    printable = "".join(c if c.isprintable() and c < "\ufffe" else " " for c in reason)
    return printable[:REASON_CHARS_MAX] or "unknown"
