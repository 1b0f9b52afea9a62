"""Bugs in what callers are answered, and in what a delivered message has beside its body."""

from __future__ import annotations

from typing import Any

from dynein.api import direct_sender, inbound_sender, stored_jobs
from dynein.api.schemas import MovedJob
from dynein.api.stored_jobs import StoredJobs
from dynein.api.submission import Submissions
from dynein.core import due_job
from dynein.core.queues import SendFailure
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import Cancelled, Moved
from dynein.delivery.lane import Lane
from dynein.errors import Conflict, Rejected, Remedy, Throttled
from dynein.runtime.group_commit import Batch
from tests.simulation.mutation import Mutation


def _refused_are_accepted(original: Any) -> Any:
    return lambda failures: [
        None if failure is not None and failure.remedy is Remedy.REJECT else outcome
        for failure, outcome in zip(failures, original(failures), strict=True)
    ]


def _first_speaks_for_all(original: Any) -> Any:
    return lambda failures: [original(failures)[0]] * len(failures)


def _shifted(original: Any) -> Any:
    def results(failures: Any) -> Any:
        found = original(failures)
        return found if len(found) < 2 else [found[-1], *found[:-1]]

    return results


def _refused_were_sent(original: Any) -> Any:
    async def attempt(self: Lane, due_jobs: Any, where: Any) -> list[SendFailure | None]:
        failures = await original(self, due_jobs, where)
        if all(failures):
            return list(failures)
        return [None if failure is not None and failure.remedy is Remedy.REJECT else failure for failure in failures]

    return attempt


def _one_success_for_all(original: Any) -> Any:
    async def attempt(self: Lane, due_jobs: Any, where: Any) -> list[SendFailure | None]:
        failures = await original(self, due_jobs, where)
        return list(failures) if all(failures) else [None] * len(failures)

    return attempt


def _settles_the_wrong_one(original: Any) -> Any:
    def settle(self: Batch[Any, Any], index: int, outcome: Any) -> None:
        original(self, (index + 1) % len(self), outcome)

    return settle


def _moved_is_cancelled(original: Any) -> Any:
    async def cancel(self: StoredJobs, ref: Any) -> None:
        try:
            await original(self, ref)
        except Conflict as conflict:
            if conflict.code != "moved":
                raise

    return cancel


def _cancelled_is_too_late(original: Any) -> Any:
    async def cancel(self: StoredJobs, ref: Any) -> None:
        outcome = await self._triggers.cancel(ref.key)
        if outcome is Cancelled.BEFORE:
            raise stored_jobs._conflict(ref, None)
        await original(self, ref)

    return cancel


def _says_it_moved(original: Any) -> Any:  # noqa: ARG001 - it is replaced
    async def move(self: StoredJobs, token: str, ref: Any, due_ms: int) -> MovedJob:
        key = await self._free_key(ref.key, due_ms)
        new_token = self._signer.sign(ref._replace(key=key))
        if key != ref.key:
            outcome = await self._triggers.move(ref.key, Trigger(key, new_token, b"{}"))
            if outcome is Moved.TOO_LATE:
                raise stored_jobs._conflict(ref, None)
            if outcome is Moved.NOT_STORED:
                raise Conflict("not-stored-yet", "")
        return stored_jobs._moved(new_token, token, key)

    return move


def _moved_unasked(original: Any) -> Any:
    """A move by an old token, to another time than the earlier one, answers with where the job went then."""

    async def move(self: StoredJobs, token: str, ref: Any, due_ms: int) -> MovedJob:
        tombstone = await self._tombstone(ref.key)
        if tombstone is not None and tombstone.moved_to is not None:
            return stored_jobs._moved(tombstone.moved_to, token, self._signer.verify(tombstone.moved_to).key)
        moved: MovedJob = await original(self, token, ref, due_ms)
        return moved

    return move


def _says_the_old_token(original: Any) -> Any:
    return lambda token, previous, key, *rest: original(previous, token, key, *rest)


def _no_tombstone(original: Any) -> Any:
    async def get(self: StoredJobs, token: str) -> Any:
        status = await original(self, token)
        if status.state == "moved":
            return stored_jobs._status(token, self._signer.verify(token), "released")
        return status

    return get


def _mark_read_first(original: Any) -> Any:
    async def get(self: StoredJobs, token: str) -> Any:
        status = await original(self, token)
        if status.state == "dispatching":
            return stored_jobs._status(token, self._signer.verify(token), "scheduled", cancellable=True)
        return status

    return get


