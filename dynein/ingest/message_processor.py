"""Processes the jobs of one inbound message: until each is stored, sent, or known to need neither."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from dynein.core.inbound_message import Arrival
from dynein.core.job import Job, decode_job
from dynein.core.ledger import Flow
from dynein.core.trigger import Trigger
from dynein.ingest.batched_store import BatchedStore
from dynein.ingest.checked_writes import CheckedWrites
from dynein.ingest.job_log import log_each, log_stopped
from dynein.ingest.marks_cache import MarksCache
from dynein.ingest.near_jobs import NearJobs, NotSentError
from dynein.ingest.poison import Poison
from dynein.ingest.receive_history import Progress
from dynein.ingest.triage import HoldWindows, triage
from dynein.observability.events.ingest import JOB_DUPLICATE, JOB_HELD
from dynein.runtime.context import Context
from dynein.runtime.tasks import all_of
from dynein.settings import Settings

_FIFO_HELD_TICKS = 1.5
"""A dispatcher notices a late write with its next renewal, within a tick, and then reads it."""


class _AtKeys(NamedTuple):
    """Near triggers that have no tombstone, by whether an earlier receive has stored them."""

    absent: list[Trigger]
    stored: list[Trigger]


class MessageProcessor:
    """Takes the jobs of admitted messages. An error that is not retried comes out once no work on the message goes on.

    Whatever is `Retryable` is retried for as long as the ingester runs: the message is ours, and giving it up would
    only make another ingester meet the same error.
    """

    def __init__(
        self,
        store: BatchedStore,
        writes: CheckedWrites,
        marks: MarksCache,
        near_jobs: NearJobs,
        poison: Poison,
        context: Context,
        settings: Settings,
    ) -> None:
        self._store = store
        self._writes = writes
        self._marks = marks
        self._near_jobs = near_jobs
        self._poison = poison
        self._context = context
        self._hold_windows = HoldWindows(
            round(settings.hold_window_s * 1000),
            round(min(settings.hold_window_s, _FIFO_HELD_TICKS * settings.tick_s) * 1000),
        )

    async def finish(self, arrivals: Sequence[Arrival], progress: Progress, *, received_before: bool) -> None:
        """Return once the message that brought ``arrivals`` may be deleted.

        ``received_before``: an earlier receive, here or elsewhere, may have done some of its jobs.
        """
        firsts = await self._first_creates(arrivals)
        # Also of what was sent before: the repeats of a job that needs nothing more are still to be taken back.
        repeats = _without(arrivals, firsts)
        arrivals = await self._with_shard([arrival for arrival in firsts if arrival.key not in progress.sent])
        # Only now, when nothing keeps us from acting on it, is it decided what is near.
        near, far = triage(arrivals, self._context.clock.now_ms(), self._hold_windows)
        await all_of(
            [
                self._writes.store([arrival.trigger for arrival in far]),
                self._finish_near([arrival.trigger for arrival in near], progress, received_before=received_before),
            ]
        )
        for repeat in repeats:
            # The API could not know that this create was not the first; now its job is counted once.
            self._context.tally.add(Flow.ACCEPTED, repeat.key.due_at_ms, -1)
            JOB_DUPLICATE.log(token=repeat.trigger.token)

    async def _first_creates(self, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """Without those whose prepared token another create has used, and with every job once."""
        prepared = [arrival for arrival in arrivals if arrival.prepared]
        if not prepared:
            return list(arrivals)
        claimed = iter(await all_of([self._store.claim(arrival) for arrival in prepared]))
        kept = [arrival for arrival in arrivals if not arrival.prepared or next(claimed)]
        distinct = {arrival.key: arrival for arrival in kept}
        self._count("duplicate", len(arrivals) - len(distinct))
        return list(distinct.values())

    async def _with_shard(self, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """Dead-letter those whose shard has no record; return the rest."""
        await self._marks.ensure_known(arrival.key.shard for arrival in arrivals)
        lost = [arrival for arrival in arrivals if self._marks.known(arrival.key.shard) is None]
        await all_of(
            [
                self._poison.dead_letter_job(arrival.trigger, f"shard {arrival.key.shard} does not exist in the table")
                for arrival in lost
            ]
        )
        return [arrival for arrival in arrivals if self._marks.known(arrival.key.shard) is not None]

    async def _finish_near(self, triggers: Sequence[Trigger], progress: Progress, *, received_before: bool) -> None:
        if not triggers:
            return
        await self._marks.cover(_last_due_by_shard(triggers))
        covered: list[Trigger] = []
        unsettled: list[Trigger] = []
        for trigger in triggers:
            stood = self._marks.has_stood(trigger.key.shard, trigger.key.due_at_ms)
            (covered if stood else unsettled).append(trigger)
        finish = partial(self._finish_covered, progress=progress, received_before=received_before)
        await all_of([finish(covered), self._finish_later(unsettled, finish)])

    async def _finish_later(
        self, triggers: Sequence[Trigger], finish: Callable[[Sequence[Trigger]], Coroutine[Any, Any, None]]
    ) -> None:
        """A cancel that came just before the mark may not show yet."""
        await self._marks.stood(_last_due_by_shard(triggers))
        await finish(triggers)

    async def _finish_covered(self, triggers: Sequence[Trigger], progress: Progress, *, received_before: bool) -> None:
        """None of them can be cancelled or moved any more, and the tombstone of each that has been shows."""
        if not triggers:
            return
        at_keys = await (self._find(triggers) if received_before else self._look_up_tombstones(triggers))
        self._count("cancelled", len(triggers) - len(at_keys.absent) - len(at_keys.stored))
        self._count("stored", len(at_keys.stored))
        await all_of([self._writes.check(at_keys.stored), self._send_all(at_keys.absent, progress)])

    async def _look_up_tombstones(self, triggers: Sequence[Trigger]) -> _AtKeys:
        tombstones = await self._store.tombstones([trigger.key for trigger in triggers])
        log_stopped(triggers, [tombstone is not None for tombstone in tombstones])
        absent = [trigger for trigger, tombstone in zip(triggers, tombstones, strict=True) if tombstone is None]
        return _AtKeys(absent, [])

    async def _find(self, triggers: Sequence[Trigger]) -> _AtKeys:
        """More expensive, a read for each: but what an earlier receive stored has a dispatcher to send it, once."""
        found = await all_of([self._store.find(trigger.key) for trigger in triggers])
        log_stopped(triggers, [at_key.tombstone is not None for at_key in found])
        at_keys = _AtKeys([], [])
        for trigger, at_key in zip(triggers, found, strict=True):
            if at_key.tombstone is None:
                (at_keys.absent if at_key.trigger is None else at_keys.stored).append(trigger)
        return at_keys

    async def _send_all(self, triggers: Sequence[Trigger], progress: Progress) -> None:
        readable: list[tuple[Trigger, Job]] = []
        unreadable: list[tuple[Trigger, str]] = []
        for trigger in triggers:
            try:
                readable.append((trigger, decode_job(trigger.record)))
            except ValueError as error:
                unreadable.append((trigger, str(error)))
        await all_of(
            [
                self._send_readable(readable, progress),
                *[self._poison.dead_letter_job(trigger, reason) for trigger, reason in unreadable],
            ]
        )

    async def _send_readable(self, jobs: Sequence[tuple[Trigger, Job]], progress: Progress) -> None:
        """Keep each until it is due and send it. What is evicted unsent is stored at once."""
        # Noted at once, whatever becomes of the others: the message may be received again.
        pending = {
            self._near_jobs.put(trigger, job, partial(progress.sent.setdefault, trigger.key)): trigger
            for trigger, job in jobs
        }
        log_each(JOB_HELD, pending.values())
        try:
            while pending:
                await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
                # In the order they came: what `wait` returns are sets.
                ended = [(future, trigger) for future, trigger in pending.items() if future.done()]
                for future, _ in ended:
                    del pending[future]
                unsent = [trigger for future, trigger in ended if not _was_sent(future)]
                self._count("held", len(ended) - len(unsent))
                await self._writes.store(unsent)
        finally:
            for future in pending:
                future.cancel()

    def _count(self, outcome: str, jobs: int) -> None:
        if jobs:
            self._context.telemetry.ingested.labels(outcome).inc(jobs)


def _without(arrivals: Sequence[Arrival], firsts: Sequence[Arrival]) -> list[Arrival]:
    if len(arrivals) == len(firsts):
        return []
    kept = {id(arrival) for arrival in firsts}
    return [arrival for arrival in arrivals if id(arrival) not in kept]


def _last_due_by_shard(triggers: Iterable[Trigger]) -> dict[int, int]:
    last: dict[int, int] = {}
    for key, _, _ in triggers:
        last[key.shard] = max(key.due_at_ms, last.get(key.shard, 0))
    return last


def _was_sent(ended: asyncio.Future[None]) -> bool:
    """Raises anything but `NotSentError`."""
    try:
        ended.result()
    except NotSentError:
        return False
    return True
