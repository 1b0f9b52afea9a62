"""Takes triggers out of the store: those that were sent, and those whose record cannot be read.

Neither may be given up because a call failed: a trigger that was sent and is still stored would be sent again by the
next owner of its shard, and one that nobody can read would be forgotten. So both are repeated for as long as the
process lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from dynein.core.keys import bucket_of
from dynein.core.ledger import Flow
from dynein.core.queues import ENTRIES_MAX
from dynein.core.trigger_store import REMOVE_MAX, TriggerStore
from dynein.delivery.dead_letter_queue import DeadLetterQueue
from dynein.errors import FatalError
from dynein.observability.events.delivery import JOB_DEAD_LETTERED
from dynein.observability.events.scheduler import REMOVAL_FAILED, ROLE
from dynein.observability.telemetry import OTHER
from dynein.runtime.context import Context
from dynein.runtime.partitioned_commit import PartitionedCommit
from dynein.runtime.retry import Backoff, Retry
from dynein.runtime.tasks import all_of
from dynein.scheduler.memory_budget import MemoryBudget
from dynein.scheduler.shard_buffer import BufferedTrigger, Stage
from dynein.settings import Settings

REMOVALS_IN_FLIGHT_MAX = 8


class _Unreadable(NamedTuple):
    entry: BufferedTrigger
    reason: str


class Remover:
    """Removals and dead letters of one process, for all of its shards, each in group commits.

    Both hold buffered triggers only, so ``memory`` bounds them.
    """

    def __init__(
        self,
        store: TriggerStore,
        dead_letters: DeadLetterQueue,
        memory: MemoryBudget,
        context: Context,
        settings: Settings,
        *,
        bucket_width_ms: int,
    ) -> None:
        self._store = store
        self._dead_letters = dead_letters
        self._context = context
        self._killed = asyncio.Event()
        retry = Retry(
            context.clock,
            context.rng,
            Backoff(settings.backoff_first_s, settings.backoff_max_s),
            failed=_log_failure,
            ended=self._killed,
        )
        self._fatal: FatalError | None = None
        self._failed = asyncio.Event()
        self._removals: PartitionedCommit[BufferedTrigger] = PartitionedCommit(
            "removing triggers",
            self._remove,
            partition_of=lambda entry: (bucket_of(entry.trigger.key.due_at_ms, bucket_width_ms), entry.buffer),
            retry=retry,
            retry_on=(Exception,),
            entries_max=REMOVE_MAX,
            waiting_max=memory.slots_max,
            in_flight_max=REMOVALS_IN_FLIGHT_MAX,
        )
        self._unreadable: PartitionedCommit[_Unreadable] = PartitionedCommit(
            "dead-lettering unreadable records",
            self._dead_letter,
            # A shard without a valid lease must not keep another's.
            partition_of=lambda unreadable: unreadable.entry.buffer,
            retry=retry,
            retry_on=(Exception,),
            entries_max=ENTRIES_MAX,
            waiting_max=memory.slots_max,
            in_flight_max=1,
        )

    def remove(self, entry: BufferedTrigger) -> None:
        """Remove its trigger, however often that has to be tried."""
        entry.stage = Stage.REMOVING
        self._removals.submit(entry)

    def dead_letter(self, entry: BufferedTrigger, reason: str) -> None:
        """Its record cannot be read: move it to the dead-letter queue, then remove it."""
        entry.stage = Stage.TRYING
        entry.tried_at = self._context.clock.monotonic()
        self._unreadable.submit(_Unreadable(entry, reason))

    async def run(self) -> None:
        """Wait, until cancelled, for an error that ends the role, and raise it (`FatalError`)."""
        await self._failed.wait()
        assert self._fatal is not None
        raise self._fatal

    def kill(self) -> None:
        """End every retry: the process is going down."""
        self._killed.set()

    # --- removals ---------------------------------------------------------------------------------------------------

    async def _remove(self, entries: list[BufferedTrigger]) -> list[bool]:
        """One call; returns which of them it removed."""
        try:
            kept = set(await self._store.remove(list({entry.trigger.key: None for entry in entries})))
        except FatalError as error:
            return self._end(error, entries)
        removed = [entry.trigger.key not in kept for entry in entries]
        sent = 0
        for entry, gone in zip(entries, removed, strict=True):
            if gone:
                sent += entry.job is not None
                entry.buffer.drop(entry)
        self._context.telemetry.removed.inc(sent)
        return removed

    # --- dead letters -----------------------------------------------------------------------------------------------

    async def _dead_letter(self, unreadable: list[_Unreadable]) -> list[bool]:
        """Try each once; returns which of them are done with."""
        try:
            return await all_of([self._dead_letter_one(entry, reason) for entry, reason in unreadable])
        except FatalError as error:
            return self._end(error, unreadable)

    async def _dead_letter_one(self, entry: BufferedTrigger, reason: str) -> bool:
        if not entry.buffer.closed and not entry.buffer.lease.valid():
            return False
        if not entry.may_send():
            entry.buffer.drop(entry)
            return True
        trigger = entry.trigger
        due_at_ms = trigger.key.due_at_ms
        try:
            await self._dead_letters.add_job(trigger.record, trigger.token, due_at_ms, reason)
        except FatalError:
            raise
        except Exception as error:  # noqa: BLE001 - one that is refused must not keep the others
            REMOVAL_FAILED.log(error, what="dead-lettering unreadable records")
            return False
        self.remove(entry)
        self._context.telemetry.dead_lettered.labels(ROLE, OTHER).inc()
        self._context.tally.add(Flow.DEAD_LETTERED, due_at_ms)
        JOB_DEAD_LETTERED.log(role=ROLE, token=trigger.token, code="unreadable", reason=reason, due_at_ms=due_at_ms)
        return True

    # --- both -------------------------------------------------------------------------------------------------------

    def _end(self, error: FatalError, entries: Sequence[object]) -> list[bool]:
        """``error`` is for `run` to raise. What is left is stored: the next owner of its shard will meet it."""
        self._fatal = self._fatal or error
        self._failed.set()
        return [True] * len(entries)


def _log_failure(what: str, error: Exception, failures: int, pause_s: float) -> None:
    del failures, pause_s
    REMOVAL_FAILED.log(error, what=what)