def _always_cancellable(original: Any) -> Any:
    def status(token: str, ref: Any, state: str, **kwargs: Any) -> Any:
        return original(token, ref, state, **(kwargs | {"cancellable": True}))

    return status


def _too_late_by_now(original: Any) -> Any:
    async def cancel(self: StoredJobs, ref: Any) -> None:
        if ref.key.due_at_ms <= self._clock.now_ms() + 20_000:
            raise stored_jobs._conflict(ref, None)
        await original(self, ref)

    return cancel


def _follows_the_move(original: Any) -> Any:
    async def cancel(self: StoredJobs, ref: Any) -> None:
        tombstone = await self._tombstone(ref.key)
        if tombstone is not None and tombstone.moved_to is not None:
            ref = self._signer.verify(tombstone.moved_to)
        await original(self, ref)

    return cancel


def _without(field: str, empty: Any) -> Any:
    def make(original: Any) -> Any:
        def message(job: Any, *args: Any, **kwargs: Any) -> Any:
            values = {name: getattr(job, name) for name in job.__struct_fields__}
            return original(type(job)(**(values | {field: empty})), *args, **kwargs)

        return message

    return make


def _own_id_ignored(original: Any) -> Any:
    def message(job: Any, token: str, due_at_ms: int, *, fifo: bool, **kwargs: Any) -> Any:
        made = original(job, token, due_at_ms, fifo=fifo, **kwargs)
        return made._replace(deduplication_id=token) if fifo else made

    return message


def _sometimes_busy(original: Any) -> Any:
    async def accept_many(self: Submissions, requests: Any, *rest: Any) -> Any:
        if len(requests) == 1 and requests[0].token is not None:
            return [Rejected("not now")]
        return await original(self, requests, *rest)

    return accept_many


def _throttled_for_nothing(original: Any) -> Any:
    async def accept_many(self: Submissions, requests: Any, *rest: Any) -> Any:
        if len(requests) > 10:
            return [Throttled("too many") for _ in requests]
        return await original(self, requests, *rest)

    return accept_many


BUGS = (
    Mutation("a refused entry of a batch was accepted", direct_sender, "results_of", _refused_are_accepted),
    Mutation("the first entry of a call speaks for all", direct_sender, "results_of", _first_speaks_for_all),
    Mutation("results of inbound messages are shifted by one", inbound_sender, "results_of", _shifted),
    Mutation("an entry that its destination refused was sent", Lane, "_try", _refused_were_sent),
    Mutation("one entry that was sent speaks for its call", Lane, "_try", _one_success_for_all),
    Mutation("settle the entry after the one that was sent", Batch, "settle", _settles_the_wrong_one),
    Mutation("a cancel by the token before a move is 200", StoredJobs, "_cancel", _moved_is_cancelled),
    Mutation("a cancel by the token before a move follows the move", StoredJobs, "_cancel", _follows_the_move),
    Mutation("a second cancel is too late", StoredJobs, "_cancel", _cancelled_is_too_late),
    Mutation("a cancel 20 s ahead is too late", StoredJobs, "_cancel", _too_late_by_now),
    Mutation("a move of a job that was cancelled or moved is 200", StoredJobs, "_move", _says_it_moved),
    Mutation("a move by an old token is answered with an earlier move", StoredJobs, "_move", _moved_unasked),
    Mutation("a move is answered with the tokens swapped", stored_jobs, "_moved", _says_the_old_token),
    Mutation("a job that was moved is looked up as released", StoredJobs, "get", _no_tombstone),
    Mutation("a job behind the mark is looked up as scheduled", StoredJobs, "get", _mark_read_first),
    Mutation("every job is looked up as cancellable", stored_jobs, "_status", _always_cancellable),
    Mutation("deliver without the user's attributes", due_job, "outgoing_message", _without("attributes", {})),
    Mutation("deliver without the job's name", due_job, "outgoing_message", _without("name", None)),
    Mutation("deliver without its message group", due_job, "outgoing_message", _without("message_group_id", "a")),
    Mutation("deliver without the trace context", due_job, "outgoing_message", _without("traceparent", None)),
    Mutation(
        "deliver bytes without saying that they are base64",
        due_job,
        "outgoing_message",
        _without("body_is_base64", False),
    ),
    Mutation("deliver under the token, not the user's deduplication id", due_job, "outgoing_message", _own_id_ignored),
    Mutation("refuse every prepared job", Submissions, "accept_many", _sometimes_busy),
    Mutation("refuse large batches as too many", Submissions, "accept_many", _throttled_for_nothing),
)
