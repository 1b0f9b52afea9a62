from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dynein.api.decoding import decode_job as decode_request
from dynein.api.problems import SendRefused
from dynein.api.schemas import Accepted, PrepareRequest
from dynein.core.inbound_message import unpack
from dynein.core.job import Policy, decode_job
from dynein.core.job_token import TokenKind
from dynein.core.queues import Received
from dynein.errors import (
    AccessDenied,
    DyneinError,
    InvalidField,
    NotBootstrapped,
    NotSent,
    Overloaded,
    RateLimited,
    Retryable,
    Throttled,
    Unavailable,
    UnknownQueue,
)
from dynein.testing.queues import Sent
from tests.unit.api.setting import INBOUND, SEAL, Api, job

MINUTE_MS = 60_000


# --- what reaches the destination ------------------------------------------------------------------------------------


async def test_an_immediate_job_is_on_its_queue_when_it_is_accepted() -> None:
    api = Api()
    accepted = await api.accept(body="hello", name="greeting", attributes={"trace": "abc"})
    assert accepted.policy is Policy.IMMEDIATE
    assert accepted.due_at_ms == api.clock.now_ms()
    (message,) = api.queues.peek("demo")
    assert message.body == "hello"
    assert message_attributes(message) == {
        "trace": ("String", "abc"),
        "dynein-token": ("String", accepted.token),
        "dynein-due-at": ("Number", str(accepted.due_at_ms)),
        "dynein-name": ("String", "greeting"),
    }


def message_attributes(message: Received) -> dict[str, tuple[str, str]]:
    return {name: (attribute.type, attribute.value) for name, attribute in message.attributes.items()}


async def test_json_is_delivered_exactly_as_it_was_written() -> None:
    api = Api()
    raw = b'{"queue":"demo","json" :  {"b": 1.10,\n "a" : [1e5, "\\u00e9 \xc3\xa9"]} }'
    await api.submissions.accept(decode_request(raw))
    assert api.queues.messages("demo") == ['{"b": 1.10,\n "a" : [1e5, "\\u00e9 é"]}']


async def test_json_null_is_a_body() -> None:
    api = Api()
    await api.accept(json=None)
    assert api.queues.messages("demo") == ["null"]


async def test_a_base64_body_is_delivered_as_such_and_marked() -> None:
    api = Api()
    await api.accept(body_base64="AAEC/w==")
    (message,) = api.queues.peek("demo")
    assert message.body == "AAEC/w=="
    assert message_attributes(message)["dynein-encoding"] == ("String", "base64")


async def test_attributes_keep_their_types_and_digits() -> None:
    api = Api()
    await api.accept(
        attributes={"a": 1, "b": {"type": "Number.float", "value": "1.50"}, "c": {"type": "Binary", "value": "AA=="}}
    )
    (message,) = api.queues.peek("demo")
    found = message_attributes(message)
    assert (found["a"], found["b"], found["c"]) == (("Number", "1"), ("Number.float", "1.50"), ("Binary", "AA=="))


async def test_sqs_holds_a_job_until_its_due_time_and_never_less() -> None:
    api = Api()
    accepted = await api.accept(delay=2.5)
    assert accepted.policy is Policy.SQS_DELAYED
    await api.clock.advance(2.499)
    assert api.queues.messages("demo") == []
    await api.clock.advance(0.501)
    assert api.queues.messages("demo") == ["hello"]


async def test_the_delay_counts_from_when_the_batch_leaves() -> None:
    api = Api(submit_in_flight_max=1)
    gate = api.queues.faults.hold_before_next("send")
    first = asyncio.ensure_future(api.accept(body="first"))
    await gate.reached.wait()
    second = asyncio.ensure_future(api.accept(body="second", delay=10))
    await api.clock.advance(6)
    gate.open()
    await asyncio.gather(first, second)
    await api.clock.advance(3.9)
    assert api.queues.messages("demo") == ["first"]
    await api.clock.advance(0.1)
    assert api.queues.messages("demo") == ["first", "second"]


