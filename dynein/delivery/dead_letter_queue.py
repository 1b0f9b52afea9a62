"""The dead-letter queue: where a job goes that cannot be delivered, with the reason, and how it comes back.

The body is the job's record (or a whole inbound message that could not be read), untouched; everything about it is in
message attributes, so that ``dynein redrive`` and an operator with any SQS client can both work with it.

A job's body, token and due time are signed (`dynein.core.seal`), since a redrive delivers what it finds here; the
reason is not: it is for people. An inbound message has its signature in its body, and so also when SQS moved it here
itself, without attributes.
"""

from __future__ import annotations

from typing import NamedTuple

from dynein.core.delivered_message import DUE_AT_ATTRIBUTE, TOKEN_ATTRIBUTE
from dynein.core.job import Attribute
from dynein.core.queues import ENTRIES_MAX, OutgoingMessage, Queues, Received, SendFailure, message_bytes
from dynein.core.seal import Seal
from dynein.delivery.destinations import Destinations
from dynein.errors import Rejected, Unavailable
from dynein.runtime.group_commit import GroupCommit

REASON_ATTRIBUTE = "dynein-reason"
KIND_ATTRIBUTE = "dynein-dead-letter"
SIGNATURE_ATTRIBUTE = "dynein-signature"
_USE = "dead-lettered job"
KIND_JOB = "job"
KIND_INBOUND = "inbound"
UNEXPLAINED = "moved by SQS after too many receives, or too large for a reason: see inbound.poison in the log"
"""Stands for the reason of a dead letter without attributes."""
REASON_CHARS_MAX = 1024
OVERHEAD_BYTES = 512
"""What is added to a job record when it is dead-lettered: 200 bytes, and the reason, which is cut to what there is room
for."""
BATCH_BYTES_MAX = 262_144
"""Most bytes of dead letters in one call, but for a single one that is larger. SQS bills by 64 KiB: larger calls gain
nothing, and every engine takes these."""
WAITING_MAX = 10_000
"""Most dead letters waiting for a call; a caller that is turned away keeps the job and tries again."""
IN_FLIGHT_MAX = 4


_DUE_DIGITS_MAX = 15
"""Those of `dynein.core.keys.DUE_MAX_MS`: whoever may write to the queue may write longer ones, too long for `int`."""


class DeadLetter(NamedTuple):
    """A dead letter read back. ``token`` and ``due_at_ms`` are ``None`` for an unreadable inbound message."""

    kind: str
    body: str
    reason: str
    token: str | None
    due_at_ms: int | None
    signature: str = ""

    def is_ours(self, seal: Seal) -> bool:
        """Is it a job that this deployment dead-lettered, with this body, token and due time?"""
        if self.token is None or self.due_at_ms is None:
            return False
        return seal.is_ours(self.signature, _USE, *_signed(self.body, self.token, self.due_at_ms))


def read_dead_letter(message: Received) -> DeadLetter:
    """Inverse of what `DeadLetterQueue` writes; SQS's own redrive leaves no attributes: that is an inbound message.

    Reads anything, whoever wrote it; whether to believe it, `DeadLetter.is_ours` says.
    """
    attributes = {name: attribute.value for name, attribute in message.attributes.items()}
    due_at = attributes.get(DUE_AT_ATTRIBUTE, "")
    return DeadLetter(
        kind=attributes.get(KIND_ATTRIBUTE, KIND_INBOUND),
        body=message.body,
        reason=attributes.get(REASON_ATTRIBUTE, UNEXPLAINED),
        token=attributes.get(TOKEN_ATTRIBUTE),
        due_at_ms=int(due_at) if due_at.isdecimal() and len(due_at) <= _DUE_DIGITS_MAX else None,
        signature=attributes.get(SIGNATURE_ATTRIBUTE, ""),
    )


def _signed(body: str, token: str, due_at_ms: int) -> tuple[bytes, ...]:
    return body.encode(), token.encode(), str(due_at_ms).encode()


class DeadLetterQueue:
    """Sends dead letters, those of one moment together: a missing destination makes many at once.

    ``message_bytes_max``: the largest message that the queue takes. A long reason is cut to fit into it.
    """

    def __init__(
        self,
        queues: Queues,
        destinations: Destinations,
        queue: str,
        seal: Seal,
        *,
        message_bytes_max: int = BATCH_BYTES_MAX,
    ) -> None:
        self._queues = queues
        self._destinations = destinations
        self._queue = queue
        self._seal = seal
        self._message_bytes_max = message_bytes_max
        self._batcher: GroupCommit[OutgoingMessage, SendFailure | None] = GroupCommit(
            self._flush,
            entries_max=ENTRIES_MAX,
            bytes_max=min(message_bytes_max, BATCH_BYTES_MAX),
            weigh=lambda message: message_bytes(message.body, message.attributes),
            waiting_max=WAITING_MAX,
            in_flight_max=IN_FLIGHT_MAX,
        )

    async def add_job(self, record: bytes, token: str, due_at_ms: int, reason: str) -> None:
        """Acknowledged once this returns. Raises what `Queues.send` does, or `Retryable`, when it is not."""
        # A record that is not UTF-8 is none of ours; it stays readable.
        body = record.decode("utf-8", errors="backslashreplace")
        signature = self._seal.sign(_USE, *_signed(body, token, due_at_ms))
        attributes = {
            KIND_ATTRIBUTE: Attribute("String", KIND_JOB),
            TOKEN_ATTRIBUTE: Attribute("String", token),
            DUE_AT_ATTRIBUTE: Attribute("Number", str(due_at_ms)),
            SIGNATURE_ATTRIBUTE: Attribute("String", signature),
        }
        await self._send(body, attributes, reason)

    async def add_inbound(self, body: str, reason: str) -> None:
        """The same for an inbound message that cannot be read, or that another program wrote.

        One that leaves no room for attributes goes without them, as SQS itself would move it after many more receives.
        """
        await self._send(body, {KIND_ATTRIBUTE: Attribute("String", KIND_INBOUND)}, reason, bare_if_too_large=True)

    async def _send(
        self, body: str, attributes: dict[str, Attribute], reason: str, *, bare_if_too_large: bool = False
    ) -> None:
        unexplained = message_bytes(body, {**attributes, REASON_ATTRIBUTE: Attribute("String", "")})
        if bare_if_too_large and unexplained >= self._message_bytes_max:
            attributes = {}
        else:
            attributes[REASON_ATTRIBUTE] = Attribute("String", _legal(reason, self._message_bytes_max - unexplained))
        failure = await self._batcher.submit(OutgoingMessage(body, attributes))
        if failure is not None:
            raise Unavailable(f"the dead-letter queue refused a message: {failure.code} {failure.message}")

    async def _flush(self, messages: list[OutgoingMessage]) -> list[SendFailure | None]:
        destination = await self._destinations.resolve(self._queue)
        try:
            return await self._queues.send(destination.url, messages)
        except Rejected:
            self._destinations.forget(self._queue)
            raise


def _legal(reason: str, bytes_max: int) -> str:
    """``reason`` in characters that SQS takes, cut to what there is room for (but never empty: SQS refuses that)."""
    printable = "".join(c if c.isprintable() and c < "\ufffe" else " " for c in reason)
    cut = printable[:REASON_CHARS_MAX].encode("utf-8")[: max(bytes_max, 0)].decode("utf-8", errors="ignore")
    return cut.strip() or "-"
