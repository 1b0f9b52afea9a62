"""Jobs of FIFO queues: which shard they go to, and which place they have among their group."""

from __future__ import annotations

from msgspec import UNSET

from dynein.api.schemas import Accepted, PrepareRequest
from dynein.core.keys import FifoGroup, fifo_shard_of
from tests.unit.api.setting import Api, job

QUEUE = "orders.fifo"
DUE_MS = 1_750_003_600_000


async def test_all_jobs_of_a_group_go_to_one_shard_and_keep_to_it_when_shards_are_added() -> None:
    api = Api()
    api.table.raise_shard_count(4)
    expected = {fifo_shard_of(FifoGroup(QUEUE, "g"), 4)}
    url = api.queues.url(QUEUE)
    for delay in ("1h", "2h", 0):
        for queue in (QUEUE, url):
            token = (await api.accept(queue=queue, message_group_id="g", delay=delay)).token
            assert {api.ref(token).key.shard} == expected
    api.table.raise_shard_count(40)
    await api.submissions.run_once()
    after = [(await api.accept(queue=QUEUE, message_group_id="g", delay="1h")).token for _ in range(20)]
    assert {api.ref(token).key.shard for token in after} == expected
    others = [(await api.accept(queue=QUEUE, message_group_id=f"g{i}", delay="1h")).token for i in range(100)]
    assert {api.ref(token).key.shard for token in others} == {0, 1, 2, 3}


async def test_ids_rise_in_the_order_in_which_jobs_are_accepted_even_if_the_clock_is_set_back() -> None:
    api = Api()
    due_ms = api.clock.now_ms() + 3_600_000
    tokens: list[str] = []
    for _ in range(3):
        requests = [job(queue=QUEUE, message_group_id="g", run_at=due_ms) for _ in range(20)]
        outcomes = await api.submissions.accept_many(requests)
        tokens += [outcome.token for outcome in outcomes if isinstance(outcome, Accepted)]
        api.clock.step_wall_ms(-5_000)
    assert len(tokens) == 60
    keys = [api.ref(token).key for token in tokens]
    assert keys == sorted(keys)
    assert len({key.job_id for key in keys}) == 60


async def test_a_token_prepared_for_a_group_has_its_place_there() -> None:
    api = Api()
    token = (await api.submissions.prepare(PrepareRequest(delay="1h", queue=QUEUE, message_group_id="g"))).token
    assert api.ref(token).key.shard == fifo_shard_of(FifoGroup(QUEUE, "g"), 4)
    accepted = await api.accept(queue=QUEUE, message_group_id="g", token=token)
    assert accepted.warnings is UNSET


async def test_a_token_that_was_not_is_accepted_with_a_warning() -> None:
    api = Api()
    warned = 0
    for i in range(20):
        token = (await api.submissions.prepare(PrepareRequest(delay="1h"))).token
        accepted = await api.accept(queue=QUEUE, message_group_id=f"g{i}", token=token)
        belongs = api.ref(token).key.shard == fifo_shard_of(FifoGroup(QUEUE, f"g{i}"), 4)
        assert (accepted.warnings is UNSET) == belongs
        if accepted.warnings is not UNSET:
            assert [warning.code for warning in accepted.warnings] == ["out-of-order"]
            warned += 1
    assert warned


async def test_ids_of_two_processes_rise_from_one_microsecond_to_the_next() -> None:
    ones, others = Api(), Api()
    keys = []
    for _ in range(30):
        for api in (ones, ones, others):
            keys.append(api.ref((await api.accept(queue=QUEUE, message_group_id="g", run_at=DUE_MS)).token).key)
            for other in (ones, others):
                await other.clock.advance(0.000_1)
    assert keys == sorted(keys)
