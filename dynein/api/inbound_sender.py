"""Sends SCHEDULED jobs to the inbound queue, packed into few messages.

A failed call is repeated a few times: the ingester recognises a job it has already stored by its key. *Near* jobs,
which an ingester will hold in memory until they are due, never share a message with others: the message stays undeleted
until its last job is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from dynein.api.send_result import SendResult, results_of
from dynein.core.inbound_message import PACK_OVERHEAD_BYTES, Entry, pack
from dynein.core.queues import ENTRIES_MAX, OutgoingMessage, Queues
from dynein.core.seal import Seal
from dynein.errors import DyneinError, NotSent, Retryable, Unavailable, UnknownQueue
from dynein.runtime.context import Context
from dynein.runtime.group_commit import GroupCommit
from dynein.runtime.retry import Backoff, Retry
from dynein.settings import Settings

PACKED_ENTRIES_MAX = 10_000
"""Jobs in one call to the inbound queue; the limit in bytes is reached first, except with the smallest jobs."""
INBOUND_TRIES = 3
_BACKOFF = Backoff(first_s=0.05, max_s=0.5)


class PackedJob(NamedTuple):
    """A SCHEDULED job on its way to the inbound queue."""

    entry: Entry
    size: int


class InboundSender:
    """Two batchers to the one inbound queue: one for near jobs, one for the others."""

    def __init__(self, queues: Queues, url: str, context: Context, settings: Settings) -> None:
        self._queues = queues
        self._url = url
        self._clock = context.clock
        self._settings = settings
        self._seal = Seal(settings.secrets)
        self._retry = Retry(context.clock, context.rng, _BACKOFF, tries_max=INBOUND_TRIES)
        self._batchers: dict[bool, GroupCommit[PackedJob, SendResult]] = {
            near: GroupCommit(
                self._flush,
                entries_max=PACKED_ENTRIES_MAX,
                bytes_max=settings.message_bytes_max - PACK_OVERHEAD_BYTES * ENTRIES_MAX,
                weigh=lambda job: job.size,
                waiting_max=settings.submit_waiting_max,
                in_flight_max=settings.submit_in_flight_max,
            )
            for near in (True, False)
        }

    def submit(self, entry: Entry, *, near: bool) -> asyncio.Future[SendResult]:
        """Send; the future has the result. Raises `Overloaded` when too many jobs wait already."""
        return self._batchers[near].submit(PackedJob(entry, entry.size))

    async def drained(self) -> None:
        """Return once nothing waits and nothing is in flight."""
        for batcher in self._batchers.values():
            await batcher.drained()

    async def _flush(self, jobs: list[PackedJob]) -> list[SendResult]:
        results: list[SendResult] = [None] * len(jobs)
        calls = plan_calls(
            [job.size for job in jobs],
            pack_bytes_max=self._settings.pack_bytes_max,
            call_bytes_max=self._settings.message_bytes_max,
        )
        for call in calls:
            messages = [OutgoingMessage(pack([jobs[i].entry for i in group], self._seal), {}) for group in call]
            for group, result in zip(call, await self._send_with_retries(messages), strict=True):
                for i in group:
                    results[i] = result
        return results

    async def _send_with_retries(self, messages: list[OutgoingMessage]) -> list[SendResult]:
        """One call, and a few quick repeats with those of its messages that failed temporarily.

        No repeat begins later than ``call_timeout_s`` after the first call.
        """
        results: list[SendResult] = [None] * len(messages)
        pending = list(range(len(messages)))
        repeat_until = self._clock.monotonic() + self._settings.call_timeout_s

        async def attempt() -> None:
            nonlocal pending
            for i, result in zip(pending, await self._send([messages[i] for i in pending]), strict=True):
                # A doubt outlasts a later refusal: an earlier try may have succeeded although its response was lost.
                if result is None or not _in_doubt(results[i]):
                    results[i] = result
            pending = [i for i in pending if isinstance(results[i], Retryable)]
            if pending and self._clock.monotonic() < repeat_until:
                raise _SomeUnsent

        with suppress(_SomeUnsent):  # raised by the last of the tries: ``results`` has the errors
            await self._retry.call("send to the inbound queue", attempt, retry_on=(_SomeUnsent,))
        return results

    async def _send(self, messages: list[OutgoingMessage]) -> Sequence[SendResult]:
        try:
            failures = await self._queues.send(self._url, messages)
        except UnknownQueue:
            # Not the caller's mistake: an operator has to run `dynein bootstrap`.
            missing = NotSent(f"the inbound queue {self._url} is missing; run `dynein bootstrap`", retry_after_s=10)
            return [missing] * len(messages)
        except NotSent as error:
            return [error] * len(messages)
        except Unavailable as error:
            detail = f"{error}. The job may have been accepted all the same; a prepared token makes a repeat safe"
            return [Unavailable(detail, retry_after_s=error.retry_after_s)] * len(messages)
        except DyneinError as error:
            return [error] * len(messages)
        return results_of(failures)


def _in_doubt(result: SendResult) -> bool:
    """May the message have been sent although ``result`` is an error?"""
    return isinstance(result, Unavailable) and not isinstance(result, NotSent)


class _SomeUnsent(Exception):
    """Some messages of a call failed temporarily."""


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
