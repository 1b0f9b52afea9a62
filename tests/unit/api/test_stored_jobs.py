from __future__ import annotations

import pytest

from dynein.api.schemas import MoveRequest, PrepareRequest
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import TriggerKey
from dynein.core.trigger import Trigger
from dynein.errors import Conflict, InvalidField, InvalidToken, Unavailable
from tests.unit.api.setting import Api

HOUR_MS = 3_600_000


async def scheduled(api: Api, **fields: object) -> str:
    """The token of a job in the trigger store."""
    token = (await api.accept(**{"delay": "1h", **fields})).token
    await api.ingest()
    return token


async def conflict(api: Api, token: str) -> Conflict:
    with pytest.raises(Conflict) as caught:
        await api.submissions.cancel(token)
    return caught.value


async def move_conflict(api: Api, token: str) -> Conflict:
    with pytest.raises(Conflict) as caught:
        await api.submissions.move(token, MoveRequest(delay="3h"))
    return caught.value


# --- where a job is --------------------------------------------------------------------------------------------------


async def test_the_status_of_a_stored_job_has_its_queue_and_name() -> None:
    api = Api()
    token = await scheduled(api, name="n")
    status = await api.submissions.get(token)
    assert (status.state, status.cancellable, status.queue, status.name) == ("scheduled", True, "demo", "n")
    assert status.due_at_ms == api.clock.now_ms() + HOUR_MS


async def test_a_job_on_its_way_into_the_store() -> None:
    api = Api()
    token = (await api.accept(delay="1h")).token
    status = await api.submissions.get(token)
    assert (status.state, status.cancellable) == ("accepted", True)


async def test_a_prepared_token_without_a_job_looks_the_same() -> None:
    api = Api()
    token = (await api.submissions.prepare(PrepareRequest(delay="1h"))).token
    assert (await api.submissions.get(token)).state == "accepted"


async def test_a_job_that_a_dispatcher_has_read_and_then_sent() -> None:
    api = Api()
    token = await scheduled(api)
    await api.raise_marks(token)
    status = await api.submissions.get(token)
    assert (status.state, status.cancellable) == ("dispatching", False)
    await api.table.remove([api.ref(token).key])
    status = await api.submissions.get(token)
    assert (status.state, status.cancellable) == ("released", False)


async def test_jobs_that_sqs_holds() -> None:
    api = Api()
    immediate = (await api.accept()).token
    delayed = (await api.accept(delay=60)).token
    assert (await api.submissions.get(immediate)).state == "handed_to_sqs"
    assert (await api.submissions.get(delayed)).state == "held_by_sqs"
    await api.clock.advance(60)
    assert (await api.submissions.get(delayed)).state == "handed_to_sqs"
    assert [call.verb for call in api.table.faults.calls] == [], "their tokens are enough"


async def test_a_record_that_cannot_be_decoded_does_not_hide_the_job() -> None:
    api = Api()
    token = await scheduled(api)
    key = api.ref(token).key
    await api.table.remove([key])
    await api.table.add([Trigger(key, token, b"spoilt")])
    assert (await api.submissions.get(token)).state == "scheduled"


# --- invalid tokens --------------------------------------------------------------------------------------------------


async def test_forged_and_malformed_tokens_are_refused_everywhere() -> None:
    api = Api()
    real = await scheduled(api)
    forged = TokenSigner([b"another deployment's secret"]).sign(api.ref(real))
    for token in (forged, "nonsense", "", real[:-1], real[:-4] + "AAAA", "é" * 52):
        with pytest.raises(InvalidToken):
            await api.submissions.get(token)
        with pytest.raises(InvalidToken):
            await api.submissions.cancel(token)
        with pytest.raises(InvalidToken):
            await api.submissions.move(token, MoveRequest(delay=5))
    assert len(api.table.triggers()) == 1


async def test_a_token_for_a_shard_that_is_not_there() -> None:
    """Two deployments that share a secret."""
    api = Api()
    key = TriggerKey(api.clock.now_ms() + HOUR_MS, b"x" * 12, 999)
    token = api.signer.sign(JobRef(TokenKind.SCHEDULED, key))
    with pytest.raises(InvalidToken):
        await api.submissions.get(token)


# --- cancelling ------------------------------------------------------------------------------------------------------


