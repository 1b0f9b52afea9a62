"""Sees the jobs of one inbound message through: until each is stored, sent, or known to need neither."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dynein.core.inbound_message import Arrival
from dynein.core.job import Job, decode_job
from dynein.core.ledger import NOT_KEPT, Flow, Tally
from dynein.core.trigger import Trigger
from dynein.delivery.dead_letter_queue import DeadLetterQueue
from dynein.errors import Retryable, UnknownQueue
from dynein.ingest.batched_store import BatchedStore
from dynein.ingest.late_writes import LateWrites
from dynein.ingest.marks_cache import ShardView
from dynein.ingest.near_jobs import Hand, NotSentError
from dynein.ingest.receive_history import Progress
from dynein.ingest.retrying import Retrying, all_of
from dynein.ingest.triage import admit
from dynein.observability.events.delivery import JOB_DEAD_LETTERED, JOB_STOPPED
from dynein.observability.events.event import Event
from dynein.observability.events.ingest import JOB_DUPLICATE, JOB_HELD, JOB_STORED, LATE_WRITE_MADE_GOOD, ROLE
from dynein.observability.telemetry import Telemetry
from dynein.runtime.clock import Clock


class _Looked(NamedTuple):
    """Near arrivals, by what was found at their keys."""

    absent: list[Trigger]
    stored: list[Trigger]


class Ingestion:
    """Takes arrivals that were let in. Errors that are not retried come out once nobody works on the message any more.

    Whatever is `Retryable` is retried for as long as the ingester runs: the message is ours, and giving it up would
    only make another ingester run into the same.
    """

    def __init__(
        self,
        store: BatchedStore,
        view: ShardView,
        late_writes: LateWrites,
        hand: Hand,
        dead_letters: DeadLetterQueue,
        clock: Clock,
        retrying: Retrying,
        telemetry: Telemetry,
        *,
        hold_window_ms: int,
        tally: Tally = NOT_KEPT,
    ) -> None:
        self._store = store
        self._view = view
        self._late_writes = late_writes
        self._hand = hand
        self._dead_letters = dead_letters
        self._clock = clock
        self._retrying = retrying
        self._telemetry = telemetry
        self._hold_window_ms = hold_window_ms
        self._tally = tally

    async def finish(self, arrivals: Sequence[Arrival], progress: Progress, *, received_before: bool) -> None:
        """Return once the message that brought ``arrivals`` may be deleted.

        ``received_before``: an earlier receive, here or elsewhere, may have got some way with it.
        """
        firsts = await self._first_creates(arrivals)
        # Also of what was sent before: the repeats of a job that needs nothing more are still to be taken back.
        repeats = _without(arrivals, firsts)
        arrivals = await self._with_shard([arrival for arrival in firsts if arrival.key not in progress.sent])
        # Only now, when nothing keeps us from acting on it, is it decided what is near.
        hold, store = admit(arrivals, self._clock.now_ms(), self._hold_window_ms)
        await all_of(
            [
                self._store_all([arrival.trigger for arrival in store]),
                self._hold_all([arrival.trigger for arrival in hold], progress, received_before=received_before),
            ]
        )
        for repeat in repeats:
            # The API could not know that this create was not the first; now its job is counted once.
            self._tally.add(Flow.ACCEPTED, repeat.key.due_at_ms, -1)
            JOB_DUPLICATE.log(token=repeat.trigger.token)

    async def _first_creates(self, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """Without those whose prepared token another create has used, and with every job once."""
        prepared = [arrival for arrival in arrivals if arrival.prepared]
        if not prepared:
            return list(arrivals)
        claimed = await all_of([self._store.claim(arrival) for arrival in prepared])
        verdicts = iter(claimed)
        kept = [arrival for arrival in arrivals if not arrival.prepared or next(verdicts)]
        distinct = {arrival.key: arrival for arrival in kept}
        self._count("duplicate", len(arrivals) - len(distinct))
        return list(distinct.values())

    async def _with_shard(self, arrivals: Sequence[Arrival]) -> list[Arrival]:
        await self._view.ensure_known(arrival.key.shard for arrival in arrivals)
        lost = [arrival for arrival in arrivals if self._view.known(arrival.key.shard) is None]
        await all_of(
            [
                self._dead_letter(arrival.trigger, f"shard {arrival.key.shard} does not exist in the table")
                for arrival in lost
            ]
        )
        return [arrival for arrival in arrivals if self._view.known(arrival.key.shard) is not None]

    async def _store_all(self, triggers: Sequence[Trigger]) -> None:
        if triggers:
            await self._store.add(triggers)
            self._telemetry.stored.inc(len(triggers))
            self._count("stored", len(triggers))
            _log_each(JOB_STORED, triggers)
            await self._check_stored(triggers)

    async def _check_stored(self, triggers: Sequence[Trigger]) -> None:
        await all_of([self._make_good(trigger) for trigger in await self._late_writes.report(triggers)])

    async def _make_good(self, trigger: Trigger) -> None:
        """``trigger`` was written into a retired bucket: if it is still there, nobody but us will ever send it."""
        found = await self._store.find(trigger.key)
        if found.trigger is None:
            return  # a dispatcher came to it before the bucket was retired, or it was cancelled
        if found.tombstone is None:
            # Its due time is behind the read mark, so no tombstone can come any more.
            _log_each(LATE_WRITE_MADE_GOOD, [trigger])
            await self._send_whatever_happens(trigger)
        await self._store.remove(trigger.key)

    async def _send_whatever_happens(self, trigger: Trigger) -> None:
        try:
            job = decode_job(trigger.record)
        except ValueError as error:
            await self._dead_letter(trigger, str(error))
            return
        failures = 0
        while True:
            try:
                await self._hand.put(trigger, job)
            except NotSentError:
                failures += 1
                await self._retrying.pause(failures)
            else:
                return

    async def _hold_all(self, triggers: Sequence[Trigger], progress: Progress, *, received_before: bool) -> None:
        if not triggers:
            return
        await self._view.cover(_last_due_by_shard(triggers))
        looked = await (self._find(triggers) if received_before else self._look_for_tombstones(triggers))
        self._count("cancelled", len(triggers) - len(looked.absent) - len(looked.stored))
        self._count("stored", len(looked.stored))
        await all_of([self._check_stored(looked.stored), self._send_all(looked.absent, progress)])

    async def _look_for_tombstones(self, triggers: Sequence[Trigger]) -> _Looked:
        tombstones = await self._store.tombstones([trigger.key for trigger in triggers])
        _log_stopped(triggers, [stone is not None for stone in tombstones])
        absent = [trigger for trigger, stone in zip(triggers, tombstones, strict=True) if stone is None]
        return _Looked(absent, [])

    async def _find(self, triggers: Sequence[Trigger]) -> _Looked:
        """Dearer, a read for each: but what an earlier receive stored has a dispatcher to send it, once."""
        found = await all_of([self._store.find(trigger.key) for trigger in triggers])
        _log_stopped(triggers, [at_key.tombstone is not None for at_key in found])
        looked = _Looked([], [])
        for trigger, at_key in zip(triggers, found, strict=True):
            if at_key.tombstone is None:
                (looked.absent if at_key.trigger is None else looked.stored).append(trigger)
        return looked

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
                *[self._dead_letter(trigger, reason) for trigger, reason in unreadable],
            ]
        )

    async def _send_readable(self, jobs: Sequence[tuple[Trigger, Job]], progress: Progress) -> None:
        """Hold each until it is due and send it. What the hand lets go of unsent is stored at once."""
        pending = {self._hand.put(trigger, job): trigger for trigger, job in jobs}
        _log_each(JOB_HELD, pending.values())
        try:
            while pending:
                await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
                # In the order they came: what `wait` returns are sets.
                ended = [(future, trigger) for future, trigger in pending.items() if future.done()]
                for future, _ in ended:
                    del pending[future]
                unsent = []
                for future, trigger in ended:
                    if _was_sent(future):
                        progress.sent[trigger.key] = None
                    else:
                        unsent.append(trigger)
                self._count("held", len(ended) - len(unsent))
                await self._store_all(unsent)
        finally:
            for future in pending:
                future.cancel()

    async def _dead_letter(self, trigger: Trigger, reason: str) -> None:
        await self._retrying.call(
            "dead-letter a job",
            lambda: self._dead_letters.add_job(trigger.record, trigger.token, trigger.key.due_at_ms, reason),
            retry_on=(Retryable, UnknownQueue),
        )
        self._count("poison", 1)
        self._tally.add(Flow.DEAD_LETTERED, trigger.key.due_at_ms)
        key = trigger.key
        JOB_DEAD_LETTERED.log(role=ROLE, token=trigger.token, code="unreadable", reason=reason, due_at_ms=key.due_at_ms)

    def _count(self, outcome: str, jobs: int) -> None:
        if jobs:
            self._telemetry.ingested.labels(outcome).inc(jobs)


def _without(arrivals: Sequence[Arrival], firsts: Sequence[Arrival]) -> list[Arrival]:
    if len(arrivals) == len(firsts):
        return []
    kept = {id(arrival) for arrival in firsts}
    return [arrival for arrival in arrivals if id(arrival) not in kept]


def _log_each(event: Event, triggers: Iterable[Trigger]) -> None:
    if event.enabled:
        for key, token, _ in triggers:
            event.log(token=token, shard=key.shard, due_at_ms=key.due_at_ms)


def _log_stopped(triggers: Sequence[Trigger], stopped: Sequence[bool]) -> None:
    if JOB_STOPPED.enabled:
        for (key, token, _), is_stopped in zip(triggers, stopped, strict=True):
            if is_stopped:
                JOB_STOPPED.log(role=ROLE, token=token, shard=key.shard, due_at_ms=key.due_at_ms)


def _last_due_by_shard(triggers: Iterable[Trigger]) -> dict[int, int]:
    last: dict[int, int] = {}
    for key, _, _ in triggers:
        last[key.shard] = max(key.due_at_ms, last.get(key.shard, 0))
    return last


def _was_sent(ended: asyncio.Future[None]) -> bool:
    """Raises what nobody foresaw."""
    try:
        ended.result()
    except NotSentError:
        return False
    return True
