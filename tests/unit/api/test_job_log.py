"""Log lines about jobs: one for each decision, by token, and none at INFO while all is well."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dynein.core.job import Job, encode_job
from dynein.errors import Throttled, UnknownQueue
from tests.unit.api.setting import Api
from tests.unit.delivery import test_delivery
from tests.unit.ingest import world as ingest_world
from tests.unit.lines import lines, names
from tests.unit.scheduler import world as scheduler_world

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
HEADERS = {"x-request-id": "r-1", "traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}


@pytest.fixture(autouse=True)
def _debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "dynein")


async def ask(api: Api, method: str, path: str, content: Any = None) -> dict[str, Any]:
    async with api.http() as http:
        response = await http.request(method, path, json=content, headers=HEADERS)
        assert response.headers["x-request-id"] == "r-1"
        body: dict[str, Any] = response.json()
        return body


# --- the API ---------------------------------------------------------------------------------------------------------


async def test_an_accepted_job(caplog: pytest.LogCaptureFixture) -> None:
    accepted = await ask(Api(), "POST", "/v1/jobs", {"queue": "demo", "body": "secret body", "delay": "1h"})
    assert lines(caplog) == [
        {
            "event": "job.accepted",
            "role": "api",
            "token": accepted["token"],
            "queue": "demo",
            "policy": "SCHEDULED",
            "due_at_ms": accepted["due_at_ms"],
            "request_id": "r-1",
            "trace_id": TRACE_ID,
        },
        {
            "event": "request.answered",
            "role": "api",
            "method": "POST",
            "path": "/v1/jobs",
            "status": 202,
            "request_id": "r-1",
            "trace_id": TRACE_ID,
        },
    ]
    assert "secret body" not in caplog.text


async def test_a_batch_has_a_line_for_each_job(caplog: pytest.LogCaptureFixture) -> None:
    jobs = [
        {"queue": "demo", "body": "a"},
        {"queue": "nowhere", "body": "b"},
        {"queue": "demo"},
        {"queue": "demo", "body": "d"},
    ]
    response = await ask(Api(), "POST", "/v1/jobs/batch", {"jobs": jobs})
    accepted = [result["token"] for result in response["results"] if result["status"] == 202]
    assert [line["token"] for line in lines(caplog, "job.accepted")] == accepted
    assert {(line["code"], line.get("queue")) for line in lines(caplog, "job.refused")} == {
        ("unknown-queue", "nowhere"),
        ("invalid-field", "demo"),
    }
    assert all(line["request_id"] == "r-1" for line in lines(caplog))


async def test_jobs_that_are_turned_away_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    api = Api()
    api.queues.faults.fail_next("send", Throttled("slow down"))
    await ask(api, "POST", "/v1/jobs/batch", {"jobs": [{"queue": "demo", "body": "a"}] * 5})
    (line,) = lines(caplog, "jobs.turned_away")
    assert (line["code"], line["error"], line["jobs"], line["request_id"]) == ("throttled", "slow down", 5, "r-1")
    assert lines(caplog, "job.refused", "job.accepted") == []


async def test_a_cancelled_and_a_moved_job(caplog: pytest.LogCaptureFixture) -> None:
    api = Api()
    token = (await api.accept(delay="1h")).token
    await api.ingest()
    moved = await ask(api, "PATCH", f"/v1/jobs/{token}", {"delay": "2h"})
    await ask(api, "DELETE", f"/v1/jobs/{moved['token']}")
    await ask(api, "DELETE", f"/v1/jobs/{token}")
    sent = (await api.accept()).token
    await ask(api, "PATCH", f"/v1/jobs/{sent}", {"delay": "2h"})
    logged = lines(caplog, "job.moved", "job.cancelled", "job.not_changed")
    assert [(line["event"], line["token"], line.get("code")) for line in logged] == [
        ("job.moved", moved["token"], None),
        ("job.cancelled", moved["token"], None),
        ("job.not_changed", token, "moved"),
        ("job.not_changed", sent, "already-handed-to-sqs"),
    ]
    assert logged[0]["previous_token"] == token
    assert {line["request_id"] for line in logged} == {"r-1"}


# --- the ingester ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def ingest() -> AsyncIterator[ingest_world.World]:
    world = ingest_world.World()
    yield world
    await world.close()


async def test_jobs_are_held_or_stored_or_dropped(ingest: ingest_world.World, caplog: pytest.LogCaptureFixture) -> None:
    near, far, cancelled = ingest.entry(1), ingest.entry(3_600), ingest.entry(2)
    await ingest.table.cancel(ingest_world.trigger_of(cancelled).key)
    create = ingest.entry(3_600, prepared=True, create_id="one")
    again = ingest.entry(3_600, token=create.token, create_id="two")
    await ingest.post(near, far, cancelled, create, again)
    ingest.process().start()
    await ingest.clock.run_until(lambda: ingest.inbound() == 0)
    logged = lines(caplog, "job.held", "job.stored", "job.stopped", "job.duplicate", "job.delivered")
    assert {(line["event"], line["token"]) for line in logged} == {
        ("job.held", near.token),
        ("job.delivered", near.token),
        ("job.stored", far.token),
        ("job.stopped", cancelled.token),
        ("job.stored", create.token),
        ("job.duplicate", create.token),
    }
    assert all(line["role"] == "ingester" for line in logged)


async def test_poison(ingest: ingest_world.World, caplog: pytest.LogCaptureFixture) -> None:
    lost, unreadable = ingest.entry(3_600, shard=9), ingest.entry(1, record=b'{"x":1}')
    await ingest.post_body("not ours")
    await ingest.post(lost, unreadable)
    ingest.process().start()
    await ingest.clock.run_until(lambda: len(ingest.dead_letters()) == 3)
    (poison,) = lines(caplog, "inbound.poison")
    assert "not an inbound message" in poison["error"]
    dead = {line["token"]: line["reason"] for line in lines(caplog, "job.dead_lettered")}
    assert dead[lost.token] == "shard 9 does not exist in the table"
    assert "not a job record" in dead[unreadable.token]


async def test_late_writes(ingest: ingest_world.World, caplog: pytest.LogCaptureFixture) -> None:
    late, retired = ingest.entry(600, shard=0), ingest.entry(600, shard=1)
    due_ms = ingest_world.due_of(retired)
    await ingest.own(0, read_mark_ms=due_ms)
    await ingest.own(1, read_mark_ms=due_ms, retired_before=ingest_world.bucket_of_entry(retired) + 1)
    await ingest.post(late, retired)
    ingest.process().start()
    await ingest.clock.run_until(lambda: ingest.inbound() == 0, within_s=700)
    reported = lines(caplog, "late_write.reported")
    assert {(line["token"], line["shard"], line["jobs"]) for line in reported} == {
        (late.token, 0, 1),
        (retired.token, 1, 1),
    }
    (made_good,) = lines(caplog, "late_write.made_good")
    assert made_good["token"] == retired.token


# --- dispatcher and delivery -----------------------------------------------------------------------------------------


async def test_leases_and_deliveries(caplog: pytest.LogCaptureFixture) -> None:
    world = scheduler_world.World(shard_count=2)
    try:
        trigger = world.trigger(world.now_ms + 3_000)._replace(
            record=encode_job(Job("a", "x", traceparent=HEADERS["traceparent"]))
        )
        await world.store(trigger)
        (process,) = world.start("d1")
        await world.until_owned()
        taken = lines(caplog, "lease.taken")
        assert {(line["shard"], line["member"], line["role"]) for line in taken} == {
            (0, "d1", "dispatcher"),
            (1, "d1", "dispatcher"),
        }
        await world.until_empty()
        (delivered,) = lines(caplog, "job.delivered")
        assert delivered == {
            "event": "job.delivered",
            "role": "dispatcher",
            "token": trigger.token,
            "queue": "a",
            "due_at_ms": trigger.key.due_at_ms,
            "lateness_ms": 0,
            "trace_id": TRACE_ID,
        }
        process.stopping.set()
        await world.clock.run_until(process.task.done)
        assert {line["shard"] for line in lines(caplog, "lease.released")} == {0, 1}
    finally:
        await world.close()


async def test_a_lease_that_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    world = scheduler_world.World(shard_count=1)
    try:
        world.start("d1")
        await world.until_owned()
        assert await world.table.take(world.record(), "d2") is not None
        await world.clock.advance(3.0)
        (lost,) = lines(caplog, "lease.lost")
        assert lost["shard"] == 0
    finally:
        await world.close()


async def test_a_destination_that_fails_and_recovers_and_one_that_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    world = test_delivery.World()
    world.faults.fail_next("send", Throttled("slow down"))
    (future,) = world.submit("a", "x")
    await world.outcome(future)
    (failing,) = lines(caplog, "destination.failing")
    assert (failing["queue"], failing["code"], failing["error"], failing["jobs"]) == ("a", "Throttled", "slow down", 1)
    (recovered,) = lines(caplog, "destination.recovered")
    assert (recovered["queue"], recovered["failures"]) == ("a", 1)
    due_job = world.due_job("gone")
    await world.outcome(world.delivery.submit(due_job))
    (dead,) = lines(caplog, "job.dead_lettered")
    assert (dead["token"], dead["queue"], dead["code"]) == (due_job.trigger.token, "gone", UnknownQueue.__name__)
    assert dead["reason"].startswith("UnknownQueue: queue 'gone'")


# --- at the default level --------------------------------------------------------------------------------------------


async def test_a_healthy_service_logs_nothing_about_single_jobs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dynein")
    api = Api()
    for delay in (0, 60, 3_600):
        await api.accept(delay=delay)
    ingest = ingest_world.World()
    await ingest.post(ingest.entry(1), ingest.entry(3_600))
    ingest.process().start()
    await ingest.clock.run_until(lambda: ingest.inbound() == 0)
    await ingest.close()
    scheduler = scheduler_world.World(shard_count=1)
    await scheduler.add(scheduler.now_ms + 1_000)
    scheduler.start("d1")
    await scheduler.until_empty()
    await scheduler.close()
    assert names(caplog) == ["lease.taken"]
