"""What the API counts for the ledger: each accepted job once, and once more if it leaves it for good."""

from __future__ import annotations

import pytest

from dynein.api.schemas import MoveRequest, PrepareRequest
from dynein.core.ledger import Counts
from dynein.errors import Conflict, DyneinError, NotSent, Throttled, Unavailable
from tests.unit.api.setting import Api, job


async def scheduled(api: Api) -> str:
    """The token of a job in the store, due in five hours; what that counted is forgotten."""
    token = (await api.accept(delay="5h")).token
    await api.ingest()
    api.tallied()
    return token


async def test_a_batch_by_when_and_by_who_holds_the_jobs() -> None:
    api = Api()
    requests = [job(), job(delay=60), job(delay="3h"), job(delay="3h"), job(delay=10, policy="SCHEDULED")]
    await api.submissions.accept_many([*requests, job(queue="unknown")])
    assert api.tallied() == {0: Counts(accepted=3, delivered=2), 3: Counts(accepted=2)}


async def test_a_refused_job_is_not_accepted() -> None:
    api = Api()
    api.queues.faults.fail_entries_next("send", [1], permanent=True)
    outcomes = await api.submissions.accept_many([job(body="1"), job(body="2")])
    assert [isinstance(outcome, DyneinError) for outcome in outcomes] == [False, True]
    assert api.tallied() == {0: Counts(accepted=1, delivered=1)}


async def test_a_prepared_job_counts_at_the_time_of_its_token() -> None:
    api = Api()
    prepared = await api.submissions.prepare(PrepareRequest(delay="2h"))
    assert api.tallied() == {}
    await api.accept(token=prepared.token)
    assert api.tallied() == {2: Counts(accepted=1)}


async def test_a_cancel_counts_once() -> None:
    api = Api()
    token = await scheduled(api)
    for _ in range(3):
        await api.submissions.cancel(token)
    assert api.tallied() == {5: Counts(cancelled=1)}


async def test_a_cancel_that_comes_too_late_counts_nothing() -> None:
    api = Api()
    token = await scheduled(api)
    await api.raise_marks(token)
    with pytest.raises(Conflict):
        await api.submissions.cancel(token)
    assert api.tallied() == {}


async def test_a_cancel_whose_response_was_lost_is_not_missed_when_it_is_repeated() -> None:
    api = Api()
    token = await scheduled(api)
    api.table.faults.lose_answer_next("cancel", Unavailable("no response"))
    with pytest.raises(Unavailable):
        await api.submissions.cancel(token)
    await api.submissions.cancel(token)
    assert api.tallied() == {5: Counts(cancelled=1)}


@pytest.mark.parametrize("error", [Throttled("slow down"), NotSent("connection refused")])
async def test_a_cancel_that_was_surely_not_done_counts_nothing(error: DyneinError) -> None:
    api = Api()
    token = await scheduled(api)
    api.table.faults.fail_next("cancel", error)
    with pytest.raises(type(error)):
        await api.submissions.cancel(token)
    assert api.tallied() == {}


async def test_a_move_leaves_one_window_and_enters_another() -> None:
    api = Api()
    token = await scheduled(api)
    moved = await api.submissions.move(token, MoveRequest(delay="7h"))
    assert api.tallied() == {5: Counts(moved_out=1), 7: Counts(moved_in=1)}
    await api.submissions.cancel(moved.token)
    assert api.tallied() == {7: Counts(cancelled=1)}
    with pytest.raises(Conflict):
        await api.submissions.cancel(token)
    assert api.tallied() == {}


async def test_a_move_in_doubt_never_looks_like_a_lost_job() -> None:
    api = Api()
    token = await scheduled(api)
    to = MoveRequest(run_at=api.ref(token).key.due_at_ms + 2 * 3_600_000)
    api.table.faults.lose_answer_next("move", Unavailable("no response"))
    with pytest.raises(Unavailable):
        await api.submissions.move(token, to)
    await api.submissions.move(token, to)
    assert api.tallied() == {5: Counts(moved_out=1)}, "at its new time it is one too many, not one missing"


async def test_a_job_moved_to_where_it_is_counts_nothing() -> None:
    api = Api()
    token = await scheduled(api)
    await api.submissions.move(token, MoveRequest(run_at=api.ref(token).key.due_at_ms))
    assert api.tallied() == {}