async def test_a_clock_set_back_makes_a_job_fail_rather_than_early() -> None:
    api = Api(submit_in_flight_max=1)
    gate = api.queues.faults.hold_before_next("send")
    first = asyncio.ensure_future(api.accept(body="first"))
    await gate.reached.wait()
    second = asyncio.ensure_future(api.accept(body="second", delay=900))
    await api.clock.settle()
    api.clock.step_wall_ms(-5_000)
    gate.open()
    await first
    with pytest.raises(Unavailable, match="not sent"):
        await second
    await api.clock.advance(1000)
    assert api.queues.messages("demo") == ["first"]


async def test_a_fifo_job_carries_its_group_and_the_token_for_deduplication() -> None:
    api = Api()
    sent: list[Sent] = []
    api.queues.on_sent.append(sent.append)
    accepted = await api.accept(queue="orders.fifo", message_group_id="g")
    await api.accept(queue="orders.fifo", message_group_id="g", deduplication_id="mine")
    assert [(s.message.message_group_id, s.message.deduplication_id) for s in sent] == [
        ("g", accepted.token),
        ("g", "mine"),
    ]


async def test_a_group_on_a_standard_queue_is_passed_on() -> None:
    api = Api()
    sent: list[Sent] = []
    api.queues.on_sent.append(sent.append)
    for delay in (None, 60):
        await api.accept(message_group_id="tenant-1", delay=delay)
    assert [(each.message.message_group_id, each.message.deduplication_id) for each in sent] == [("tenant-1", None)] * 2


# --- scheduled jobs --------------------------------------------------------------------------------------------------


async def test_a_scheduled_job_is_in_the_inbound_queue_when_it_is_accepted() -> None:
    api = Api()
    accepted = await api.accept(delay="1h", name="n", attributes={"x": "y"})
    assert accepted.policy is Policy.SCHEDULED
    assert api.queues.messages("demo") == []
    (arrival,) = api.arrivals()
    assert arrival.trigger.token == accepted.token
    assert arrival.key.due_at_ms == accepted.due_at_ms == api.clock.now_ms() + 60 * MINUTE_MS
    assert arrival.key == api.ref(accepted.token).key
    assert not arrival.prepared
    stored = decode_job(arrival.trigger.record)
    assert (stored.queue, stored.body, stored.name) == ("demo", "hello", "n")


async def test_concurrent_scheduled_jobs_share_messages() -> None:
    api = Api()
    await asyncio.gather(*(api.accept(body=f"job {i}", delay="1h") for i in range(200)))
    assert len(api.arrivals()) == 200
    assert api.sends(INBOUND) <= 2
    assert len(api.queues.messages(INBOUND)) <= 2


async def test_near_and_far_jobs_do_not_share_a_message() -> None:
    """The ingester holds a near job in memory, and with it the whole message undeleted."""
    api = Api()
    near = {"policy": "SCHEDULED", "delay": 2}
    await asyncio.gather(*(api.accept(**(near if i % 2 else {"delay": "1h"})) for i in range(20)))
    now_ms = api.clock.now_ms()
    messages = [unpack(body, SEAL).arrivals for body in api.queues.messages(INBOUND)]
    kinds = [{arrival.key.due_at_ms - now_ms for arrival in arrivals} for arrivals in messages]
    assert sorted(kinds, key=min) == [{2_000}, {60 * MINUTE_MS}]


async def test_shards_follow_a_raised_shard_count() -> None:
    api = Api()
    api.table.raise_shard_count(64)
    before = {api.ref((await api.accept(delay="1h")).token).key.shard for _ in range(200)}
    assert max(before) < 4
    assert await api.submissions.run_once() > 0
    after = {api.ref((await api.accept(delay="1h")).token).key.shard for _ in range(200)}
    assert max(after) >= 32


