"""Follows a destination queue: what arrives, for which job, how late. An ordinary SQS consumer, but for one thing: it
recognises inbound messages and dead letters, of any deployment, and leaves them where they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

from dynein.core.delivered_message import DUE_AT_ATTRIBUTE, NAME_ATTRIBUTE, TOKEN_ATTRIBUTE
from dynein.core.inbound_message import is_pack
from dynein.core.queues import Queues, Received
from dynein.delivery.dead_letter_queue import KIND_ATTRIBUTE
from dynein.errors import FatalError
from dynein.runtime.clock import Clock


class Arrived(NamedTuple):
    """One message, as it was received. ``due_at_ms`` and ``late_ms`` are ``None`` if it is not from Dynein."""

    queue: str
    at_ms: int
    body: str
    token: str | None
    name: str | None
    due_at_ms: int | None
    receive_count: int

    @property
    def late_ms(self) -> int | None:
        """Arrival minus due time: the service's lateness plus the time until the consumer receives it."""
        return None if self.due_at_ms is None else self.at_ms - self.due_at_ms


async def tail(
    queues: Queues,
    url: str,
    queue: str,
    clock: Clock,
    *,
    keep: bool,
    stopping: asyncio.Event,
    wait_s: int = 5,
    pause_s: float = 0.0,
) -> AsyncIterator[Arrived]:
    """Yield messages until ``stopping`` is set. With ``keep`` they are given back, else deleted as they are read.

    Each receive waits up to ``wait_s`` for a message (a long poll); ``pause_s`` is slept after an empty one.

    Giving back counts as a receive: SQS may then move the message by the queue's own redrive policy.

    Raises `FatalError` when it meets an inbound message or a dead letter: whoever takes those takes jobs away.
    """
    while not stopping.is_set():
        received = await queues.receive(url, entries_max=10, wait_s=wait_s, visibility_timeout_s=30)
        at_ms = clock.now_ms()
        if any(map(_is_dyneins_own, received)):
            await queues.extend(url, [message.receipt for message in received], 0)
            raise FatalError(
                f"{queue} holds Dynein's own messages: whoever reads them takes jobs away. They were given back. See "
                "`dynein audit` and `dynein redrive`"
            )
        for message in received:
            yield _arrived(queue, at_ms, message)
        receipts = [message.receipt for message in received]
        if receipts and keep:
            await queues.extend(url, receipts, 0)
            await clock.sleep(1.0)  # what was just given back would come again at once
        elif receipts:
            await queues.delete(url, receipts)
        else:
            await clock.sleep(pause_s)


def _is_dyneins_own(message: Received) -> bool:
    if KIND_ATTRIBUTE in message.attributes:
        return True
    return TOKEN_ATTRIBUTE not in message.attributes and is_pack(message.body)


def _arrived(queue: str, at_ms: int, message: Received) -> Arrived:
    values = {name: attribute.value for name, attribute in message.attributes.items()}
    due_at = values.get(DUE_AT_ATTRIBUTE, "")
    return Arrived(
        queue=queue,
        at_ms=at_ms,
        body=message.body,
        token=values.get(TOKEN_ATTRIBUTE),
        name=values.get(NAME_ATTRIBUTE),
        due_at_ms=int(due_at) if due_at.isdecimal() else None,
        receive_count=message.receive_count,
    )