async def test_a_cancelled_job_is_gone_and_stays_so() -> None:
    api = Api()
    token = await scheduled(api)
    for _ in range(2):
        assert (await api.submissions.cancel(token)).state == "cancelled"
    assert api.table.triggers() == []
    assert (await api.submissions.get(token)).state == "cancelled"
    assert api.counted("dynein_jobs_cancelled_total", outcome="cancelled") == 2


async def test_a_job_cancelled_in_the_inbound_queue_has_a_tombstone_when_it_comes() -> None:
    api = Api()
    token = (await api.accept(delay="1h")).token
    await api.submissions.cancel(token)
    await api.ingest()
    assert (await api.table.find(api.ref(token).key)).tombstone is not None
    assert (await api.submissions.get(token)).state == "cancelled"


@pytest.mark.parametrize("stored", [True, False])
async def test_a_job_that_a_process_may_have_read_cannot_be_cancelled(stored: bool) -> None:  # noqa: FBT001
    api = Api()
    token = (await api.accept(delay="1h")).token
    if stored:
        await api.ingest()
    await api.raise_marks(token)
    assert (await conflict(api, token)).code == "too-late"
    assert len(api.table.triggers()) == stored
    assert api.counted("dynein_jobs_cancelled_total", outcome="too-late") == 1


@pytest.mark.parametrize("later_ms", [0, 1])
async def test_the_mark_alone_decides_what_can_be_changed_however_soon_it_is_due(later_ms: int) -> None:
    api = Api()
    for change in (api.submissions.cancel, lambda token: api.submissions.move(token, MoveRequest(delay="3h"))):
        token = await scheduled(api)
        key = api.ref(token).key
        await api.table.raise_hold_mark(key.shard, key.due_at_ms - later_ms)
        await api.clock.advance((key.due_at_ms - later_ms - api.clock.now_ms()) / 1000)
        if later_ms:
            await change(token)
        else:
            with pytest.raises(Conflict, match="too soon"):
                await change(token)


async def test_a_cancel_whose_response_was_lost_is_found_even_when_it_would_be_too_late_now() -> None:
    api = Api()
    token = await scheduled(api)
    api.table.faults.lose_answer_next("cancel", Unavailable("no response"))
    with pytest.raises(Unavailable):
        await api.submissions.cancel(token)
    await api.raise_marks(token)
    assert (await api.submissions.cancel(token)).state == "cancelled"


async def test_what_sqs_has_cannot_be_cancelled_or_moved() -> None:
    api = Api()
    for fields in ({}, {"delay": 60}):
        token = (await api.accept(**fields)).token
        assert (await conflict(api, token)).code == "already-handed-to-sqs"
        assert (await move_conflict(api, token)).code == "already-handed-to-sqs"


# --- moving ----------------------------------------------------------------------------------------------------------


async def test_a_moved_job_has_a_new_token_and_the_old_one_leads_there() -> None:
    api = Api()
    old = await scheduled(api, name="n", body="kept")
    moved = await api.submissions.move(old, MoveRequest(delay="2h"))
    assert moved.due_at_ms == api.clock.now_ms() + 2 * HOUR_MS
    assert moved.previous_token == old
    (trigger,) = api.table.triggers()
    assert (trigger.token, trigger.key) == (moved.token, api.ref(moved.token).key)
    assert b"kept" in trigger.record
    assert api.ref(moved.token).key.job_id == api.ref(old).key.job_id
    status = await api.submissions.get(old)
    assert (status.state, status.moved_to) == ("moved", moved.token)
    for error in (await conflict(api, old), await move_conflict(api, old)):
        assert (error.code, error.moved_to) == ("moved", moved.token)
    assert (await api.submissions.get(moved.token)).state == "scheduled"
    assert api.counted("dynein_jobs_moved_total", outcome="moved") == 2


async def test_a_prepared_job_stays_prepared() -> None:
    api = Api()
    prepared = await api.submissions.prepare(PrepareRequest(delay="1h"))
    await api.accept(token=prepared.token)
    await api.ingest()
    moved = await api.submissions.move(prepared.token, MoveRequest(delay="2h"))
    assert api.ref(moved.token).kind is TokenKind.PREPARED