async def test_a_table_without_a_layout_stops_the_refresh() -> None:
    api = Api()

    async def no_layout() -> None:
        return None

    api.table.layout = no_layout  # type: ignore[method-assign]
    with pytest.raises(NotBootstrapped):
        await api.submissions.run_once()


# --- prepared tokens -------------------------------------------------------------------------------------------------


async def test_a_prepared_token_can_be_created_again_and_again() -> None:
    api = Api()
    prepared = await api.submissions.prepare(PrepareRequest(delay="5m"))
    assert api.ref(prepared.token).kind is TokenKind.PREPARED
    assert api.queues.messages(INBOUND) == [], "preparing stores nothing"
    accepted = [await api.accept(token=prepared.token) for _ in range(2)]
    assert [(a.token, a.due_at_ms, a.policy) for a in accepted] == [
        (prepared.token, prepared.due_at_ms, Policy.SCHEDULED)
    ] * 2
    arrivals = api.arrivals()
    assert all(arrival.prepared for arrival in arrivals)
    assert arrivals[0].create_id != arrivals[1].create_id, "the ingester distinguishes the creates by it"
    assert arrivals[0].key == arrivals[1].key


async def test_a_prepared_token_may_come_with_its_own_due_time_but_no_other() -> None:
    api = Api()
    prepared = await api.submissions.prepare(PrepareRequest(delay="5m"))
    await api.accept(token=prepared.token, run_at=prepared.due_at)
    with pytest.raises(InvalidField, match="run_at: differs"):
        await api.accept(token=prepared.token, run_at=prepared.due_at_ms + 1)
    with pytest.raises(InvalidField, match="policy: is IMMEDIATE"):
        await api.accept(token=prepared.token, policy="IMMEDIATE")


async def test_a_prepared_token_goes_stale_a_day_after_its_due_time() -> None:
    api = Api()
    prepared = await api.submissions.prepare(PrepareRequest())
    await api.clock.advance(86_400)
    await api.accept(token=prepared.token)
    await api.clock.advance(0.001)
    with pytest.raises(InvalidField, match=r"token: .*more than a day ago"):
        await api.accept(token=prepared.token)


@pytest.mark.parametrize("token", ["", "nonsense", "A" * 52])
async def test_an_invalid_token_is_refused(token: str) -> None:
    api = Api()
    with pytest.raises(InvalidField, match="token: is not valid"):
        await api.accept(token=token)


async def test_the_token_of_a_job_that_exists_is_refused() -> None:
    api = Api()
    accepted = await api.accept(delay="1h")
    with pytest.raises(InvalidField, match="token: belongs to a job that exists"):
        await api.accept(token=accepted.token)


# --- refused ---------------------------------------------------------------------------------------------------------


async def test_an_unknown_queue_is_refused_when_the_job_is_submitted() -> None:
    api = Api()
    with pytest.raises(UnknownQueue, match="nowhere"):
        await api.accept(queue="nowhere", delay="1h")
    assert api.queues.messages(INBOUND) == []
    assert api.counted("dynein_jobs_refused_total", reason="unknown-queue") == 1


async def test_a_queue_is_looked_up_once() -> None:
    api = Api()
    await asyncio.gather(*(api.accept() for _ in range(20)))
    assert [c.verb for c in api.queues.faults.calls].count("resolve") == 1


async def test_a_queue_deleted_since_it_was_looked_up_is_refused_and_looked_up_anew() -> None:
    api = Api()
    await api.accept()
    api.queues.remove("demo")
    with pytest.raises(UnknownQueue):
        await api.accept()
    api.queues.create("demo")
    await api.accept()
    assert len(api.queues.messages("demo")) == 1


