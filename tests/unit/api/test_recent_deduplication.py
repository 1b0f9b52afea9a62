"""Two jobs with one deduplication id, of which SQS drops one: the submitter of the second is told."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from dynein.api.recent_deduplication import IDS_MAX, WINDOW_MS
from dynein.api.schemas import Accepted, PrepareRequest
from dynein.errors import Throttled
from tests.unit.api.setting import INBOUND, Api, job

QUEUE = "orders.fifo"


def codes(accepted: Accepted) -> list[str]:
    return [] if accepted.warnings is UNSET else [warning.code for warning in accepted.warnings]


def same(**fields: object) -> dict[str, object]:
    return {"queue": QUEUE, "message_group_id": "g", "deduplication_id": "mine", **fields}


@pytest.mark.parametrize("apart_ms", [0, 1, WINDOW_MS - 1, -(WINDOW_MS - 1)])
async def test_the_second_of_two_within_five_minutes_brings_a_warning(apart_ms: int) -> None:
    api = Api()
    due_ms = api.clock.now_ms() + 3_600_000
    assert codes(await api.accept(**same(run_at=due_ms))) == []
    assert codes(await api.accept(**same(run_at=due_ms + apart_ms))) == ["same-deduplication-id"]
    assert api.counted("dynein_job_warnings_total", warning="same-deduplication-id", queue=QUEUE) == 1


async def test_by_name_and_by_url_it_is_the_same_queue_and_within_a_batch_it_counts_too() -> None:
    api = Api()
    requests = [job(**same()), job(**same(queue=api.queues.url(QUEUE)))]
    first, second = await api.submissions.accept_many(requests)
    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert (codes(first), codes(second)) == ([], ["same-deduplication-id"])


async def test_what_sqs_delivers_brings_none() -> None:
    api = Api()
    api.queues.create("others.fifo")
    due_ms = api.clock.now_ms() + 3_600_000
    for fields in (
        {},
        {"deduplication_id": "another"},
        {"queue": "others.fifo"},
        {"run_at": due_ms + WINDOW_MS},
        {"deduplication_id": None},
        {"deduplication_id": None},
    ):
        assert codes(await api.accept(**same(**{"run_at": due_ms, **fields}))) == []


async def test_a_repeat_is_no_second_job() -> None:
    api = Api()
    api.queues.faults.fail_next("send", Throttled("slow down"))
    with pytest.raises(Throttled):
        await api.accept(**same())
    assert codes(await api.accept(**same())) == []
    token = (await api.submissions.prepare(PrepareRequest(delay="2h", queue=QUEUE, message_group_id="g"))).token
    for _ in range(2):
        assert codes(await api.accept(**same(token=token, deduplication_id="other"))) == []
    assert len(api.queues.messages(INBOUND)) == 2


async def test_memory_of_ids_is_bounded() -> None:
    api = Api()
    due_ms = api.clock.now_ms() + 3_600_000
    await api.accept(**same(run_at=due_ms, deduplication_id="first"))
    for i in range(0, IDS_MAX, 100):
        await api.submissions.accept_many(
            [job(**same(run_at=due_ms, deduplication_id=f"i{j}")) for j in range(i, i + 100)]
        )
    assert codes(await api.accept(**same(run_at=due_ms, deduplication_id="first"))) == []
