"""Keeps received messages invisible to other ingesters while we work on them."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from dynein.core.queues import ENTRIES_MAX, Queues
from dynein.errors import Retryable, UnknownQueue
from dynein.observability.events.ingest import INBOUND_LOST, INBOUND_NOT_KEPT
from dynein.runtime.context import Context
from dynein.runtime.tasks import all_of
from dynein.settings import Settings

_RETRY_S = 0.5
_CALLS_IN_FLIGHT_MAX = 8


class _Kept(NamedTuple):
    receipt: str
    extend_at: float


class Visibility:
    """Extends each kept message when half of its visibility timeout has passed.

    So calls may fail for half a timeout before a message comes back while it is still worked on (which costs a
    duplicate, nothing else). `Admission` and the number of receivers bound how many.
    """

    def __init__(self, queues: Queues, url: str, context: Context, settings: Settings) -> None:
        self._queues = queues
        self._url = url
        self._context = context
        self._timeout_s = settings.visibility_timeout_s
        self._kept: dict[str, _Kept] = {}
        self._calls = asyncio.Semaphore(_CALLS_IN_FLIGHT_MAX)

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, message_id: str, receipt: str) -> None:
        """Keep a message invisible; call when it has just been received. A newer receipt replaces an older one."""
        self._kept[message_id] = _Kept(receipt, self._context.clock.monotonic() + self._timeout_s / 2)

    def receipt(self, message_id: str) -> str:
        """The newest receipt of a kept message."""
        return self._kept[message_id].receipt

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._kept

    def drop(self, message_id: str) -> None:
        """Keep it no longer: it is deleted, given back, or left to become visible."""
        self._kept.pop(message_id, None)

    async def run_once(self) -> float:
        """Extend what has had half of its timeout; the seconds until the next may need it."""
        now = self._context.clock.monotonic()
        due = [(message_id, kept.receipt) for message_id, kept in self._kept.items() if kept.extend_at <= now]
        await all_of([self._extend(due[i : i + ENTRIES_MAX]) for i in range(0, len(due), ENTRIES_MAX)])
        # Whatever is received meanwhile needs it after half a timeout at the earliest.
        first = min((kept.extend_at for kept in self._kept.values()), default=float("inf"))
        return min(self._timeout_s / 4, max(_RETRY_S, first - self._context.clock.monotonic()))

    async def _extend(self, batch: list[tuple[str, str]]) -> None:
        async with self._calls:
            # From the start of the call: SQS counts from some moment between then and its response.
            extend_at = self._context.clock.monotonic() + self._timeout_s / 2
            try:
                failures = await self._queues.extend(self._url, [receipt for _, receipt in batch], self._timeout_s)
            except (Retryable, UnknownQueue) as error:
                INBOUND_NOT_KEPT.log(error, messages=len(batch))
                return  # the next pass tries again
        for (message_id, receipt), failure in zip(batch, failures, strict=True):
            kept = self._kept.get(message_id)
            if kept is None or kept.receipt != receipt or (failure is not None and not failure.permanent):
                continue
            if failure is not None:
                self._context.telemetry.inbound_failures.labels("extend").inc()
                INBOUND_LOST.log(message_id=message_id, code=failure.code, error=failure.message)
            # SQS keeps a message invisible for 12 hours at most. One that it refuses to extend is never extended
            # again, and is finished all the same.
            self._kept[message_id] = _Kept(receipt, float("inf") if failure is not None else extend_at)