async def test_a_queue_we_may_not_use_is_the_callers_to_correct() -> None:
    api = Api()
    api.queues.faults.fail_next("resolve", AccessDenied("sqs:GetQueueUrl"))
    with pytest.raises(UnknownQueue, match="sqs:GetQueueUrl"):
        await api.accept()
    api.queues.faults.fail_next("send", AccessDenied("sqs:SendMessage"))
    with pytest.raises(UnknownQueue, match="sqs:SendMessage"):
        await api.accept()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"body": "a", "json": 1}, "json"),
        ({"body": ""}, "body"),
        ({"body": "bad \x00"}, "body"),
        ({"body": "bad \ufffe"}, "body"),
        ({"json": "bad \ufffe"}, "json"),
        ({"body_base64": "a"}, "body_base64"),
        ({"body_base64": ""}, "body_base64"),
        ({"body_base64": "AA==\n"}, "body_base64"),
        ({"name": ""}, "name"),
        ({"name": "x" * 257}, "name"),
        ({"attributes": {"dynein-x": "y"}}, "attributes.dynein-x"),
        ({"attributes": {"a": True}}, "attributes.a"),
        ({"attributes": {"a": {"type": "String"}}}, "attributes.a.value"),
        ({"attributes": {"a": {"type": "String", "value": "v", "valeu": "v"}}}, "attributes.a.valeu"),
        ({"attributes": {"a": {"type": "Strnig", "value": "v"}}}, "attributes.a.type"),
        ({"attributes": {f"a{i}": "v" for i in range(9)}}, "attributes"),
        ({"queue": ""}, "queue"),
        ({"queue": "q" * 513}, "queue"),
        ({"deduplication_id": "d"}, "deduplication_id"),
        ({"message_group_id": "has space"}, "message_group_id"),
        ({"queue": "orders.fifo"}, "message_group_id"),
        ({"queue": "orders.fifo", "message_group_id": "g", "deduplication_id": "d" * 129}, "deduplication_id"),
        ({"delay": "1y"}, "delay"),
        ({"delay": 5, "run_at": 1_896_080_400_000}, "delay"),
        ({"policy": "IMMEDIATE", "delay": 1}, "policy"),
        ({"delay": "3661d"}, "delay"),
    ],
)
async def test_a_refusal_names_the_field_and_the_fix(fields: dict[str, Any], field: str) -> None:
    api = Api()
    with pytest.raises(InvalidField) as caught:
        await api.accept(**fields)
    assert caught.value.field == field
    assert caught.value.fix.endswith((".", "?"))
    assert [api.queues.everything(name) for name in api.queues.names()] == [[]] * len(api.queues.names())


async def test_a_job_without_a_body_is_refused() -> None:
    api = Api()
    with pytest.raises(InvalidField, match="body: is missing"):
        await api.submissions.accept(decode_request(b'{"queue":"demo","body":null}'))


# --- sizes -----------------------------------------------------------------------------------------------------------


async def test_the_largest_body_goes_through_and_one_byte_more_does_not() -> None:
    """The fakes count as SQS does, so that a size we let through by mistake is refused by them."""
    api = Api(message_bytes_max=8192, pack_bytes_max=2048)
    with pytest.raises(InvalidField, match=r"takes (\d+) bytes, the limit is 8192") as caught:
        await api.accept(body="é" * 4096)
    overhead = int(caught.value.problem.split("takes ")[1].split()[0]) - 8192
    largest = "x" * (8192 - overhead)
    await api.accept(body=largest)
    assert api.queues.messages("demo") == [largest]
    with pytest.raises(InvalidField, match="Make it 1 bytes smaller"):
        await api.accept(body=largest + "x")


async def test_the_largest_scheduled_jobs_fit_the_inbound_queue_together() -> None:
    api = Api(message_bytes_max=16384, pack_bytes_max=2048)
    outcomes = await api.submissions.accept_many([job(delay="1h", body="x" * 11_000) for _ in range(7)])
    assert all(isinstance(outcome, Accepted) for outcome in outcomes), outcomes
    assert len(api.arrivals()) == 7


# --- SQS fails -------------------------------------------------------------------------------------------------------


