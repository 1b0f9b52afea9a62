"""Bugs in the conservation ledger: what is counted, and how counts reach the table."""

from __future__ import annotations

from typing import Any

from dynein.api.stored_jobs import StoredJobs
from dynein.core.ledger import Closing, Counts, Flow, Tally
from dynein.delivery.delivery_record import DeliveryRecord
from dynein.errors import Unavailable
from dynein.ledger.poster import LedgerPoster
from tests.simulation.mutation import Mutation, answer


def _each_try(original: Any) -> Any:
    def tried(self: DeliveryRecord, due_jobs: Any, failures: Any, *times_ms: int) -> None:  # noqa: ARG001
        original(self, due_jobs, [None] * len(due_jobs), *times_ms)

    return tried


def _without(flow: Flow) -> Any:
    def make(original: Any) -> Any:
        def add(self: Tally, counted: Flow, due_at_ms: int, jobs: int = 1) -> None:
            if counted is not flow:
                original(self, counted, due_at_ms, jobs)

        return add

    return make


def _never_less(original: Any) -> Any:
    def add(self: Tally, flow: Flow, due_at_ms: int, jobs: int = 1) -> None:
        if jobs > 0:
            original(self, flow, due_at_ms, jobs)

    return add


def _only_what_is_certain(original: Any) -> Any:
    async def cancel(self: StoredJobs, ref: Any) -> None:
        try:
            await original(self, ref)
        except Unavailable:
            self._tally.add(Flow.CANCELLED, ref.key.due_at_ms, -1)
            raise

    return cancel


def _forget_the_rest(original: Any) -> Any:
    def take(self: Tally, now_ms: int, windows_max: int) -> dict[int, Counts]:
        taken: dict[int, Counts] = original(self, now_ms, windows_max)
        self._windows.clear()
        return taken

    return take


def _new_id_each_try(original: Any) -> Any:
    async def post(self: LedgerPoster) -> None:
        if self._posting is not None:
            self._posting = self._posting._replace(posting_id=self._new_id())
        await original(self)

    return post


def _one_try(original: Any) -> Any:
    async def post(self: LedgerPoster) -> None:
        try:
            await original(self)
        finally:
            self._posting = None

    return post


def _no_grace(original: Any) -> Any:
    def closed(self: Closing, now_ms: int, look_back_ms: int) -> Any:
        return original(self._replace(grace_ms=0), now_ms, look_back_ms)

    return closed


BUGS = (
    Mutation("count a delivery at each try", DeliveryRecord, "tried", _each_try),
    Mutation("do not count a cancel", Tally, "add", _without(Flow.CANCELLED)),
    Mutation("count a move where the job goes, and not where it leaves", Tally, "add", _without(Flow.MOVED_OUT)),
    Mutation("do not count a dead letter", Tally, "add", _without(Flow.DEAD_LETTERED)),
    Mutation("count a repeated create and never take it back", Tally, "add", _never_less),
    Mutation("do not count a cancel in doubt", StoredJobs, "_cancel", _only_what_is_certain),
    Mutation("forget the counts that a posting has no room for", Tally, "take", _forget_the_rest),
    Mutation("post again under another id", LedgerPoster, "_post", _new_id_each_try),
    Mutation("give up a posting that failed", LedgerPoster, "_post", _one_try),
    Mutation("exit without posting the last counts", LedgerPoster, "close", answer(None)),
    Mutation("read windows of the ledger that have not closed", Closing, "closed", _no_grace),
)
