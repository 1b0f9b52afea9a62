from __future__ import annotations

from dynein.errors import Unavailable
from tests.unit.api.setting import Api


def requests(api: Api, route: str, status: int) -> float:
    counted = api.counted("dynein_api_requests_total", route=route, status=str(status))
    assert api.counted("dynein_api_request_seconds_count", route=route) >= counted
    return counted


async def test_requests_count_by_their_route_and_status() -> None:
    api = Api()
    async with api.http() as http:
        token = (await http.post("/v1/jobs", json={"queue": "demo", "body": "x", "delay": "1h"})).json()["token"]
        await http.post("/v1/jobs", json={"queue": "demo", "body": "x"})
        await http.post("/v1/jobs", json={"queue": "demo", "dealy": 3})
        await http.post("/v1/jobs/batch", json={"jobs": [{"queue": "demo", "body": "x"}]})
        await http.get(f"/v1/jobs/{token}")
        await http.delete(f"/v1/jobs/{token}")
        await http.get("/v1/jobs/not-a-token")
        await http.get("/healthz")
    assert requests(api, "/v1/jobs", 202) == 2
    assert requests(api, "/v1/jobs", 422) == 1
    assert requests(api, "/v1/jobs/batch", 200) == 1
    assert requests(api, "/v1/jobs/{token}", 200) == 2
    assert sum(requests(api, "/v1/jobs/{token}", status) for status in (400, 404, 422)) == 1
    assert requests(api, "/healthz", 200) == 1


async def test_no_path_of_a_caller_becomes_a_label() -> None:
    api = Api()
    async with api.http() as http:
        await http.get("/v1/nothing/here")
        await http.post("/nor/here")
        await http.put("/v1/jobs")
    (counter,) = api.telemetry.requests.collect()
    routes = {sample.labels["route"] for sample in counter.samples}
    assert routes <= {"other", "/v1/jobs"}
    assert requests(api, "other", 404) == 2


async def test_what_fails_inside_counts_too() -> None:
    api = Api()
    api.queues.faults.fail_next("send", Unavailable("no response"))
    async with api.http() as http:
        failed = await http.post("/v1/jobs", json={"queue": "demo", "body": "x"})
    assert requests(api, "/v1/jobs", failed.status_code) == 1