async def test_only_the_entries_that_sqs_refused_fail() -> None:
    api = Api()
    api.queues.faults.fail_entries_next("send", {1}, permanent=True)
    outcomes = await api.submissions.accept_many([job(body=f"job {i}") for i in range(3)])
    assert [type(outcome) for outcome in outcomes] == [Accepted, SendRefused, Accepted]
    assert api.queues.messages("demo") == ["job 0", "job 2"]


@pytest.mark.parametrize(
    ("code", "expected"), [("RequestThrottled", Throttled), ("InternalError", Unavailable), ("Weird", Unavailable)]
)
async def test_an_entry_that_failed_for_now_may_be_sent_again(code: str, expected: type[DyneinError]) -> None:
    api = Api()
    api.queues.faults.fail_entries_next("send", {0}, code=code, throttled=expected is Throttled)
    with pytest.raises(expected):
        await api.accept()


async def test_a_direct_send_is_never_repeated_and_says_that_it_may_have_arrived() -> None:
    api = Api()
    api.queues.faults.lose_answer_next("send", Unavailable("no response"))
    with pytest.raises(Unavailable, match="may have been sent"):
        await api.accept()
    assert api.queues.messages("demo") == ["hello"]


@pytest.mark.parametrize("fields", [{}, {"delay": 60}, {"delay": "1h"}])
async def test_what_was_not_sent_is_said_to_be_so(fields: dict[str, Any]) -> None:
    api = Api()
    await api.accept(**fields)  # the destination is known
    api.queues.faults.go_down(NotSent("connection refused"), verb="send")
    with pytest.raises(NotSent) as raised:
        await api.clock.result_of(api.accept(**fields), within_s=5)
    assert "may have been" not in str(raised.value)


async def test_a_doubt_outlasts_a_later_call_that_was_not_sent() -> None:
    api = Api()
    api.queues.faults.lose_answer_next("send", Unavailable("no response"))
    api.queues.faults.fail_next("send", NotSent("connection refused"), times=2)
    with pytest.raises(Unavailable, match="accepted all the same") as raised:
        await api.clock.result_of(api.accept(delay="1h"), within_s=5)
    assert not isinstance(raised.value, NotSent)


async def test_a_throttled_send_is_reported_as_such() -> None:
    api = Api()
    api.queues.faults.fail_next("send", Throttled("slow down"))
    with pytest.raises(Throttled):
        await api.accept()


async def test_a_destination_takes_jobs_at_its_rate_however_it_is_written_and_others_do_not_wait_for_it() -> None:
    api = Api(destination_rate_per_s=5.0, destination_burst_s=2.0)
    url = (await api.queues.resolve("demo")).url
    results = await api.submissions.accept_many(
        [job(queue=queue) for _ in range(10) for queue in ("demo", url, "other")]
    )
    accepted = [isinstance(result, Accepted) for result in results]
    assert sum(accepted[0::3]) + sum(accepted[1::3]) == 10
    assert sum(accepted[2::3]) == 10
    refused = next(result for result in results if isinstance(result, RateLimited))
    assert "destination_rate_per_s" in str(refused)
    assert 0 < refused.retry_after_s <= 0.2
    await api.clock.advance(1)
    assert sum(isinstance(r, Accepted) for r in await api.submissions.accept_many([job()] * 20)) == 5


async def test_an_inbound_send_is_repeated_as_the_same_create() -> None:
    api = Api()
    api.queues.faults.lose_answer_next("send", Unavailable("no response"))
    api.queues.faults.fail_next("send", Throttled("slow down"))
    accepted = await api.clock.result_of(api.accept(delay="1h"), within_s=5)
    assert {(arrival.trigger.token, arrival.create_id) for arrival in api.arrivals()} == {
        (accepted.token, api.arrivals()[0].create_id)
    }