async def test_a_job_moved_into_the_past_is_due_now() -> None:
    api = Api()
    moved = await api.submissions.move(await scheduled(api), MoveRequest(run_at="2001-01-01T00:00:00Z"))
    assert moved.due_at_ms == api.clock.now_ms()


async def test_a_job_moved_to_where_it_is_keeps_its_token() -> None:
    api = Api()
    token = await scheduled(api)
    moved = await api.submissions.move(token, MoveRequest(run_at=api.ref(token).key.due_at_ms))
    assert moved.token == token
    assert len(api.table.triggers()) == 1


async def test_a_job_that_is_gone_cannot_be_moved_to_where_it_was() -> None:
    api = Api()
    token = await scheduled(api)
    await api.submissions.cancel(token)
    with pytest.raises(Conflict) as caught:
        await api.submissions.move(token, MoveRequest(run_at=api.ref(token).key.due_at_ms))
    assert caught.value.code == "cancelled"
    read = await scheduled(api)
    await api.raise_marks(read)
    with pytest.raises(Conflict) as caught:
        await api.submissions.move(read, MoveRequest(run_at=api.ref(read).key.due_at_ms))
    assert caught.value.code == "too-late"


async def test_a_job_never_returns_to_a_key_it_has_left() -> None:
    api = Api()
    first = await scheduled(api)
    due_ms = api.ref(first).key.due_at_ms
    second = await api.submissions.move(first, MoveRequest(run_at=due_ms + 5_000))
    back = await api.submissions.move(second.token, MoveRequest(run_at=due_ms))
    assert back.due_at_ms == due_ms + 1, "a millisecond later: never early, and free"
    found = await api.table.find(api.ref(back.token).key)
    assert found.trigger is not None
    assert found.tombstone is None
    again = await api.submissions.move(back.token, MoveRequest(run_at=due_ms))
    assert again.token == back.token


async def test_a_job_cannot_be_moved_to_and_fro_without_end() -> None:
    api = Api()
    token = await scheduled(api)
    due_ms = api.ref(token).key.due_at_ms
    away = due_ms + 1_000
    for _ in range(7):
        away += 1_000
        token = (await api.submissions.move(token, MoveRequest(run_at=away))).token
        token = (await api.submissions.move(token, MoveRequest(run_at=due_ms))).token
    token = (await api.submissions.move(token, MoveRequest(run_at=away + 1_000))).token
    with pytest.raises(InvalidField, match="moved away from too often"):
        await api.submissions.move(token, MoveRequest(run_at=due_ms))


async def test_a_move_whose_response_was_lost_can_be_repeated() -> None:
    api = Api()
    token = await scheduled(api)
    to = MoveRequest(run_at=api.ref(token).key.due_at_ms + HOUR_MS)
    api.table.faults.lose_answer_next("move", Unavailable("no response"))
    with pytest.raises(Unavailable):
        await api.submissions.move(token, to)
    moved = await api.submissions.move(token, to)
    (trigger,) = api.table.triggers()
    assert trigger.token == moved.token
    onward = await api.submissions.move(moved.token, MoveRequest(delay="5h"))
    with pytest.raises(Conflict) as caught:
        await api.submissions.move(token, to)
    assert (caught.value.code, caught.value.moved_to) == ("moved", moved.token), (
        "it was moved again since: it is not where this call would have moved it"
    )
    assert api.table.triggers()[0].token == onward.token


async def test_a_refused_move_has_its_reason() -> None:
    api = Api()
    on_its_way = (await api.accept(delay="1h")).token
    assert (await move_conflict(api, on_its_way)).code == "not-stored-yet"
    await api.ingest()
    await api.submissions.cancel(on_its_way)
    assert (await move_conflict(api, on_its_way)).code == "cancelled"
    read = await scheduled(api)
    await api.raise_marks(read)
    assert (await move_conflict(api, read)).code == "too-late"
    assert api.counted("dynein_jobs_moved_total", outcome="too-late") == 1


@pytest.mark.parametrize(
    ("request_", "field"),
    [(MoveRequest(), "run_at"), (MoveRequest(delay=-1), "delay"), (MoveRequest(delay=1, run_at=10**12), "delay")],
)
async def test_a_move_must_say_when(request_: MoveRequest, field: str) -> None:
    api = Api()
    with pytest.raises(InvalidField) as caught:
        await api.submissions.move(await scheduled(api), request_)
    assert caught.value.field == field
