"""Bugs between a due job and its destination queue: sends, lanes, dead letters, FIFO."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

from dynein.admin import redrive
from dynein.api import direct_sender, key_maker
from dynein.api.key_maker import KeyMaker
from dynein.core import due_job
from dynein.core.due_job import Outcome
from dynein.delivery import dead_letter_queue
from dynein.delivery.dead_letter_queue import DeadLetterQueue
from dynein.delivery.due_timer import DueTimer
from dynein.delivery.lane import Lane
from dynein.delivery.lane_pace import LanePace
from dynein.errors import DyneinError, NotSent, Unavailable
from dynein.ingest.near_jobs import NearJobs
from dynein.runtime.group_commit import GroupCommit
from dynein.scheduler.sender import Sender
from dynein.scheduler.shard_buffer import ShardBuffer
from tests.simulation.engines import WiredQueues
from tests.simulation.mutation import GULLIBLE, Mutation, result, returns


def _remove_when_due(original: Any) -> Any:
    def submit(self: Sender, entry: Any) -> None:
        removing = self._remover._store.remove([entry.trigger.key])
        asyncio.ensure_future(_quietly(removing))  # noqa: RUF006 - as careless as the bug
        original(self, entry)

    return submit


async def _quietly(work: Coroutine[Any, Any, None] | Any) -> None:
    with suppress(DyneinError):
        await work


def _early(original: Any) -> Any:
    return lambda self, now_ms: original(self, now_ms + 300)


def _rounded_to_seconds(original: Any) -> Any:
    def put(self: NearJobs, trigger: Any, *rest: Any) -> Any:
        second = trigger.key.due_at_ms // 1000 * 1000
        return original(self, trigger._replace(key=trigger.key._replace(due_at_ms=second)), *rest)

    return put


def _delay_rounded_down(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    return lambda due_ms, now_ms: max(0, (due_ms - now_ms) // 1000)


def _gives_up(original: Any) -> Any:
    async def deliver(self: Lane, due_jobs: Any) -> Any:
        if self._pace.failures >= 3:
            return [Outcome.SENT] * len(due_jobs)
        return await original(self, due_jobs)

    return deliver


def _without_acknowledgement(original: Any) -> Any:
    async def flush(self: DeadLetterQueue, messages: Sequence[Any]) -> list[None]:
        with suppress(DyneinError):
            await original(self, messages)
        return [None] * len(messages)

    return flush


def _certain_in_doubt(original: Any) -> Any:
    async def send(self: Any, *args: Any) -> Any:
        results = await original(self, *args)
        return [NotSent(str(error)) if isinstance(error, Unavailable) else error for error in results]

    return send


def _no_bound(original: Any) -> Any:
    def submit(self: GroupCommit[Any, Any], item: Any) -> Any:
        self._waiting_max = 1_000_000
        return original(self, item)

    return submit


def _many_at_once(original: Any) -> Any:
    def init(self: Lane, *args: Any) -> None:
        original(self, *args)
        self._batcher._in_flight_max = 8
        self._batcher._entries_max = 2

    return init


def _fresh_id_each_try(original: Any) -> Any:
    serial = itertools.count()

    def message(*args: Any, fifo: bool, **kwargs: Any) -> Any:
        made = original(*args, fifo=fifo, **kwargs)
        return made._replace(deduplication_id=f"try-{next(serial)}") if fifo else made

    return message


def _forget(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    return lambda self, entry: self.drop(entry)


def _last_in_first_out(original: Any) -> Any:
    def add(self: DueTimer[Any], due_at_ms: int, item: Any, order: bytes = b"") -> None:  # noqa: ARG001
        original(self, due_at_ms, item, (1_000_000_000 - self._added).to_bytes(4, "big"))

    return add


def _random_id(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    return lambda accepted_us, random: random + accepted_us.to_bytes(7, "big")


def _by_its_own_id(original: Any) -> Any:
    return lambda self, group=None: original(self)  # noqa: ARG005 - that is the bug


def _all_shards(original: Any) -> Any:
    def new_key(self: KeyMaker, group: Any = None) -> Any:
        self._layout = self._layout._replace(fifo_shard_count=self._layout.shard_count)
        return original(self, group)

    return new_key


def _without_body(original: Any) -> Any:
    return lambda body, token, due_at_ms: original("", token, due_at_ms)  # noqa: ARG005 - that is the bug


BUGS = (
    Mutation("ignore `Failed` of SendMessageBatch", WiredQueues, "send", result(lambda all_: [None] * len(all_))),
    Mutation("match the results of a batch to the wrong entries", WiredQueues, "send", result(lambda all_: all_[::-1])),
    Mutation(
        "remove the trigger when it is due, not when its send is acknowledged", Sender, "_submit", _remove_when_due
    ),
    Mutation("send 300 ms early", DueTimer, "is_due", _early),
    Mutation("round the due time of a held job down to seconds", NearJobs, "put", _rounded_to_seconds),
    Mutation("round DelaySeconds down", direct_sender, "delay_s", _delay_rounded_down),
    Mutation("assume a job sent once its lane has failed three times", Lane, "_deliver", _gives_up),
    Mutation("dead-letter without an acknowledgement", DeadLetterQueue, "_flush", _without_acknowledgement),
    Mutation("dead-letter at the first failure", LanePace, "is_over_budget", returns(value=True)),
    Mutation("a redrive does not verify signatures", redrive, "Seal", returns(GULLIBLE)),
    Mutation("sign a dead letter without its body", dead_letter_queue, "_signed", _without_body),
    Mutation("forget an evicted trigger", ShardBuffer, "evict", _forget),
    Mutation("a send without a response called not sent", direct_sender._DirectLane, "_send", _certain_in_doubt),
    Mutation("a batcher without a bound", GroupCommit, "submit", _no_bound),
    Mutation("several calls at once to a FIFO destination", Lane, "__init__", _many_at_once),
    Mutation("jobs that are due at the same time: last in, first out", DueTimer, "add", _last_in_first_out),
    Mutation("ids of jobs do not rise", key_maker, "make_job_id", _random_id),
    Mutation("a job of a message group goes to any shard", KeyMaker, "new_key", _by_its_own_id),
    Mutation("a message group changes its shard when shards are added", KeyMaker, "new_key", _all_shards),
    Mutation("a new deduplication id for each try", due_job, "outgoing_message", _fresh_id_each_try),
)
