"""The inbound queue as the ingester uses it: receive, delete, give back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from dynein.core.queues import ENTRIES_MAX, Queues, Received, call_failure
from dynein.errors import Retryable, Unavailable, UnknownQueue
from dynein.ingest.admission import jobs_max
from dynein.observability.events.ingest import INBOUND_UNDELETED
from dynein.runtime.context import Context
from dynein.runtime.group_commit import GroupCommit
from dynein.runtime.retry import Backoff, Retry
from dynein.settings import Settings

CALLS_IN_FLIGHT_MAX = 8
DELETE_TRIES_MAX = 12
"""Half a minute or so, the message kept invisible meanwhile: if it came back, what was sent would be sent twice."""


class Inbox:
    """One inbound queue. Once ``ended`` is set, no delete is repeated (`RetryEnded`)."""

    def __init__(
        self, queues: Queues, url: str, backoff: Backoff, ended: asyncio.Event, context: Context, settings: Settings
    ) -> None:
        waiting_max = jobs_max(settings)
        self._queues = queues
        self._url = url
        self._context = context
        self._settings = settings
        self._delete_retry = Retry(context.clock, context.rng, backoff, ended=ended, tries_max=DELETE_TRIES_MAX)
        self._deletes: GroupCommit[str, bool] = GroupCommit(
            self._delete, entries_max=ENTRIES_MAX, waiting_max=waiting_max, in_flight_max=CALLS_IN_FLIGHT_MAX
        )
        self._returns: GroupCommit[str, None] = GroupCommit(
            self._give_back, entries_max=ENTRIES_MAX, waiting_max=waiting_max, in_flight_max=CALLS_IN_FLIGHT_MAX
        )

    @property
    def deleting(self) -> int:
        """Messages whose delete waits or is under way, at most."""
        return self._deletes.waiting + ENTRIES_MAX * self._deletes.in_flight

    async def receive(self) -> list[Received]:
        """Up to 10 messages, after at most the long-poll time."""
        received = await self._queues.receive(
            self._url,
            entries_max=ENTRIES_MAX,
            wait_s=self._settings.receive_wait_s,
            visibility_timeout_s=self._settings.visibility_timeout_s,
        )
        sent_at_ms = min((message.sent_at_ms for message in received if message.sent_at_ms is not None), default=None)
        age_s = 0.0 if sent_at_ms is None else max(0, self._context.clock.now_ms() - sent_at_ms) / 1000
        self._context.telemetry.inbound_oldest_age.set(age_s)
        return received

    async def delete(self, receipt: str) -> bool:
        """Whether SQS has acknowledged the delete. If not, the message will be received again."""
        return await self._deletes.submit(receipt)

    async def give_back(self, receipt: str) -> None:
        """Make a message visible at once. Where that fails it becomes visible when its timeout ends."""
        await self._returns.submit(receipt)

    async def _delete(self, receipts: list[str]) -> Sequence[bool]:
        deleted = [False] * len(receipts)
        left = list(range(len(receipts)))

        async def attempt() -> None:
            nonlocal left
            failures = await self._queues.delete(self._url, [receipts[i] for i in left])
            for i, failure in zip(left, failures, strict=True):
                deleted[i] = failure is None
            left = [i for i, f in zip(left, failures, strict=True) if f is not None and not f.permanent]
            if left:
                raise Unavailable(f"{len(left)} inbound messages were not deleted")

        with suppress(Retryable, UnknownQueue):  # given up, counted and logged below
            await self._delete_retry.call("delete", attempt, retry_on=(Retryable, UnknownQueue))
        if not all(deleted):
            self._context.telemetry.inbound_failures.labels("delete").inc(deleted.count(False))
            INBOUND_UNDELETED.log(messages=deleted.count(False))
        return deleted

    async def _give_back(self, receipts: list[str]) -> Sequence[None]:
        try:
            failures = await self._queues.extend(self._url, receipts, 0)
        except (Retryable, UnknownQueue) as error:
            failures = [call_failure(error)] * len(receipts)
        failed = sum(failure is not None for failure in failures)
        if failed:
            self._context.telemetry.inbound_failures.labels("give_back").inc(failed)
        return [None] * len(receipts)