async def test_only_the_messages_that_failed_are_repeated() -> None:
    api = Api(pack_bytes_max=1024)
    api.queues.faults.fail_entries_next("send", {1})
    requests = [job(delay="1h", body=f"{i}" * 600) for i in range(4)]
    outcomes = await api.clock.result_of(api.submissions.accept_many(requests))
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert [decode_job(a.trigger.record).body[0] for a in api.arrivals()] == ["0", "2", "3", "1"]


async def test_a_doubt_outlasts_a_later_refusal() -> None:
    """The first try succeeded though its response was lost: "throttled, nothing was accepted" would be wrong."""
    api = Api()
    api.queues.faults.lose_answer_next("send", Unavailable("no response"))
    api.queues.faults.fail_next("send", Throttled("slow down"), times=2)
    with pytest.raises(Unavailable, match="accepted all the same"):
        await api.clock.result_of(api.accept(policy="SCHEDULED", delay=3600), within_s=5)
    assert len(api.arrivals()) == 1


async def test_an_inbound_queue_that_stays_away_is_reported() -> None:
    api = Api()
    api.queues.faults.go_down(Unavailable("no response"), verb="send")
    with pytest.raises(Unavailable, match="prepared token makes a repeat safe"):
        await api.clock.result_of(api.accept(delay="1h"))
    assert api.sends(INBOUND) == 3


async def test_no_repeat_begins_after_the_time_for_it() -> None:
    api = Api(call_timeout_s=2.0)
    api.queues.faults.go_down(Unavailable("no response"), verb="send")
    gate = api.queues.faults.hold_before_next("send")
    api.queues.faults.come_up()
    api.queues.faults.lose_answer_next("send", Unavailable("no response"), times=3)
    accepting = asyncio.ensure_future(api.accept(delay="1h"))
    await gate.reached.wait()
    await api.clock.advance(2)
    gate.open()
    with pytest.raises(Unavailable):
        await accepting
    assert api.sends(INBOUND) == 1


async def test_a_missing_inbound_queue_is_not_the_callers_mistake() -> None:
    api = Api()
    api.queues.remove(INBOUND)
    with pytest.raises(Unavailable, match="dynein bootstrap") as caught:
        await api.clock.result_of(api.accept(delay="1h"))
    assert caught.value.retry_after_s == 10


async def test_a_bug_in_a_send_is_reported_as_unavailable_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    api = Api()
    api.queues.faults.fail_next("send", KeyError("boom"))
    with pytest.raises(Unavailable):
        await api.accept()
    assert "boom" in caplog.text


# --- bounds ----------------------------------------------------------------------------------------------------------


async def test_too_many_waiting_jobs_are_turned_away_and_nothing_is_lost() -> None:
    api = Api(submit_waiting_max=5, submit_in_flight_max=1)
    gate = api.queues.faults.hold_before_next("send")
    first = asyncio.ensure_future(api.accept(body="first"))
    await gate.reached.wait()
    rest = asyncio.ensure_future(api.submissions.accept_many([job(body=f"{i}") for i in range(8)]))
    await api.clock.settle()
    gate.open()
    await first
    outcomes = await rest
    assert [type(outcome) for outcome in outcomes] == [Accepted] * 5 + [Overloaded] * 3
    assert api.queues.messages("demo") == ["first", "0", "1", "2", "3", "4"]


async def test_fifo_jobs_leave_one_call_at_a_time_in_order() -> None:
    api = Api()
    bodies = [f"{i:03}" for i in range(55)]
    await api.submissions.accept_many([job(queue="orders.fifo", message_group_id="g", body=body) for body in bodies])
    assert api.queues.messages("orders.fifo") == bodies
    assert api.sends("orders.fifo") == 6


async def test_group_commit_sends_ten_in_a_call() -> None:
    api = Api()
    await asyncio.gather(*(api.accept(body=f"{i}") for i in range(100)))
    assert api.sends("demo") == 10


