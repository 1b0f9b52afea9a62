"""Takes triggers out of the store: those that were sent, and those whose record cannot be read.

Neither may be given up because a call failed: a trigger that was sent and is still stored would be sent again by the
next owner of its shard, and one that nobody can read would be forgotten. So both are repeated for as long as the
process lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from dynein.core.keys import TriggerKey
from dynein.core.ledger import Flow
from dynein.core.queues import ENTRIES_MAX
from dynein.core.trigger_store import REMOVE_MAX, TriggerStore
from dynein.delivery.dead_letter_queue import DeadLetterQueue
from dynein.errors import FatalError
from dynein.observability.events.delivery import JOB_DEAD_LETTERED
from dynein.observability.events.scheduler import REMOVAL_FAILED, ROLE
from dynein.observability.telemetry import OTHER
from dynein.runtime.context import Context
from dynein.runtime.group_commit import GroupCommit
from dynein.runtime.retry import Backoff, Retry, RetryEnded
from dynein.scheduler.memory_budget import MemoryBudget
from dynein.scheduler.shard_buffer import BufferedTrigger, Stage
from dynein.settings import Settings

REMOVALS_IN_FLIGHT_MAX = 8


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
    ) -> None:
        self._store = store
        self._dead_letters = dead_letters
        self._context = context
        self._killed = asyncio.Event()
        self._retry = Retry(
            context.clock,
            context.rng,
            Backoff(settings.backoff_first_s, settings.backoff_max_s),
            failed=_log_failure,
            ended=self._killed,
        )
        self._fatal: FatalError | None = None
        self._failed = asyncio.Event()
        self._removals: GroupCommit[BufferedTrigger, None] = GroupCommit(
            self._remove, entries_max=REMOVE_MAX, waiting_max=memory.slots_max, in_flight_max=REMOVALS_IN_FLIGHT_MAX
        )
        self._unreadable: GroupCommit[tuple[BufferedTrigger, str], None] = GroupCommit(
            self._dead_letter, entries_max=ENTRIES_MAX, waiting_max=memory.slots_max
        )

    def remove(self, entry: BufferedTrigger) -> None:
        """Remove its trigger, however often that has to be tried."""
        entry.stage = Stage.REMOVING
        self._removals.submit(entry)

    def dead_letter(self, entry: BufferedTrigger, reason: str) -> None:
        """Its record cannot be read: move it to the dead-letter queue, then remove it."""
        entry.stage = Stage.TRYING
        entry.tried_at = self._context.clock.monotonic()
        self._unreadable.submit((entry, reason))

    async def run(self) -> None:
        """Wait, until cancelled, for an error that ends the role, and raise it (`FatalError`)."""
        await self._failed.wait()
        assert self._fatal is not None
        raise self._fatal

    def kill(self) -> None:
        """End every retry: the process is going down."""
        self._killed.set()

    # --- removals ---------------------------------------------------------------------------------------------------

    async def _remove(self, entries: list[BufferedTrigger]) -> list[None]:
        pending = {entry.trigger.key: entry for entry in entries}
        await self._until_none_left("removing triggers", partial(self._remove_once, pending))
        return [None] * len(entries)

    async def _remove_once(self, pending: dict[TriggerKey, BufferedTrigger]) -> int:
        """One call; returns how many it did not remove."""
        kept = await self._store.remove(list(pending))
        sent = 0
        for key in _all_but(pending, kept):
            entry = pending.pop(key)
            sent += entry.job is not None
            entry.buffer.drop(entry)
        self._context.telemetry.removed.inc(sent)
        return len(pending)

    # --- dead letters -----------------------------------------------------------------------------------------------

    async def _dead_letter(self, unreadable: list[tuple[BufferedTrigger, str]]) -> list[None]:
        await self._until_none_left(
            "dead-lettering unreadable records", partial(self._dead_letter_once, list(unreadable))
        )
        return [None] * len(unreadable)

    async def _dead_letter_once(self, pending: list[tuple[BufferedTrigger, str]]) -> int:
        """Dead-letter one after another; returns how many are left, for want of a valid lease."""
        while pending:
            entry, reason = pending[0]
            if not entry.buffer.closed and not entry.buffer.lease.valid():
                return len(pending)
            if entry.may_send():
                trigger = entry.trigger
                due_at_ms = trigger.key.due_at_ms
                try:
                    await self._dead_letters.add_job(trigger.record, trigger.token, due_at_ms, reason)
                except Exception:
                    pending.append(pending.pop(0))  # one that is refused must not keep the others
                    raise
                self.remove(entry)
                self._context.telemetry.dead_lettered.labels(ROLE, OTHER).inc()
                self._context.tally.add(Flow.DEAD_LETTERED, due_at_ms)
                JOB_DEAD_LETTERED.log(
                    role=ROLE, token=trigger.token, code="unreadable", reason=reason, due_at_ms=due_at_ms
                )
            else:
                entry.buffer.drop(entry)
            del pending[0]
        return 0

    # --- both -------------------------------------------------------------------------------------------------------

    async def _until_none_left(self, what: str, attempt: Callable[[], Awaitable[int]]) -> None:
        """Repeat ``attempt``, whatever error it meets. A `FatalError` is for `run` to raise."""
        try:
            await self._retry.until_none_left(what, attempt, retry_on=(Exception,))
        except RetryEnded:
            pass  # killed: what is left is still stored, and the next owner of its shard will meet it
        except FatalError as error:
            self._fatal = self._fatal or error
            self._failed.set()


def _log_failure(what: str, error: Exception, failures: int, pause_s: float) -> None:
    del failures, pause_s
    REMOVAL_FAILED.log(error, what=what)


def _all_but(pending: dict[TriggerKey, BufferedTrigger], kept: list[TriggerKey]) -> list[TriggerKey]:
    if not kept:
        return list(pending)
    still = set(kept)
    return [key for key in pending if key not in still]
