"""How large a job may be: by its queue, whatever its policy and its characters."""

from __future__ import annotations

from typing import Any

import pytest

from dynein.core.job import decode_job
from dynein.core.queues import MESSAGE_BYTES_MAX
from dynein.errors import InvalidField
from tests.unit.api.setting import Api

POLICIES: dict[str, dict[str, Any]] = {
    "IMMEDIATE": {},
    "SQS_DELAYED": {"delay": 60},
    "SCHEDULED": {"delay": "1h"},
}
each_policy = pytest.mark.parametrize("policy", POLICIES)
CLASSIC_BYTES = 262_144


def api_with(queue_bytes_max: int | None) -> Api:
    """All queues take what SQS takes at most; ``mine`` may take less. The settings are the default ones."""
    api = Api(queues_bytes_max=MESSAGE_BYTES_MAX)
    api.queues.create("mine", message_bytes_max=queue_bytes_max)
    return api


def excess(error: InvalidField) -> int:
    """How many bytes the job is too large by."""
    found, limit = error.problem.split("takes ")[1].split(" bytes, the limit is ")
    return int(found) - int(limit.rstrip("."))


@each_policy
@pytest.mark.parametrize("character", ["x", '"', "\\", "\n", "\t"])
async def test_the_limit_is_the_same_for_every_policy_and_every_character(policy: str, character: str) -> None:
    api = api_with(CLASSIC_BYTES)
    fields = {"queue": "mine", "policy": policy, **POLICIES[policy]}
    with pytest.raises(InvalidField, match="the limit is 262144") as caught:
        await api.accept(**fields, body=character * CLASSIC_BYTES)
    assert excess(caught.value) < 128, "what Dynein adds"
    largest = character * (CLASSIC_BYTES - excess(caught.value))
    await api.accept(**fields, body=largest)
    with pytest.raises(InvalidField, match=r"body: is too large.*the limit is 262144"):
        await api.accept(**fields, body=largest + character)
    if policy == "SCHEDULED":
        (arrival,) = api.arrivals()
        assert decode_job(arrival.trigger.record).body == largest


@each_policy
async def test_attributes_of_quotation_marks_take_no_more_room_either(policy: str) -> None:
    api = api_with(CLASSIC_BYTES)
    fields = {"queue": "mine", "policy": policy, **POLICIES[policy], "body": "x"}
    await api.accept(**fields, attributes={"a": '"' * (CLASSIC_BYTES - 200)})


@each_policy
async def test_a_job_is_refused_if_its_queue_takes_no_message_of_its_size(policy: str) -> None:
    api = api_with(1024)
    with pytest.raises(InvalidField, match="the limit is 1024") as caught:
        await api.accept(queue="mine", policy=policy, **POLICIES[policy], body="x" * 5_000)
    assert caught.value.field == "body"
    await api.accept(queue="mine", policy=policy, **POLICIES[policy], body="x" * 900)


@each_policy
async def test_a_queue_that_takes_all_that_sqs_takes_is_used_to_the_full(policy: str) -> None:
    api = api_with(None)
    largest = MESSAGE_BYTES_MAX - 128 if policy != "SCHEDULED" else 400_000
    await api.accept(queue="mine", policy=policy, **POLICIES[policy], body="x" * largest)


async def test_a_scheduled_job_must_fit_into_an_item() -> None:
    api = api_with(None)
    with pytest.raises(InvalidField, match="as a DynamoDB item takes"):
        await api.accept(queue="mine", delay="1h", body="x" * 409_600)


async def test_a_scheduled_job_must_fit_our_own_queues_too() -> None:
    api = Api(message_bytes_max=16384, pack_bytes_max=2048)
    with pytest.raises(InvalidField, match="as a dead letter takes"):
        await api.accept(delay="1h", body="x" * 16_000)
    with pytest.raises(InvalidField, match="as written to the inbound queue takes"):
        await api.accept(delay="1h", body="x" * 16_270)
    await api.accept(body="x" * 16_270)


async def test_a_queue_whose_attributes_may_not_be_read_has_the_limit_of_the_settings() -> None:
    api = Api(message_bytes_max=8192, pack_bytes_max=2048)
    api.queues.create("closed", readable=False)
    await api.accept(queue="closed", body="x" * 8000)
    with pytest.raises(InvalidField, match="the limit is 8192"):
        await api.accept(queue="closed", body="x" * 8192)


async def test_a_limit_that_was_changed_is_noticed_once_the_look_up_has_expired() -> None:
    api = api_with(None)
    await api.accept(queue="mine", body="x" * 5_000)
    api.queues.change("mine", message_bytes_max=1024)
    await api.clock.advance(api.settings.destination_cache_s)
    with pytest.raises(InvalidField, match="the limit is 1024"):
        await api.accept(queue="mine", body="x" * 5_000)
