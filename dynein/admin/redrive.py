"""Redrive: what is in the dead-letter queue goes to where it was meant to go.

A job letter is sent to its destination as the dispatcher would have sent it. An inbound letter goes back to the inbound
queue, if it can be read by now. A letter is deleted only after its send was acknowledged, so an interrupted redrive
loses nothing; a crash in between sends that job a second time, with the same token.

A job that is not due yet stays: being dead does not make it early. (It was dead-lettered when it was ingested, because
its shard does not exist.)

The dead-letter queue is a standard queue: jobs of one message group come back in no particular order.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from dynein.core.delivered_message import TOKEN_ATTRIBUTE, outgoing_message
from dynein.core.inbound_message import unpack
from dynein.core.job import decode_job
from dynein.core.queue_address import name_of
from dynein.core.queues import ENTRIES_MAX, OutgoingMessage, Queues, Received, message_bytes
from dynein.delivery.dead_letter_queue import KIND_JOB, MESSAGE_BYTES_MAX, DeadLetter, read_dead_letter
from dynein.delivery.destinations import Destinations
from dynein.errors import DyneinError, Rejected
from dynein.observability.events.delivery import JOB_REDRIVEN, REDRIVE_HELD, REDRIVE_UNTIDY
from dynein.runtime.clock import Clock

NOT_DUE = "not due yet: redrive it after its due time"
"""Why a letter stays that could be sent."""
LETTERS_MAX = 1000
"""Default bound of one redrive."""
HELD_MAX = 50_000
"""Most letters kept invisible because they are not selected or failed; SQS allows 120,000 a queue."""
EMPTY_RECEIVES = 3
"""SQS asks only some of its servers: one empty answer does not mean an empty queue."""
WAIT_S = 1
VISIBILITY_TIMEOUT_S = 300


class Selection(NamedTuple):
    """Which letters to redrive; ``None`` selects all."""

    queue: str | None = None
    """Job letters for this destination only, as the job names it (its last part will do for a URL)."""
    reason: str | None = None
    """Letters whose reason contains this."""


class Report(NamedTuple):
    """What came of a redrive."""

    examined: int
    redriven: int
    skipped: int
    """Not selected."""
    failed: dict[str, int]
    """Letters that stay in the dead-letter queue, by why."""
    stopped: str
    """Why it ended: ``empty``; ``came_round`` (a letter came a second time, so all were seen once); ``max`` (there may
    be more); ``held_max`` (too many letters that are not selected)."""


class _Letter(NamedTuple):
    """A letter on its way. ``queue`` is where it goes."""

    received: Received
    queue: str
    message: OutgoingMessage


async def redrive(
    queues: Queues,
    destinations: Destinations,
    clock: Clock,
    *,
    dead_letter_queue: str,
    inbound_queue: str,
    selection: Selection = Selection(),  # noqa: B008 - immutable
    letters_max: int = LETTERS_MAX,
    message_bytes_max: int = MESSAGE_BYTES_MAX,
    on_progress: Callable[[Report], None] | None = None,
) -> Report:
    """Redrive up to ``letters_max`` selected letters; the others are given back at the end.

    It ends when the queue is empty or letters it has seen come round again. Raises what `Queues.receive` does for the
    dead-letter queue; failures of destinations are in the report.
    """
    run = _Redrive(queues, destinations, clock, inbound_queue, selection, message_bytes_max)
    url = (await destinations.resolve(dead_letter_queue)).url
    try:
        stopped = await run.until_done(url, letters_max, on_progress)
    finally:
        await run.give_back(url)
    return run.report(stopped)


class _Redrive:
    def __init__(
        self,
        queues: Queues,
        destinations: Destinations,
        clock: Clock,
        inbound_queue: str,
        selection: Selection,
        message_bytes_max: int,
    ) -> None:
        self._queues = queues
        self._destinations = destinations
        self._clock = clock
        self._inbound_queue = inbound_queue
        self._selection = selection
        self._message_bytes_max = message_bytes_max
        self._held: dict[str, str] = {}
        """Message id to receipt of every letter that stays."""
        self._redriven_undeleted: set[str] = set()
        self._redriven = 0
        self._skipped = 0
        self._failed: Counter[str] = Counter()

    def report(self, stopped: str) -> Report:
        failed = dict(self._failed.most_common())
        examined = self._redriven + self._skipped + sum(failed.values())
        return Report(examined, self._redriven, self._skipped, failed, stopped)

    async def until_done(self, url: str, letters_max: int, on_progress: Callable[[Report], None] | None) -> str:
        empty = 0
        while empty < EMPTY_RECEIVES:
            left = letters_max - self._redriven - sum(self._failed.values())
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
            fresh = await self._fresh(url, received)
            await self._take(url, fresh)
            if on_progress is not None:
                on_progress(self.report("running"))
            if len(fresh) < len(received):
                return "came_round"
        return "empty"

    async def give_back(self, url: str) -> None:
        receipts = list(self._held.values())
        try:
            for start in range(0, len(receipts), ENTRIES_MAX):
                await self._queues.extend(url, receipts[start : start + ENTRIES_MAX], 0)
        except DyneinError as error:
            REDRIVE_HELD.log(error, messages=len(receipts), within_s=VISIBILITY_TIMEOUT_S)

    async def _fresh(self, url: str, received: Sequence[Received]) -> list[Received]:
        """Those seen for the first time. Of the others only the new receipt is of any use."""
        fresh, redriven = [], []
        for message in received:
            if message.message_id in self._redriven_undeleted:
                redriven.append(message)
            elif message.message_id in self._held:
                self._held[message.message_id] = message.receipt
            else:
                fresh.append(message)
        if redriven:
            await self._delete(url, redriven)
        return fresh

    async def _take(self, url: str, received: list[Received]) -> None:
        letters = []
        for message in received:
            # Held from the start: whatever goes wrong below, it is given back.
            self._held[message.message_id] = message.receipt
            letter = read_dead_letter(message)
            try:
                queue, outgoing = await self._outgoing(letter)
            except (DyneinError, ValueError) as error:
                if self._is_selected(letter, None):
                    self._failed[_reason(error)] += 1
                else:
                    self._skipped += 1
                continue
            if not self._is_selected(letter, queue):
                self._skipped += 1
            elif letter.due_at_ms is not None and letter.due_at_ms > self._clock.now_ms():
                self._failed[NOT_DUE] += 1
            else:
                letters.append(_Letter(message, queue, outgoing))
        for batch in self._batches(letters):
            await self._send(url, batch)

    async def _outgoing(self, letter: DeadLetter) -> tuple[str, OutgoingMessage]:
        if letter.kind != KIND_JOB:
            unpack(letter.body)  # what the ingester could not read either would only come back
            return self._inbound_queue, OutgoingMessage(letter.body, {})
        if letter.token is None or letter.due_at_ms is None:
            raise ValueError("the letter has lost its token or due time")
        job = decode_job(letter.body)
        return job.queue, outgoing_message(job, letter.token, letter.due_at_ms, fifo=job.queue.endswith(".fifo"))

    def _is_selected(self, letter: DeadLetter, queue: str | None) -> bool:
        wanted = self._selection
        if wanted.queue is not None and (
            letter.kind != KIND_JOB or queue is None or wanted.queue not in {queue, name_of(queue)}
        ):
            return False
        return wanted.reason is None or wanted.reason in letter.reason

    def _batches(self, letters: list[_Letter]) -> Iterator[list[_Letter]]:
        """By destination, each within the payload limit of a call."""
        for _, group in itertools.groupby(
            sorted(letters, key=lambda letter: letter.queue), lambda letter: letter.queue
        ):
            batch: list[_Letter] = []
            batch_bytes = 0
            for letter in group:
                size = message_bytes(letter.message.body, letter.message.attributes)
                if batch and batch_bytes + size > self._message_bytes_max:
                    yield batch
                    batch, batch_bytes = [], 0
                batch.append(letter)
                batch_bytes += size
            yield batch

    async def _send(self, url: str, batch: list[_Letter]) -> None:
        try:
            destination = await self._destinations.resolve(batch[0].queue)
            failures = await self._queues.send(destination.url, [letter.message for letter in batch])
        except DyneinError as error:
            if isinstance(error, Rejected):
                self._destinations.forget(batch[0].queue)
            self._failed[_reason(error)] += len(batch)
            return
        acknowledged = []
        for letter, failure in zip(batch, failures, strict=True):
            if failure is None:
                acknowledged.append(letter.received)
                _log_redriven(letter)
            else:
                self._failed[f"{failure.code}: {failure.message}"] += 1
        self._redriven += len(acknowledged)
        if acknowledged:
            await self._delete(url, acknowledged)

    async def _delete(self, url: str, letters: list[Received]) -> None:
        """What cannot be deleted stays invisible as long as it can: redriving it again would send its job twice."""
        for letter in letters:
            self._held.pop(letter.message_id, None)
            self._redriven_undeleted.add(letter.message_id)
        try:
            failures = await self._queues.delete(url, [letter.receipt for letter in letters])
        except DyneinError as error:
            REDRIVE_UNTIDY.log(error, messages=len(letters))
            return
        for letter, failure in zip(letters, failures, strict=True):
            if failure is None:
                self._redriven_undeleted.discard(letter.message_id)
            else:
                REDRIVE_UNTIDY.log(messages=1, error=failure.message)


def _log_redriven(letter: _Letter) -> None:
    attributes = letter.message.attributes
    if TOKEN_ATTRIBUTE in attributes:  # an inbound message has many
        JOB_REDRIVEN.log(token=attributes[TOKEN_ATTRIBUTE].value, queue=letter.queue)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if isinstance(error, DyneinError) else f"unreadable: {error}"