async def test_drained_waits_for_what_is_in_flight() -> None:
    api = Api()
    gates = [api.queues.faults.hold_before_next("send") for _ in range(2)]
    accepting = [asyncio.ensure_future(api.accept()), asyncio.ensure_future(api.accept(delay="1h"))]
    await gates[0].reached.wait()
    drained = asyncio.ensure_future(api.submissions.drained())
    for gate in gates:
        await gate.reached.wait()
        await api.clock.settle()
        assert not drained.done()
        gate.open()
    await drained
    await asyncio.gather(*accepting)
    await asyncio.wait_for(api.submissions.drained(), 10)


# --- many at once ----------------------------------------------------------------------------------------------------


async def test_every_job_of_a_batch_has_its_own_outcome() -> None:
    api = Api()
    requests = [
        job(body="a"),
        job(queue="nowhere"),
        job(body="b", delay="1h"),
        job(body=""),
        job(queue="other", delay=5),
        job(queue="nowhere"),
    ]
    outcomes = await api.submissions.accept_many(requests)
    assert [type(outcome) for outcome in outcomes] == [
        Accepted,
        UnknownQueue,
        Accepted,
        InvalidField,
        Accepted,
        UnknownQueue,
    ]
    assert [o.policy for o in outcomes if isinstance(o, Accepted)] == [
        Policy.IMMEDIATE,
        Policy.SCHEDULED,
        Policy.SQS_DELAYED,
    ]
    assert api.counted("dynein_jobs_accepted_total", policy="SCHEDULED") == 1
    assert api.counted("dynein_jobs_refused_total", reason="invalid-field") == 1
    assert api.counted("dynein_jobs_refused_total", reason="unknown-queue") == 2


async def test_a_batch_for_many_queues_looks_them_all_up() -> None:
    api = Api()
    for i in range(40):
        api.queues.create(f"q{i}")
    outcomes = await api.submissions.accept_many([job(queue=f"q{i % 41}") for i in range(82)])
    assert [isinstance(outcome, Accepted) for outcome in outcomes] == ([True] * 40 + [False]) * 2


async def test_a_thousand_jobs_leave_in_few_calls() -> None:
    api = Api()
    outcomes = await api.submissions.accept_many([job(body=f"job {i}", delay="1h") for i in range(1000)])
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert len({o.token for o in outcomes if isinstance(o, Accepted)}) == 1000
    assert len(api.arrivals()) == 1000
    assert api.sends(INBOUND) == 1


async def test_sqs_down_for_look_ups_fails_for_now() -> None:
    api = Api()
    api.queues.faults.go_down(Unavailable("no response"))
    (outcome,) = await api.submissions.accept_many([job()])
    assert isinstance(outcome, Retryable)


async def test_the_response_has_the_due_time() -> None:
    api = Api()
    accepted = await api.accept(run_at="2030-01-31T10:00:00+01:00")
    assert (accepted.due_at, accepted.due_at_ms) == ("2030-01-31T09:00:00.000Z", 1_896_080_400_000)


# --- own queues -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", ["inbound_queue", "dead_letter_queue"])
@pytest.mark.parametrize("spelled", ["{name}", "{url}", "https://sqs.us-east-1.amazonaws.com/000000000000/{name}"])
@pytest.mark.parametrize("delay", [None, 0, 60, "1d"])
async def test_nobody_submits_to_dyneins_own_queues(own: str, spelled: str, delay: float | str | None) -> None:
    api = Api()
    name = getattr(api.settings, own)
    if name != INBOUND:
        api.queues.create(name)
    queue = spelled.format(name=name, url=api.queues.url(name))
    with pytest.raises(InvalidField, match="one of Dynein's own queues") as refused:
        await api.submissions.accept(job(queue=queue, delay=delay))
    assert refused.value.field == "queue"
    assert api.queues.messages(name) == []


async def test_an_own_queue_is_refused_though_it_has_been_looked_up_before() -> None:
    api = Api()
    await api.destinations.resolve(INBOUND)
    with pytest.raises(InvalidField, match="own queues"):
        await api.submissions.accept(job(queue=INBOUND))
