"""Queues that delay every message: ``DelaySeconds`` of a queue."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from dynein.api.schemas import MoveRequest, PrepareRequest
from dynein.core.job import Policy, decode_job
from dynein.errors import InvalidField
from tests.unit.api.setting import Api

DELAY_S = 10


def api_with_delays() -> Api:
    api = Api()
    api.queues.create("slow", delay_s=DELAY_S)
    api.queues.create("slow.fifo", delay_s=DELAY_S)
    return api


async def test_an_immediate_job_is_visible_at_once_whatever_the_delay_of_its_queue() -> None:
    api = api_with_delays()
    assert (await api.accept(queue="slow", body="now")).warnings is UNSET
    assert api.queues.messages("slow") == ["now"]


async def test_sqs_delays_a_job_until_it_is_due_and_not_by_the_delay_of_its_queue() -> None:
    api = api_with_delays()
    await api.accept(queue="slow", body="soon", delay=3)
    await api.clock.advance(2.9)
    assert api.queues.messages("slow") == []
    await api.clock.advance(0.1)
    assert api.queues.messages("slow") == ["soon"]


async def test_a_job_for_a_fifo_queue_with_a_delay_is_accepted_with_a_warning() -> None:
    api = api_with_delays()
    for fields in ({}, {"delay": "1h"}):
        accepted = await api.accept(queue="slow.fifo", message_group_id="g", **fields)
        assert accepted.warnings is not UNSET
        (warning,) = accepted.warnings
        assert warning.code == "queue-delays-messages"
        assert "10 s after it is due" in warning.detail
        assert "allow_for_queue_delay" in warning.fix
    labels = {"warning": "queue-delays-messages", "queue": "slow.fifo"}
    assert api.counted("dynein_job_warnings_total", **labels) == 2
    async with api.http() as http:
        body = {"queue": "slow.fifo", "body": "x", "message_group_id": "g"}
        single = (await http.post("/v1/jobs", json=body)).json()
        assert [warning["code"] for warning in single["warnings"]] == ["queue-delays-messages"]
        batch = (await http.post("/v1/jobs/batch", json={"jobs": [body, {"queue": "demo", "body": "x"}]})).json()
        assert [len(result.get("warnings", [])) for result in batch["results"]] == [1, 0]


async def test_a_job_may_be_sent_as_much_earlier_as_its_queue_delays_it() -> None:
    api = api_with_delays()
    now_ms = api.clock.now_ms()
    accepted = await api.accept(
        queue="slow.fifo", message_group_id="g", delay=60, allow_for_queue_delay=True, body="on time"
    )
    assert (accepted.policy, accepted.due_at_ms) == (Policy.SCHEDULED, now_ms + 60_000)
    assert accepted.warnings is UNSET
    (arrival,) = api.arrivals()
    assert arrival.key.due_at_ms == now_ms + 50_000
    assert decode_job(arrival.trigger.record).lead_ms == 10_000
    await api.ingest()
    status = await api.submissions.get(accepted.token)
    assert status.due_at_ms == accepted.due_at_ms


async def test_a_job_that_is_due_before_its_queue_can_show_it_is_sent_at_once_with_a_warning() -> None:
    api = api_with_delays()
    accepted = await api.accept(queue="slow.fifo", message_group_id="g", delay=4, allow_for_queue_delay=True)
    assert accepted.policy is Policy.IMMEDIATE
    assert accepted.warnings is not UNSET
    (warning,) = accepted.warnings
    assert "too late" in warning.detail
    (sent,) = api.queues.everything("slow.fifo")
    assert sent.attributes["dynein-due-at"].value == str(accepted.due_at_ms)


async def test_a_job_that_was_moved_is_still_sent_earlier() -> None:
    api = api_with_delays()
    accepted = await api.accept(queue="slow.fifo", message_group_id="g", delay="1h", allow_for_queue_delay=True)
    await api.ingest()
    due_ms = api.clock.now_ms() + 7_200_000
    moved = await api.submissions.move(accepted.token, MoveRequest(run_at=due_ms))
    assert moved.due_at_ms == due_ms
    assert api.ref(moved.token).key.due_at_ms == due_ms - 10_000
    assert (await api.submissions.get(moved.token)).due_at_ms == due_ms


async def test_on_a_standard_queue_no_job_has_to_be_sent_earlier() -> None:
    api = api_with_delays()
    accepted = await api.accept(queue="slow", delay="1h", allow_for_queue_delay=True)
    assert accepted.warnings is UNSET
    (arrival,) = api.arrivals()
    assert arrival.key.due_at_ms == accepted.due_at_ms


async def test_a_prepared_token_has_fixed_when_its_job_is_sent() -> None:
    api = api_with_delays()
    token = (await api.submissions.prepare(PrepareRequest(delay="1h"))).token
    with pytest.raises(InvalidField, match="allow_for_queue_delay: came too late"):
        await api.accept(queue="slow.fifo", message_group_id="g", token=token, allow_for_queue_delay=True)
