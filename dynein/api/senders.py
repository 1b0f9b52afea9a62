"""How accepted jobs leave the process: group commit to SQS, one answer for each job.

Both senders answer with ``None`` once SQS has acknowledged a job, or with the error that its caller gets. They never
raise for a batch as a whole, since jobs of other callers fly in it.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from dynein.api.policy import delay_s
from dynein.api.problems import SendRefused
from dynein.core.inbound_message import PACK_OVERHEAD_BYTES, Entry, pack
from dynein.core.queues import DELAY_MAX_S, ENTRIES_MAX, OutgoingMessage, Queues, SendFailure
from dynein.delivery.destinations import Destinations
from dynein.errors import AccessDenied, DyneinError, Overloaded, Remedy, Retryable, Throttled, Unavailable, UnknownQueue
from dynein.runtime.backoff import pause_s
from dynein.runtime.clock import Clock
from dynein.runtime.group_commit import GroupCommit

LANES_MAX = 1_000
"""Destinations with a batcher of their own; idle ones are forgotten first."""
PACKED_ENTRIES_MAX = 10_000
"""Jobs in one call to the inbound queue; the bytes limit is reached first, but for the smallest jobs."""
INBOUND_TRIES = 3
_RETRY_FIRST_S = 0.05
_RETRY_MAX_S = 0.5

Answer = DyneinError | None


class Direct(NamedTuple):
    """A job that goes straight to its destination queue."""

    message: OutgoingMessage
    message_bytes: int
    delay_until_ms: int | None
    """SQS_DELAYED: SQS holds it until then."""
    queue: str


class DirectSender:
    """IMMEDIATE and SQS_DELAYED jobs, batched by destination. Never retried: a lost answer would become a duplicate."""

    def __init__(
        self,
        queues: Queues,
        directory: Destinations,
        clock: Clock,
        *,
        message_bytes_max: int,
        waiting_max: int,
        in_flight_max: int,
    ) -> None:
        self._queues = queues
        self._directory = directory
        self._clock = clock
        self._message_bytes_max = message_bytes_max
        self._waiting_max = waiting_max
        self._in_flight_max = in_flight_max
        self._lanes: OrderedDict[str, GroupCommit[Direct, Answer]] = OrderedDict()

    def submit(self, url: str, direct: Direct, *, fifo: bool) -> asyncio.Future[Answer]:
        """Send; the future says how it went. Raises `Overloaded` when too many wait for this queue already."""
        lane = self._lanes.get(url)
        if lane is None:
            self._make_room()
            lane = self._lanes[url] = self._open(url, fifo=fifo)
        return lane.submit(direct)

    async def drained(self) -> None:
        """Return once nothing waits and nothing flies."""
        while busy := [lane for lane in self._lanes.values() if not lane.idle]:
            await busy[0].drained()

    def _open(self, url: str, *, fifo: bool) -> GroupCommit[Direct, Answer]:
        async def flush(directs: list[Direct]) -> Sequence[Answer]:
            return await self._flush(url, directs)

        return GroupCommit(
            flush,
            entries_max=ENTRIES_MAX,
            bytes_max=self._message_bytes_max,
            weigh=lambda direct: direct.message_bytes,
            waiting_max=self._waiting_max,
            in_flight_max=1 if fifo else self._in_flight_max,  # one at a time keeps a FIFO queue's order
        )

    def _make_room(self) -> None:
        if len(self._lanes) < LANES_MAX:
            return
        for url, lane in self._lanes.items():
            if lane.idle:
                del self._lanes[url]
                return
        raise Overloaded(f"jobs for {LANES_MAX} queues are on their way already")

    async def _flush(self, url: str, directs: list[Direct]) -> list[Answer]:
        now_ms = self._clock.now_ms()
        answers: list[Answer] = [None] * len(directs)
        places: list[int] = []
        messages: list[OutgoingMessage] = []
        for i, direct in enumerate(directs):
            delay = 0 if direct.delay_until_ms is None else delay_s(direct.delay_until_ms, now_ms)
            if delay > DELAY_MAX_S:
                # The wall clock was set back since the policy was chosen. A shorter delay would be early.
                answers[i] = Unavailable("the clock was set back; the job was not sent")
                continue
            places.append(i)
            messages.append(direct.message._replace(delay_s=delay))
        if not messages:
            return answers
        for i, answer in zip(places, await self._send(url, messages, directs), strict=True):
            answers[i] = answer
        return answers

    async def _send(self, url: str, messages: list[OutgoingMessage], directs: list[Direct]) -> Sequence[Answer]:
        try:
            failures = await self._queues.send(url, messages)
        except (UnknownQueue, AccessDenied) as error:
            for queue in dict.fromkeys(direct.queue for direct in directs):
                self._directory.forget(queue)
            return [UnknownQueue(directs[0].queue, str(error))] * len(messages)
        except Unavailable as error:
            detail = f"{error}. The job may have been sent all the same; sending it again may deliver it twice"
            return [Unavailable(detail, retry_after_s=error.retry_after_s)] * len(messages)
        except DyneinError as error:
            return [error] * len(messages)
        return [None if failure is None else refusal(failure) for failure in failures]


class Packed(NamedTuple):
    """A SCHEDULED job on its way to the inbound queue."""

    entry: Entry
    size: int


class InboundSender:
    """SCHEDULED jobs, packed into few messages.

    Retried a little: the ingester recognises a job it has already stored by its key. ``near`` jobs, which an ingester
    will hold in hand until they are due, never share a message with others, whose message it would keep undeleted.
    """

    def __init__(
        self,
        queues: Queues,
        clock: Clock,
        rng: random.Random,
        *,
        url: str,
        pack_bytes_max: int,
        message_bytes_max: int,
        waiting_max: int,
        in_flight_max: int,
        retry_within_s: float,
    ) -> None:
        self._queues = queues
        self._clock = clock
        self._rng = rng
        self._url = url
        self._pack_bytes_max = pack_bytes_max
        self._message_bytes_max = message_bytes_max
        self._retry_within_s = retry_within_s
        self._lanes = {
            near: GroupCommit(
                self._flush,
                entries_max=PACKED_ENTRIES_MAX,
                bytes_max=message_bytes_max - PACK_OVERHEAD_BYTES * ENTRIES_MAX,
                weigh=lambda packed: packed.size,
                waiting_max=waiting_max,
                in_flight_max=in_flight_max,
            )
            for near in (True, False)
        }

    def submit(self, entry: Entry, *, near: bool) -> asyncio.Future[Answer]:
        """Send; the future says how it went. Raises `Overloaded` when too many wait already."""
        return self._lanes[near].submit(Packed(entry, entry.size))

    async def drained(self) -> None:
        """Return once nothing waits and nothing flies."""
        for lane in self._lanes.values():
            await lane.drained()

    async def _flush(self, packed: list[Packed]) -> list[Answer]:
        answers: list[Answer] = [None] * len(packed)
        calls = plan_calls(
            [p.size for p in packed], pack_bytes_max=self._pack_bytes_max, call_bytes_max=self._message_bytes_max
        )
        for call in calls:
            for group, answer in zip(call, await self._send_groups(packed, call), strict=True):
                for i in group:
                    answers[i] = answer
        return answers

    async def _send_groups(self, packed: list[Packed], groups: Sequence[Sequence[int]]) -> list[Answer]:
        """One call, with a few quick repeats of what failed for the moment. One answer for each message."""
        messages = [OutgoingMessage(pack([packed[i].entry for i in group]), {}) for group in groups]
        answers: list[Answer] = [None] * len(messages)
        pending = list(range(len(messages)))
        started = self._clock.monotonic()
        for attempt in range(1, INBOUND_TRIES + 1):
            for i, answer in zip(pending, await self._send([messages[i] for i in pending]), strict=True):
                # A doubt outlasts a later refusal: an earlier try may have been taken although nobody heard it.
                if answer is None or not isinstance(answers[i], Unavailable):
                    answers[i] = answer
            pending = [i for i in pending if isinstance(answers[i], Retryable)]
            if not pending or attempt == INBOUND_TRIES or self._clock.monotonic() - started >= self._retry_within_s:
                break
            pause = pause_s(attempt, first_s=_RETRY_FIRST_S, max_s=_RETRY_MAX_S, rng=self._rng)
            await self._clock.sleep(pause)
        return answers

    async def _send(self, messages: list[OutgoingMessage]) -> Sequence[Answer]:
        try:
            failures = await self._queues.send(self._url, messages)
        except UnknownQueue:
            # Not the caller's mistake: an operator has to run `dynein bootstrap`.
            missing = Unavailable(f"the inbound queue {self._url} is missing; run `dynein bootstrap`", retry_after_s=10)
            return [missing] * len(messages)
        except Unavailable as error:
            detail = f"{error}. The job may have been accepted all the same; a prepared token makes a repeat safe"
            return [Unavailable(detail, retry_after_s=error.retry_after_s)] * len(messages)
        except DyneinError as error:
            return [error] * len(messages)
        return [None if failure is None else refusal(failure) for failure in failures]


def refusal(failure: SendFailure) -> DyneinError:
    """The error for one entry that SQS did not take."""
    detail = f"SQS did not take the job: {failure.code} {failure.message}".rstrip()
    if failure.remedy is Remedy.REJECT:
        return SendRefused(detail)
    return Throttled(detail) if failure.throttled else Unavailable(detail)


def plan_calls(sizes: Sequence[int], *, pack_bytes_max: int, call_bytes_max: int) -> list[list[list[int]]]:
    """Which entry goes into which message of which call: indexes, in order. Pure.

    A message is filled up to ``pack_bytes_max`` (an entry larger than that has one to itself), a call up to
    `ENTRIES_MAX` messages and ``call_bytes_max`` (an entry that needs all of that has a call to itself).
    """
    calls: list[list[list[int]]] = []
    message_size = call_size = 0
    for i, size in enumerate(sizes):
        if calls and message_size + size <= pack_bytes_max and call_size + size <= call_bytes_max:
            calls[-1][-1].append(i)
            message_size += size
            call_size += size
            continue
        message_size = PACK_OVERHEAD_BYTES + size
        if calls and len(calls[-1]) < ENTRIES_MAX and call_size + message_size <= call_bytes_max:
            calls[-1].append([i])
            call_size += message_size
        else:
            calls.append([[i]])
            call_size = message_size
    return calls
