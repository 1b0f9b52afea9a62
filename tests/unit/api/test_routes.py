"""The HTTP surface, over the wire format and without a socket."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from dynein.api.app import create_app
from dynein.core.job_token import TokenSigner
from dynein.errors import NotBootstrapped, NotSent, Throttled, Unavailable
from tests.unit.api.setting import INBOUND, Api


async def post(api: Api, path: str, content: Any, **headers: str) -> httpx.Response:
    async with api.http() as http:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return await http.post(path, content=body, headers={"content-type": "application/json", **headers})


async def call(api: Api, method: str, path: str, content: Any = None) -> httpx.Response:
    async with api.http() as http:
        return await http.request(method, path, json=content)


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of a response, checked for its form."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert document["code"] == code
    assert document["type"] == f"/problems/{code}"
    assert document["title"]
    assert document["detail"]
    assert document["instance"]
    return document


# --- submitting ------------------------------------------------------------------------------------------------------


async def test_submit() -> None:
    api = Api()
    response = await post(api, "/v1/jobs", {"queue": "demo", "body": "hello", "run_at": "2030-01-31T09:00:00Z"})
    assert response.status_code == 202
    content = response.json()
    assert content == {
        "token": content["token"],
        "policy": "SCHEDULED",
        "due_at": "2030-01-31T09:00:00.000Z",
        "due_at_ms": 1_896_080_400_000,
    }
    assert response.headers["location"] == f"/v1/jobs/{content['token']}"
    assert [arrival.trigger.token for arrival in api.arrivals()] == [content["token"]]


async def test_there_is_no_response_before_sqs_has_acknowledged() -> None:
    api = Api()
    gate = api.queues.faults.hold_answer_next("send")
    responding = asyncio.ensure_future(post(api, "/v1/jobs", {"queue": "demo", "body": "hello"}))
    await gate.reached.wait()
    await api.clock.settle()
    assert not responding.done()
    gate.open()
    assert (await responding).status_code == 202


async def test_a_misspelt_field_is_refused_with_the_right_spelling() -> None:
    api = Api()
    response = await post(api, "/v1/jobs", {"queue": "demo", "body": "hello", "dealy": "15m"})
    document = problem(response, 422, "invalid-field")
    assert document["field"] == "dealy"
    assert "'delay'" in document["fix"]
    assert api.queues.messages("demo") == []
    assert api.counted("dynein_jobs_refused_total", reason="invalid-field") == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"body":"x"}', "queue"),
        (b'{"queue":1,"body":"x"}', "queue"),
        (b'{"queue":"demo","body":"x","delay":true}', "delay"),
        (b'{"queue":"demo","body":"x","delay":1e999}', "delay"),
        (b'{"queue":"demo","body":"x","policy":"LATER"}', "policy"),
        (b'{"queue":"demo","body":"x","attributes":[]}', "attributes"),
        (b'{"queue":"demo","body":"x","attributes":{"a":{"type":1,"value":"v"}}}', "attributes.a.type"),
        (b'{"queue":"demo","body":"x","attributes":{"a":null}}', "attributes.a"),
        (b"[]", "$"),
        (b"null", "$"),
    ],
)
async def test_wrong_types_are_reported_by_field(body: bytes, field: str) -> None:
    document = problem(await post(Api(), "/v1/jobs", body), 422, "invalid-field")
    assert document["field"] == field
    assert document["fix"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is empty"),
        (b"hello", "what begins at byte 0"),
        (b'{"queue":"demo","body":"x"', "byte 26"),
        (b'{"queue":"demo","body":"x"}}', "} at byte 27"),
        (b'{"queue":"demo","json":[1,]}', "JSON has no comma after the last value (byte 26)"),
        (b'{"queue":"demo","json":NaN}', "byte 23"),
        (b'{"queue":"demo","body":"\xff"}', "UTF-8"),
        (b'{"queue":"demo","body":"\\ud800xxxxxx"}', "\\ud800 at byte 24 is half of a character"),
        (b'{"queue":"demo","json":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)
async def test_malformed_json_is_reported_with_its_position(body: bytes, said: str) -> None:
    assert said in problem(await post(Api(), "/v1/jobs", body), 400, "malformed-json")["detail"]


async def test_an_unknown_queue() -> None:
    document = problem(await post(Api(), "/v1/jobs", {"queue": "nowhere", "body": "x"}), 422, "unknown-queue")
    assert document["field"] == "queue"


async def test_failures_of_aws_ask_for_patience() -> None:
    api = Api()
    api.queues.faults.fail_next("send", Throttled("slow down", retry_after_s=2.5))
    response = await post(api, "/v1/jobs", {"queue": "demo", "body": "x"})
    problem(response, 429, "throttled")
    assert response.headers["retry-after"] == "3"
    api.queues.faults.fail_next("send", NotSent("SQS cannot be reached"))
    response = await post(api, "/v1/jobs", {"queue": "demo", "body": "x"})
    assert "may have been sent" not in problem(response, 503, "not-sent")["detail"]
    assert response.headers["retry-after"] == "1"
    api.queues.faults.fail_next("send", NotBootstrapped("the table is missing"))
    response = await post(api, "/v1/jobs", {"queue": "demo", "body": "x"})
    problem(response, 503, "misconfigured")
    assert response.headers["retry-after"] == "10"
    api.queues.faults.fail_next("send", Unavailable("no response"))
    response = await post(api, "/v1/jobs", {"queue": "demo", "body": "x"})
    assert "may have been sent" in problem(response, 503, "unavailable")["detail"]
    assert response.headers["retry-after"] == "1"


async def test_an_sqs_that_refuses_for_good() -> None:
    api = Api()
    api.queues.faults.fail_entries_next("send", {0}, code="InvalidMessageContents", permanent=True)
    response = await post(api, "/v1/jobs", {"queue": "demo", "body": "x"})
    assert "InvalidMessageContents" in problem(response, 422, "refused-by-sqs")["detail"]


async def test_a_bug_of_ours_is_a_problem_document_too(caplog: pytest.LogCaptureFixture) -> None:
    api = Api()
    token = (await api.accept(delay="1h")).token
    api.table.faults.fail_next("find", KeyError("secret detail"))
    response = await call(api, "GET", f"/v1/jobs/{token}")
    problem(response, 500, "internal")
    assert "secret detail" not in response.text
    assert "secret detail" in caplog.text
    assert response.headers["x-request-id"] in caplog.text


# --- batches ---------------------------------------------------------------------------------------------------------


async def test_a_batch_has_the_outcome_of_each_job_in_order() -> None:
    api = Api()
    jobs: list[Any] = [
        {"queue": "demo", "body": "a"},
        {"queue": "demo", "body": "b", "dealy": 1},
        {"queue": "nowhere", "body": "c"},
        17,
        {"queue": "other", "json": {"d": 1}, "delay": "1h"},
    ]
    response = await post(api, "/v1/jobs/batch", {"jobs": jobs})
    assert response.status_code == 200
    content = response.json()
    assert (content["accepted"], content["refused"]) == (2, 3)
    assert [result["status"] for result in content["results"]] == [202, 422, 422, 422, 202]
    refused = content["results"][1]["problem"]
    assert (refused["field"], refused["instance"]) == ("dealy", "/v1/jobs/batch#/jobs/1")
    assert content["results"][2]["problem"]["code"] == "unknown-queue"
    assert content["results"][3]["problem"]["field"] == "$"
    assert set(content["results"][4]) == {"status", "token", "policy", "due_at", "due_at_ms"}
    assert api.queues.messages("demo") == ["a"]


async def test_a_job_that_fails_for_now_has_503_and_the_others_go_ahead() -> None:
    api = Api()
    api.queues.faults.fail_entries_next("send", {1})
    jobs = [{"queue": "demo", "body": f"{i}"} for i in range(3)]
    response = await post(api, "/v1/jobs/batch", {"jobs": jobs})
    assert [result["status"] for result in response.json()["results"]] == [202, 503, 202]
    assert response.headers["retry-after"] == "1"
    assert api.queues.messages("demo") == ["0", "2"]


@pytest.mark.parametrize(
    "bad", [b'{"queue":"demo","body":"\\ud800"}', b'{"queue":"demo","body":"\xff"}', b'{"queue":"demo","json":"\xff"}']
)
async def test_a_job_that_is_no_text_does_not_fail_the_others(bad: bytes) -> None:
    api = Api()
    body = b'{ "jobs" : [ {"queue":"demo","body":"a"},\n' + bad + b' , {"queue":"demo","body":"b, ]}"}] }\n'
    results = (await post(api, "/v1/jobs/batch", body)).json()["results"]
    assert [result["status"] // 100 for result in results] == [2, 4, 2]
    assert api.queues.messages("demo") == ["a", "b, ]}"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"jobs":[{"queue":"demo","body":"\\ud800"}',
        b'{"jobs":[{"queue":"demo","body":"\\ud800"}]} x',
        b'{"jobs":[{"queue":"demo","body":"\\ud800"},]}',
        b'{"jobs":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
        b"",
    ],
)
async def test_a_batch_that_is_no_json_is_refused_whole(body: bytes) -> None:
    problem(await post(Api(), "/v1/jobs/batch", body), 400, "malformed-json")


async def test_an_empty_batch_is_fine_and_one_too_large_is_not() -> None:
    api = Api(batch_jobs_max=2)
    assert (await post(api, "/v1/jobs/batch", {"jobs": []})).json() == {"accepted": 0, "refused": 0, "results": []}
    jobs = [{"queue": "demo", "body": "x"}] * 3
    assert problem(await post(api, "/v1/jobs/batch", {"jobs": jobs}), 422, "invalid-field")["field"] == "jobs"
    assert api.queues.messages("demo") == []
    assert problem(await post(api, "/v1/jobs/batch", {"jobs": 1}), 422, "invalid-field")["field"] == "jobs"


# --- prepared tokens, and a job's later life -------------------------------------------------------------------------


async def test_prepare_then_submit() -> None:
    api = Api()
    prepared = await post(api, "/v1/tokens", {"delay": "3d 4h"})
    assert prepared.status_code == 200
    assert set(prepared.json()) == {"token", "due_at", "due_at_ms"}
    for _ in range(2):
        job = {"queue": "demo", "body": "x", "token": prepared.json()["token"]}
        accepted = (await post(api, "/v1/jobs", job)).json()
        assert accepted["token"] == prepared.json()["token"]
        assert accepted["due_at_ms"] == prepared.json()["due_at_ms"]
    assert (await post(api, "/v1/tokens", b"")).json()["due_at_ms"] == api.clock.now_ms()


async def test_get_cancel_and_move() -> None:
    api = Api()
    accepted = (await post(api, "/v1/jobs", {"queue": "demo", "body": "x", "delay": "1h", "name": "n"})).json()
    path = f"/v1/jobs/{accepted['token']}"
    response = await call(api, "PATCH", path, {"delay": "2h"})
    problem(response, 409, "not-stored-yet")
    assert response.headers["retry-after"] == "1"
    await api.ingest()
    status = (await call(api, "GET", path)).json()
    assert status == accepted | {"state": "scheduled", "cancellable": True, "queue": "demo", "name": "n"}
    response = await call(api, "PATCH", path, {"delay": "2h"})
    moved = response.json()
    assert (response.status_code, moved["previous_token"]) == (200, accepted["token"])
    assert response.headers["location"] == f"/v1/jobs/{moved['token']}"
    assert problem(await call(api, "DELETE", path), 409, "moved")["moved_to"] == moved["token"]
    assert (await call(api, "GET", path)).json()["moved_to"] == moved["token"]
    path = f"/v1/jobs/{moved['token']}"
    response = await call(api, "DELETE", path)
    assert (response.status_code, response.json()) == (200, {"token": moved["token"], "state": "cancelled"})
    problem(await call(api, "PATCH", path, {"delay": 5}), 409, "cancelled")
    assert problem(await call(api, "PATCH", path, {"dealy": 5}), 422, "invalid-field")["field"] == "dealy"


async def test_too_late() -> None:
    api = Api()
    token = (await api.accept(delay="1h")).token
    await api.raise_marks(token)
    assert "will be delivered" in problem(await call(api, "DELETE", f"/v1/jobs/{token}"), 409, "too-late")["detail"]


@pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH"])
async def test_a_forged_token_is_not_found(method: str) -> None:
    api = Api()
    forged = TokenSigner([b"another deployment's secret"]).sign(api.ref((await api.accept(delay="1h")).token))
    for token in (forged, "nonsense", "%C3%A9" * 52):
        problem(await call(api, method, f"/v1/jobs/{token}", {"delay": 1}), 404, "invalid-token")


# --- requests as such ------------------------------------------------------------------------------------------------


async def test_unknown_paths_and_methods_are_problems_too() -> None:
    api = Api()
    problem(await call(api, "GET", "/v1/nothing"), 404, "not-found")
    problem(await call(api, "POST", "/v1/jobs/"), 404, "not-found")
    response = await call(api, "PUT", "/v1/jobs")
    problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"
    response = await call(api, "PUT", f"/v1/jobs/{'x' * 52}")
    problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "DELETE, GET, PATCH"


async def test_a_request_that_is_too_large_is_refused_by_its_declared_and_by_its_real_size() -> None:
    api = Api(request_bytes_max=1000)
    response = await post(api, "/v1/jobs", {"queue": "demo", "body": "x" * 1000})
    assert "1000" in problem(response, 413, "request-too-large")["detail"]
    assert response.headers["connection"] == "close"

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 100

    async with api.http() as http:
        response = await http.post("/v1/jobs", content=chunks())
    assert "content-length" not in response.request.headers
    problem(response, 413, "request-too-large")


async def test_requests_being_handled_are_bounded_in_bytes() -> None:
    api = Api(request_bytes_max=4096)
    gates = [api.queues.faults.hold_before_next("send") for _ in range(16)]
    for i in range(16):
        api.queues.create(f"q{i}")
    held = [asyncio.ensure_future(post(api, "/v1/jobs", {"queue": f"q{i}", "body": "x" * 3000})) for i in range(16)]
    for gate in gates:
        await gate.reached.wait()
    response = await post(api, "/v1/jobs", {"queue": "demo", "body": "x"})
    problem(response, 503, "overloaded")
    assert response.headers["retry-after"] == "1"
    for gate in gates:
        gate.open()
    assert [response.status_code for response in await asyncio.gather(*held)] == [202] * 16
    assert (await post(api, "/v1/jobs", {"queue": "demo", "body": "x"})).status_code == 202


async def test_a_program_may_send_any_content_type_but_a_web_page_only_json() -> None:
    api = Api()
    job = {"queue": "demo", "body": "x"}
    form = "application/x-www-form-urlencoded"
    assert (await post(api, "/v1/jobs", job, **{"content-type": form})).status_code == 202
    for browser in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
        for media_type in (form, "text/plain", ""):
            response = await post(api, "/v1/jobs", job, **{"content-type": media_type}, **browser)
            problem(response, 415, "unsupported-media-type")
        for media_type in ("application/json", "application/json; charset=utf-8", "application/merge-patch+json"):
            response = await post(api, "/v1/jobs", job, **{"content-type": media_type}, **browser)
            assert response.status_code == 202
    assert len(api.queues.messages("demo")) == 7


@pytest.mark.parametrize(
    ("given", "echoed"),
    [
        ("abc-123_X.y", True),
        ("!~", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("a b", False),
        ("\x7f", False),
        ("", False),
    ],
)
async def test_request_ids(given: str, echoed: bool) -> None:  # noqa: FBT001
    response = await post(Api(), "/v1/jobs", {}, **{"x-request-id": given})
    assert (response.headers["x-request-id"] == given) == echoed
    assert response.headers["x-request-id"]


async def test_every_response_has_the_request_s_id() -> None:
    api = Api(request_bytes_max=8_192)
    asked = [
        ("POST", "/v1/jobs", b'{"queue":"demo","body":"x"}', 202),
        ("POST", "/v1/jobs", b"{", 400),
        ("POST", "/v1/jobs/batch", b'{"jobs":[]}', 200),
        ("POST", "/v1/jobs", b"x" * 8_193, 413),
        ("GET", "/v1/jobs/forged", b"", 404),
        ("GET", "/nowhere", b"", 404),
        ("PUT", "/v1/jobs", b"", 405),
        ("GET", "/healthz", b"", 200),
        ("GET", "/metrics", b"", 200),
        ("GET", "/openapi.json", b"", 200),
    ]
    async with api.http() as http:
        for number, (method, path, body, status) in enumerate(asked):
            response = await http.request(method, path, content=body, headers={"x-request-id": f"r-{number}"})
            assert (response.status_code, response.headers["x-request-id"]) == (status, f"r-{number}"), path
        api.lifecycle.drain()
        for path, status in (("/v1/jobs", 503), ("/v1/jobs/batch", 503)):
            response = await http.post(path, content=b"{}", headers={"x-request-id": "late"})
            assert (response.status_code, response.headers["x-request-id"]) == (status, "late"), path


async def test_a_draining_process_accepts_nothing_new_and_still_responds_about_what_it_accepted() -> None:
    api = Api()
    token = (await api.accept(delay="1h")).token
    api.lifecycle.linger()
    assert (await post(api, "/v1/jobs", {"queue": "demo", "body": "x"})).status_code == 202
    api.lifecycle.drain()
    for path in ("/v1/jobs", "/v1/jobs/batch", "/v1/tokens"):
        response = await post(api, path, {"queue": "demo", "body": "x"})
        problem(response, 503, "draining")
        assert (response.headers["retry-after"], response.headers["connection"]) == ("1", "close")
    assert (await call(api, "GET", f"/v1/jobs/{token}")).status_code == 200
    assert (await call(api, "DELETE", f"/v1/jobs/{token}")).status_code == 200


async def test_a_problem_type_leads_to_its_explanation() -> None:
    api = Api()
    document = problem(await post(api, "/v1/jobs", {}), 422, "invalid-field")
    response = await call(api, "GET", document["type"])
    assert response.status_code == 200
    assert document["title"] in response.text
    problem(await call(api, "GET", "/problems/none"), 404, "not-found")


async def test_a_process_without_the_api_role_serves_probes_only() -> None:
    api = Api()
    app = create_app(None, api.readiness, api.lifecycle, api.telemetry, api.settings)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/readyz")).status_code == 200
        problem(await http.post("/v1/jobs", json={}), 404, "not-found")
        problem(await http.get("/docs"), 404, "not-found")
    assert api.queues.messages(INBOUND) == []


async def test_a_client_that_hangs_up_while_sending_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    api = Api(request_bytes_max=4096)
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/jobs",
        "raw_path": b"/v1/jobs",
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [],
    }
    for _ in range(20):  # more often than bodies fit in memory: each must give its room back
        events = iter([{"type": "http.request", "body": b"x" * 4000, "more_body": True}, {"type": "http.disconnect"}])

        async def receive(events: Any = events) -> Any:
            return next(events)

        async def send(_: Any) -> None:
            pass

        await api.app(scope, receive, send)
    assert caplog.records == []
    assert (await post(api, "/v1/jobs", {"queue": "demo", "body": "x"})).status_code == 202


async def test_large_bodies_leave_room_for_small_ones() -> None:
    api = Api(request_bytes_max=1_000_000)
    held: list[asyncio.Future[Any]] = []
    gate = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 999_000
        await gate.wait()

    async def upload() -> int:
        async with api.http() as http:
            return (await http.post("/v1/jobs", content=endless())).status_code

    held = [asyncio.ensure_future(upload()) for _ in range(16)]
    while sum(task.done() for task in held) < 4:  # noqa: ASYNC110 - turns of the event loop
        await asyncio.sleep(0)  # noqa: TID251
    assert {task.result() for task in held if task.done()} == {503}
    assert (await post(api, "/v1/jobs", {"queue": "demo", "body": "x"})).status_code == 202
    gate.set()
    assert sorted(await asyncio.gather(*held)) == [400] * 12 + [503] * 4


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/jobs", b'{"queue":"demo","body":"%b","dealy":5}' % (b"x" * 1_000_000)),
        ("/v1/jobs", b'{"queue":"demo","body":"%b"' % (b"x" * 1_000_000)),
        ("/v1/jobs", b"x" * 1_100_000),
        ("/v1/jobs/batch", b'{"jobs":[1,{"queue":"demo","body":"%b","dealy":5}]}' % (b"x" * 1_000_000)),
        ("/v1/jobs/batch", b'{"jobs":[{"queue":"nowhere","body":"%b"}]}' % (b"x" * 200_000)),
    ],
)
async def test_refused_bodies_are_freed_without_the_garbage_collector(path: str, body: bytes) -> None:
    api = Api(request_bytes_max=1_050_000)

    async def refuse(times: int) -> None:
        for _ in range(times):
            response = await post_bytes(api, path, body)
            assert response.status_code in (200, 400, 413, 422), response.text

    await refuse(3)
    gc.collect()
    gc.disable()
    try:
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        await refuse(20)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert after - before < 5 * len(body), "some may be held by what was used last"


async def post_bytes(api: Api, path: str, body: bytes) -> Any:
    async with api.http() as http:
        return await http.post(path, content=body)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/jobs", "POST"),
        ("/v1/jobs/batch", "POST"),
        ("/v1/tokens", "POST"),
        ("/v1/jobs/anything", "DELETE, GET, PATCH"),
        ("/problems/too-late", "GET"),
        ("/healthz", "GET"),
        ("/readyz", "GET"),
        ("/metrics", "GET"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "LOCK"])
async def test_every_path_says_which_methods_it_has(path: str, allowed: str, method: str) -> None:
    response = await call(Api(), method, path)
    if method in allowed:
        assert response.status_code != 405
        assert path == "/v1/jobs/anything" or response.status_code != 404
    else:
        problem(response, 405, "method-not-allowed")
        assert response.headers["allow"] == allowed


@pytest.mark.parametrize("name", ["Idempotency-Key", "idempotency-key", "X-Idempotency-Key"])
@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("POST", "/v1/jobs", {"queue": "demo", "body": "x"}),
        ("POST", "/v1/jobs/batch", {"jobs": [{"queue": "demo", "body": "x"}]}),
        ("PATCH", "/v1/jobs/anything", {"delay": "1h"}),
    ],
)
async def test_a_header_that_would_be_ignored_is_refused(name: str, method: str, path: str, content: Any) -> None:
    api = Api()
    async with api.http() as http:
        document = problem(
            await http.request(method, path, json=content, headers={name: "7"}), 400, "unsupported-header"
        )
    assert document["field"].lower() == name.lower()
    assert "POST /v1/tokens" in document["fix"]
    assert api.queues.messages("demo") == []


async def test_where_a_repeat_is_harmless_the_header_is_too() -> None:
    api = Api()
    async with api.http() as http:
        response = await http.post("/v1/tokens", json={}, headers={"Idempotency-Key": "7"})
    assert response.status_code == 200


async def test_a_local_time_is_submitted_prepared_and_moved_with_its_zone() -> None:
    api = Api()
    when = {"run_at": "2027-06-30T12:00", "timezone": "Europe/Berlin"}
    for path, fields in (("/v1/jobs", {"queue": "demo", "body": "x", "cancellable": True}), ("/v1/tokens", {})):
        response = await post(api, path, fields | when)
        assert response.json()["due_at"] == "2027-06-30T10:00:00.000Z"
    for wrong in ({"timezone": "Europe/Berlin"}, {"timezone": "Europe/Berlin", "delay": 5}):
        response = await post(api, "/v1/jobs", {"queue": "demo", "body": "x", **wrong})
        assert problem(response, 422, "invalid-field")["field"] == "timezone"
