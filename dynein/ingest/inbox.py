"""The inbound queue as the ingester uses it: receive, delete, give back."""

from __future__ import annotations

from collections.abc import Sequence

from dynein.core.queues import ENTRIES_MAX, Queues, Received, SendFailure, call_failure
from dynein.errors import Remedy, Retryable, UnknownQueue
from dynein.ingest.retrying import Retrying
from dynein.observability.events.ingest import INBOUND_UNDELETED
from dynein.observability.telemetry import Telemetry
from dynein.runtime.clock import Clock
from dynein.runtime.group_commit import GroupCommit

CALLS_IN_FLIGHT_MAX = 8
DELETE_TRIES_MAX = 12
"""Half a minute or so, the message kept invisible meanwhile: coming back it means duplicates of what was sent."""


class Inbox:
    """One inbound queue."""

    def __init__(
        self,
        queues: Queues,
        url: str,
        clock: Clock,
        retrying: Retrying,
        telemetry: Telemetry,
        *,
        wait_s: int,
        visibility_timeout_s: int,
        waiting_max: int,
    ) -> None:
        self._queues = queues
        self._url = url
        self._clock = clock
        self._retrying = retrying
        self._telemetry = telemetry
        self._wait_s = wait_s
        self._visibility_timeout_s = visibility_timeout_s
        self._deletes: GroupCommit[str, bool] = GroupCommit(
            self._delete, entries_max=ENTRIES_MAX, waiting_max=waiting_max, in_flight_max=CALLS_IN_FLIGHT_MAX
        )
        self._returns: GroupCommit[str, None] = GroupCommit(
            self._give_back, entries_max=ENTRIES_MAX, waiting_max=waiting_max, in_flight_max=CALLS_IN_FLIGHT_MAX
        )

    async def receive(self) -> list[Received]:
        """Up to 10 messages, after at most the long-poll time."""
        received = await self._queues.receive(
            self._url,
            entries_max=ENTRIES_MAX,
            wait_s=self._wait_s,
            visibility_timeout_s=self._visibility_timeout_s,
        )
        sent_at_ms = min((message.sent_at_ms for message in received if message.sent_at_ms is not None), default=None)
        age_s = 0.0 if sent_at_ms is None else max(0, self._clock.now_ms() - sent_at_ms) / 1000
        self._telemetry.inbound_oldest_age.set(age_s)
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
        for tries in range(1, DELETE_TRIES_MAX + 1):
            failures = await self._try_delete([receipts[i] for i in left])
            for i, failure in zip(left, failures, strict=True):
                deleted[i] = failure is None
            left = [i for i, f in zip(left, failures, strict=True) if f is not None and f.remedy is not Remedy.REJECT]
            if not left:
                break
            if tries < DELETE_TRIES_MAX:
                await self._retrying.pause(tries)
        if not all(deleted):
            self._telemetry.inbound_failures.labels("delete").inc(deleted.count(False))
            INBOUND_UNDELETED.log(messages=deleted.count(False))
        return deleted

    async def _try_delete(self, receipts: list[str]) -> list[SendFailure | None]:
        """One call. A call that failed as a whole is reported as a failure of each entry."""
        try:
            return await self._queues.delete(self._url, receipts)
        except (Retryable, UnknownQueue) as error:
            return [call_failure(error)] * len(receipts)

    async def _give_back(self, receipts: list[str]) -> Sequence[None]:
        try:
            failures = await self._queues.extend(self._url, receipts, 0)
        except (Retryable, UnknownQueue) as error:
            failures = [call_failure(error)] * len(receipts)
        failed = sum(failure is not None for failure in failures)
        if failed:
            self._telemetry.inbound_failures.labels("give_back").inc(failed)
        return [None] * len(receipts)
