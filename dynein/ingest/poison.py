"""What no ingester can work on, and no retry would help: it goes to the dead-letter queue, with the reason."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from dynein.core.inbound_message import Unreadable
from dynein.core.ledger import Flow
from dynein.core.queues import Received
from dynein.core.trigger import Trigger
from dynein.delivery.dead_letter_queue import DeadLetterQueue
from dynein.errors import Retryable, UnknownQueue
from dynein.observability.events.delivery import JOB_DEAD_LETTERED
from dynein.observability.events.ingest import INBOUND_POISON, ROLE
from dynein.runtime.context import Context
from dynein.runtime.retry import Retry


class Poison:
    """Dead-letters messages, their entries, and jobs. Returns once the dead-letter queue has acknowledged it."""

    def __init__(self, dead_letters: DeadLetterQueue, retry: Retry, context: Context) -> None:
        self._dead_letters = dead_letters
        self._retry = retry
        self._context = context

    async def dead_letter_message(self, message: Received, reason: str) -> None:
        """Tried once: if it fails, the error comes out, and the message is left to come back."""
        await self._dead_letters.add_inbound(message.body, reason)
        self._note_poison(message, reason)

    async def dead_letter_entry(self, message: Received, entry: Unreadable) -> None:
        """Repeated until it succeeds: the message's other jobs need not be done again."""
        await self._until_acknowledged(
            "dead-letter an entry", lambda: self._dead_letters.add_inbound(entry.body, entry.reason)
        )
        self._note_poison(message, entry.reason)

    async def dead_letter_job(self, trigger: Trigger, reason: str) -> None:
        """Repeated until it succeeds, for the same reason."""
        key = trigger.key
        await self._until_acknowledged(
            "dead-letter a job",
            lambda: self._dead_letters.add_job(trigger.record, trigger.token, key.due_at_ms, reason),
        )
        self._context.telemetry.ingested.labels("poison").inc()
        self._context.tally.add(Flow.DEAD_LETTERED, key.due_at_ms)
        JOB_DEAD_LETTERED.log(role=ROLE, token=trigger.token, code="unreadable", reason=reason, due_at_ms=key.due_at_ms)

    async def _until_acknowledged(self, what: str, send: Callable[[], Awaitable[None]]) -> None:
        await self._retry.call(what, send, retry_on=(Retryable, UnknownQueue))

    def _note_poison(self, message: Received, reason: str) -> None:
        self._context.telemetry.ingested.labels("poison").inc()
        INBOUND_POISON.log(message_id=message.message_id, error=reason)
