"""Stores triggers and makes sure that each will be sent: by a dispatcher, or from here if none will read it."""

from __future__ import annotations

from collections.abc import Sequence

from dynein.core.job import decode_job
from dynein.core.trigger import Trigger
from dynein.ingest.batched_store import BatchedStore
from dynein.ingest.job_log import log_each
from dynein.ingest.late_writes import LateWrites
from dynein.ingest.near_jobs import NearJobs, NotSentError
from dynein.ingest.poison import Poison
from dynein.observability.events.ingest import JOB_STORED, LATE_WRITE_MADE_GOOD
from dynein.observability.telemetry import Telemetry
from dynein.runtime.retry import Retry
from dynein.runtime.tasks import all_of


class CheckedWrites:
    """Both verbs return once the message that brought the triggers may be deleted, as far as they are concerned."""

    def __init__(
        self,
        store: BatchedStore,
        late_writes: LateWrites,
        near_jobs: NearJobs,
        poison: Poison,
        retry: Retry,
        telemetry: Telemetry,
    ) -> None:
        self._store = store
        self._late_writes = late_writes
        self._near_jobs = near_jobs
        self._poison = poison
        self._retry = retry
        self._telemetry = telemetry

    async def store(self, triggers: Sequence[Trigger]) -> None:
        """Store them, then `check` them."""
        if triggers:
            await self._store.add(triggers)
            self._telemetry.stored.inc(len(triggers))
            self._telemetry.ingested.labels("stored").inc(len(triggers))
            log_each(JOB_STORED, triggers)
            await self.check(triggers)

    async def check(self, triggers: Sequence[Trigger]) -> None:
        """Report those that were stored behind the read mark, and recover those in a retired bucket."""
        await all_of([self._recover(trigger) for trigger in await self._late_writes.report(triggers)])

    async def _recover(self, trigger: Trigger) -> None:
        """``trigger`` was written into a retired bucket: if it is still there, it is sent from here or never."""
        found = await self._store.find(trigger.key)
        if found.trigger is None:
            return  # a dispatcher read it before the bucket was retired, or it was cancelled
        if found.tombstone is None:
            # Its due time is behind the read mark, so no tombstone can come any more.
            log_each(LATE_WRITE_MADE_GOOD, [trigger])
            await self._send(trigger)
        await self._store.remove(trigger.key)

    async def _send(self, trigger: Trigger) -> None:
        """Storing it again would not help, so a lane that does not take it or does not send it is tried again."""
        try:
            job = decode_job(trigger.record)
        except ValueError as error:
            await self._poison.dead_letter_job(trigger, str(error))
        else:
            await self._retry.call(
                "send a job from a retired bucket", lambda: self._near_jobs.put(trigger, job), retry_on=(NotSentError,)
            )
