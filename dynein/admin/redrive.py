"""Redrive: sends what is in the dead-letter queue to where it was meant to go.

A dead-lettered job is sent to its destination as the dispatcher would have sent it. A dead-lettered inbound message
goes back to the inbound queue, if it can be read by now. Both only if this deployment signed them (`dynein.core.seal`):
whoever may send to the dead-letter queue could otherwise have anything delivered. A dead letter is deleted only after
its send was acknowledged, so that an interrupted redrive loses nothing; a crash in between sends that job a second
time, with the same token.

A job that is not due yet stays: dead-lettering does not make it due. (It was dead-lettered when it was ingested,
because its shard does not exist.)

An inbound message stays that has a job due more than 14 days ago. The job may have been cancelled since, or created by
another submit of the same prepared token, and what records that is deleted 15 days after its due time. A message can be
older than that: each of the queues keeps it for up to 14 days.

Several redrives may run at a time: what one has received is invisible to the others, for much longer than it takes to
send it, so each dead letter is redriven by one of them.

The dead-letter queue is a standard queue: jobs of one message group come back in no particular order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dynein.admin.redrive_selection import Redrivable, Selection, batches, may_be_forgotten, outgoing
from dynein.core.delivered_message import TOKEN_ATTRIBUTE
from dynein.core.queues import ENTRIES_MAX, Queues, Received
from dynein.core.seal import Seal
from dynein.delivery.dead_letter_queue import read_dead_letter
from dynein.delivery.destinations import Destinations
from dynein.errors import DyneinError, Rejected
from dynein.observability.events.delivery import JOB_REDRIVEN, REDRIVE_HELD, REDRIVE_UNTIDY
from dynein.runtime.clock import Clock
from dynein.settings import Settings

NOT_DUE = "not due yet: redrive it after its due time"
"""Why a dead letter stays that could be sent."""
TOO_OLD = (
    "it has a job due more than 14 days ago, and whether that was cancelled is not known any more: delete the dead "
    "letter, or submit its jobs anew"
)
"""The same."""
DEAD_LETTERS_MAX = 1000
"""Default bound of one redrive."""
HELD_MAX = 50_000
"""Most dead letters kept invisible because they are not selected or failed; SQS allows 120,000 a queue."""
EMPTY_RECEIVES = 3
"""SQS queries only some of its servers: one empty response does not mean an empty queue."""
WAIT_S = 1
VISIBILITY_TIMEOUT_S = 300


class Report(NamedTuple):
    """The result of a redrive."""

    examined: int
    redriven: int
    skipped: int
    """Not selected."""
    failed: dict[str, int]
    """Dead letters that stay in the dead-letter queue, by reason."""
    stopped: str
    """Why it ended: ``empty``; ``came_round`` (a dead letter was received a second time, so all were seen once);
    ``max`` (there may be more); ``held_max`` (too many dead letters are not selected)."""


async def redrive(
    queues: Queues,
    destinations: Destinations,
    clock: Clock,
    settings: Settings,
    *,
    selection: Selection = Selection(),  # noqa: B008 - immutable
    dead_letters_max: int = DEAD_LETTERS_MAX,
    on_progress: Callable[[Report], None] | None = None,
) -> Report:
    """Redrive up to ``dead_letters_max`` selected dead letters; the others are made visible again at the end.

    It ends when the queue is empty or dead letters are received a second time. Raises what `Queues.receive` does for
    the dead-letter queue; failures of destinations are in the report.
    """
    run = _Redrive(queues, destinations, clock, settings, selection)
    url = (await destinations.resolve(settings.dead_letter_queue)).url
    try:
        stopped = await run.until_done(url, dead_letters_max, on_progress)
    finally:
        await run.give_back(url)
    return run.report(stopped)


class _Redrive:
    def __init__(
        self, queues: Queues, destinations: Destinations, clock: Clock, settings: Settings, selection: Selection
    ) -> None:
        self._queues = queues
        self._destinations = destinations
        self._clock = clock
        self._settings = settings
        self._seal = Seal(settings.secrets)
        self._selection = selection
        self._held: dict[str, str] = {}
        """Message id to receipt of every dead letter that stays."""
        self._redriven_undeleted: set[str] = set()
        self._redriven = 0
        self._skipped = 0
        self._failed: Counter[str] = Counter()

    def report(self, stopped: str) -> Report:
        failed = dict(self._failed.most_common())
        examined = self._redriven + self._skipped + sum(failed.values())
        return Report(examined, self._redriven, self._skipped, failed, stopped)

    async def until_done(self, url: str, dead_letters_max: int, on_progress: Callable[[Report], None] | None) -> str:
        empty = 0
        while empty < EMPTY_RECEIVES:
            left = dead_letters_max - self._redriven - sum(self._failed.values())
            if left <= 0:
                return "max"
            if len(self._held) + len(self._redriven_undeleted) >= HELD_MAX:
                return "held_max"
            received = await self._queues.receive(
                url,
                entries_max=min(ENTRIES_MAX, left),
                wait_s=WAIT_S,
                visibility_timeout_s=VISIBILITY_TIMEOUT_S,
            )
            empty = 0 if received else empty + 1
            new = await self._new(url, received)
            await self._process(url, new)
            if on_progress is not None:
                on_progress(self.report("running"))
            if len(new) < len(received):
                return "came_round"
        return "empty"

    async def give_back(self, url: str) -> None:
        receipts = list(self._held.values())
        try:
            for start in range(0, len(receipts), ENTRIES_MAX):
                await self._queues.extend(url, receipts[start : start + ENTRIES_MAX], 0)
        except DyneinError as error:
            REDRIVE_HELD.log(error, messages=len(receipts), within_s=VISIBILITY_TIMEOUT_S)

    async def _new(self, url: str, received: Sequence[Received]) -> list[Received]:
        """Those received for the first time. Of the others only the new receipt is of any use."""
        new, redriven = [], []
        for message in received:
            if message.message_id in self._redriven_undeleted:
                redriven.append(message)
            elif message.message_id in self._held:
                self._held[message.message_id] = message.receipt
            else:
                new.append(message)
        if redriven:
            await self._delete(url, redriven)
        return new

    async def _process(self, url: str, received: list[Received]) -> None:
        redrivable = []
        for message in received:
            # Held from the start: whatever goes wrong below, it is given back.
            self._held[message.message_id] = message.receipt
            dead_letter = read_dead_letter(message)
            try:
                to_send = outgoing(dead_letter, self._settings.inbound_queue, self._seal, self._settings.own_queues)
            except (DyneinError, ValueError) as error:
                if self._selection.selects(dead_letter, None):
                    self._failed[_reason(error)] += 1
                else:
                    self._skipped += 1
                continue
            if not self._selection.selects(dead_letter, to_send.queue):
                self._skipped += 1
            elif dead_letter.due_at_ms is not None and dead_letter.due_at_ms > self._clock.now_ms():
                self._failed[NOT_DUE] += 1
            elif may_be_forgotten(to_send, self._clock.now_ms()):
                self._failed[TOO_OLD] += 1
            else:
                redrivable.append(Redrivable(message, to_send.queue, to_send.message))
        for batch in batches(redrivable, self._settings.message_bytes_max):
            await self._send(url, batch)

    async def _send(self, url: str, batch: list[Redrivable]) -> None:
        try:
            destination = await self._destinations.resolve(batch[0].queue)
            failures = await self._queues.send(destination.url, [dead_letter.message for dead_letter in batch])
        except DyneinError as error:
            if isinstance(error, Rejected):
                self._destinations.forget(batch[0].queue)
            self._failed[_reason(error)] += len(batch)
            return
        acknowledged = []
        for dead_letter, failure in zip(batch, failures, strict=True):
            if failure is None:
                acknowledged.append(dead_letter.received)
                _log_redriven(dead_letter)
            else:
                self._failed[f"{failure.code}: {failure.message}"] += 1
        self._redriven += len(acknowledged)
        if acknowledged:
            await self._delete(url, acknowledged)

    async def _delete(self, url: str, dead_letters: list[Received]) -> None:
        """What cannot be deleted stays invisible as long as it can: redriving it again would send its job twice."""
        for dead_letter in dead_letters:
            self._held.pop(dead_letter.message_id, None)
            self._redriven_undeleted.add(dead_letter.message_id)
        try:
            failures = await self._queues.delete(url, [dead_letter.receipt for dead_letter in dead_letters])
        except DyneinError as error:
            REDRIVE_UNTIDY.log(error, messages=len(dead_letters))
            return
        for dead_letter, failure in zip(dead_letters, failures, strict=True):
            if failure is None:
                self._redriven_undeleted.discard(dead_letter.message_id)
            else:
                REDRIVE_UNTIDY.log(messages=1, error=failure.message)


def _log_redriven(dead_letter: Redrivable) -> None:
    attributes = dead_letter.message.attributes
    if TOKEN_ATTRIBUTE in attributes:  # an inbound message has many
        JOB_REDRIVEN.log(token=attributes[TOKEN_ATTRIBUTE].value, queue=dead_letter.queue)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if isinstance(error, DyneinError) else str(error)
