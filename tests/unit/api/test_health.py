from __future__ import annotations

import asyncio

import pytest

from dynein.api.health import READINESS_TTL_S, Health, Lifecycle, Phase, Readiness
from dynein.errors import AccessDenied, NotBootstrapped, Throttled, Unavailable
from tests.unit.api.setting import Api


async def test_a_process_that_reaches_everything_is_ready() -> None:
    api = Api()
    async with api.http() as http:
        assert (await http.get("/healthz")).json() == {"status": "alive"}
        assert (await http.get("/readyz")).json() == {"status": "ready"}


async def test_what_cannot_be_reached_at_first_is_listed() -> None:
    api = Api()
    api.queues.faults.fail_next("depth", Unavailable("no route"))
    async with api.http() as http:
        response = await http.get("/readyz")
        alive = await http.get("/healthz")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json()["code"] == "not-ready"
    assert response.json()["detail"] == "SQS: no route"
    assert alive.status_code == 200, "a restart would not help"


async def test_an_outage_does_not_take_a_process_away_that_has_been_ready() -> None:
    api = Api()
    async with api.http() as http:
        assert (await http.get("/readyz")).status_code == 200
        for faults in (api.queues.faults, api.table.faults):
            faults.go_down(Unavailable("no route"))
        await api.clock.advance(READINESS_TTL_S)
        response = await http.get("/readyz")
        refused = await http.post("/v1/jobs", json={"queue": "a", "body": "x"})
    assert response.status_code == 200
    assert response.json() == {"status": "ready", "unreachable": ["SQS: no route", "DynamoDB: no route"]}
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1"), "callers learn when to try again"


@pytest.mark.parametrize("error", [AccessDenied("sqs:GetQueueAttributes"), NotBootstrapped("the queue is gone")])
async def test_what_an_operator_has_to_put_right_makes_it_not_ready_at_any_time(error: Exception) -> None:
    api = Api()
    assert (await api.readiness()).not_ready == []
    api.queues.faults.fail_next("depth", error)
    await api.clock.advance(READINESS_TTL_S)
    assert (await api.readiness()).not_ready == [f"SQS: {error}"]


@pytest.mark.parametrize(
    ("roles", "ready"),
    [(["api"], True), (["ingester"], False), (["dispatcher"], False), (["api", "dispatcher"], False)],
)
async def test_each_role_is_asked_for_what_it_cannot_do_without(roles: list[str], *, ready: bool) -> None:
    api = Api()
    readiness = Readiness(roles, api.queues, api.table, api.inbound_url, api.clock, api.lifecycle)
    api.table.faults.fail_next("layout", AccessDenied("dynamodb:GetItem"))
    reasons = ["DynamoDB: dynamodb:GetItem"]
    assert await readiness() == (Health([], reasons) if ready else Health(reasons, []))


async def test_a_result_is_kept_for_a_moment() -> None:
    api = Api()
    api.queues.faults.fail_next("depth", Throttled("slow down"))
    assert (await api.readiness()).not_ready == ["SQS: slow down"]
    await api.clock.advance(READINESS_TTL_S - 0.1)
    assert (await api.readiness()).not_ready == ["SQS: slow down"]
    await api.clock.advance(0.1)
    assert (await api.readiness()).not_ready == []
    assert [c.verb for c in api.queues.faults.calls] == ["depth"] * 2


async def test_concurrent_probes_share_one_look() -> None:
    api = Api()
    gate = api.queues.faults.hold_before_next("depth")
    probes = [asyncio.ensure_future(api.readiness()) for _ in range(10)]
    await gate.reached.wait()
    await api.clock.settle()
    gate.open()
    assert await asyncio.gather(*probes) == [Health([], [])] * 10
    assert len(api.queues.faults.calls) == 1


async def test_a_lingering_or_draining_process_is_not_ready_without_asking_anyone() -> None:
    api = Api()
    api.lifecycle.linger()
    assert (await api.readiness()).not_ready == ["shutting down"]
    api.lifecycle.drain()
    assert (await api.readiness()).not_ready == ["shutting down"]
    assert api.queues.faults.calls == []


def test_a_lifecycle_only_goes_forward() -> None:
    lifecycle = Lifecycle()
    seen = [(lifecycle.ready, lifecycle.draining)]
    for step in (lifecycle.linger, lifecycle.drain):
        step()
        seen.append((lifecycle.ready, lifecycle.draining))
    assert seen == [(True, False), (False, False), (False, True)]
    for step in (lifecycle.linger, lifecycle.drain):
        with pytest.raises(AssertionError):
            step()
    assert lifecycle.phase is Phase.DRAINING


def test_a_process_may_drain_without_lingering() -> None:
    lifecycle = Lifecycle()
    lifecycle.drain()
    assert lifecycle.draining


async def test_metrics_are_in_prometheus_text() -> None:
    api = Api()
    await api.accept()
    async with api.http() as http:
        response = await http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert 'dynein_jobs_accepted_total{policy="IMMEDIATE"} 1.0' in response.text.splitlines()
