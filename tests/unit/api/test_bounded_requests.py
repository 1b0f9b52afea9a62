"""What a request may cost before it is refused: counted before it is decoded, and refused in few words."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynein.api.body_limits import BodyLimits
from dynein.api.decoding import decode_batch, decode_job
from dynein.errors import InvalidField
from dynein.runtime.clock import SystemClock
from dynein.settings import Settings
from tests.unit.api.setting import Api

SIZE = 4 * 1024 * 1024
RESPONSE_BYTES_MAX = 2_000
CANARY = "S3CRETS3CRET"

Shape = Callable[[int], bytes]


def repeated(start: bytes, piece: bytes, end: bytes) -> Shape:
    return lambda size: start + piece * ((size - len(start) - len(end)) // len(piece)) + end


BATCHES: dict[str, Shape] = {
    "ones": repeated(b'{"jobs":[', b"1,", b"1]}"),
    "empty objects": repeated(b'{"jobs":[', b"{},", b"{}]}"),
    "nulls and white space": repeated(b'{"jobs":[', b"null , ", b"null]}"),
    "ones in one item": repeated(b'{"jobs":[[', b"1,", b"1]]}"),
    "objects in one item": repeated(b'{"jobs":[[', b'{"":[]},', b"1]]}"),
    "ones after a lone surrogate": repeated(b'{"jobs":["\\ud800",', b"1,", b"1]}"),
    "objects in an item beside a lone surrogate": repeated(b'{"jobs":["\\ud800",[', b"{},", b"{}]]}"),
    "lone surrogates": repeated(b'{"jobs":["', b"\\ud800", b'"]}'),
    "the jobs again and again": repeated(b"{", b'"jobs":[1,2,3],', b'"jobs":1}'),
    "an unknown field": repeated(b'{"', b"j", b'":1}'),
    "nested": lambda size: b'{"jobs":' + b"[" * (size // 2) + b"]" * (size // 2) + b"}",
    "white space": repeated(b'{"jobs":', b" ", b"1}"),
    "one string": repeated(b'{"jobs":"', b"x", b'"}'),
    "one number": repeated(b'{"jobs":', b"9", b"}"),
}
JOB_START = b'{"queue":"demo","body":"x",'
JOBS: dict[str, Shape] = {
    "attributes": lambda size: (
        JOB_START + b'"attributes":{' + b",".join(b'"a%d":1' % n for n in range(size // 12)) + b"}}"
    ),
    "attributes with quotation marks": repeated(JOB_START + b'"attributes":{', b'"\\"\\"":"\\"\\\\",', b'"a":1}}'),
    "one attribute again and again": repeated(JOB_START + b'"attributes":{', b'"a":1,', b'"a":1}}'),
    "the name of an attribute": repeated(JOB_START + b'"attributes":{"', b"a", b'":1}}'),
    "the value of an attribute": repeated(JOB_START + b'"attributes":{"a":"', b"\\u0007", b'"}}'),
    "the type of an attribute": repeated(JOB_START + b'"attributes":{"a":{"value":"v","type":"', b"S", b'"}}}'),
    "a number as attribute": repeated(JOB_START + b'"attributes":{"a":', b"9", b"}}"),
    "fields again and again": repeated(b"{", b'"body":"x",', b'"queue":"demo","dealy":1}'),
    "unknown fields": lambda size: b"{" + b",".join(b'"a%d":1' % n for n in range(size // 12)) + b"}",
    "an unknown field": repeated(b'{"', b"q", b'":1}'),
    "an unknown field with backticks": repeated(b'{"', b"`", b'":1}'),
    "a policy": repeated(JOB_START + b'"policy":"', b"P", b'"}'),
    "a queue": repeated(b'{"body":"x","queue":"', b"q", b'"}'),
    "a queue's URL": repeated(b'{"body":"x","queue":"http://localhost/', b"/", b'"}'),
    "a name": repeated(JOB_START + b'"name":"', b"n", b'"}'),
    "a group": repeated(JOB_START + b'"message_group_id":"', b"g", b'"}'),
    "a token": repeated(JOB_START + b'"token":"', b"A", b'"}'),
    "a trace": repeated(b'{"queue":"nowhere","body":"x","traceparent":"', b"0", b'"}'),
    "a delay": repeated(JOB_START + b'"delay":"', b"1", b'"}'),
    "digits of a delay": repeated(JOB_START + b'"delay":', b"9", b"}"),
    "digits of a fraction": repeated(JOB_START + b'"delay":1e9,"run_at":1.', b"9", b"}"),
    "a time": repeated(JOB_START + b'"run_at":"', b"2", b'"}'),
    "digits of a time": repeated(JOB_START + b'"run_at":', b"9", b"}"),
    "a body": repeated(b'{"queue":"demo","body":"', b"x", b'"}'),
    "a body of control characters": repeated(b'{"queue":"demo","body":"', b"\\u0001", b'"}'),
    "base64": repeated(b'{"queue":"demo","body_base64":"', b"A", b'"}'),
    "JSON": repeated(b'{"queue":"demo","json":[', b"[],", b"1]}"),
    "nested": lambda size: b'{"queue":"demo","json":' + b"[" * (size // 3) + b"]" * (size // 3) + b"}",
    "no JSON": repeated(b"", b"x", b""),
}
TIMES: dict[str, Shape] = {
    "a delay": repeated(b'{"delay":"', b"1", b'"}'),
    "digits": repeated(b'{"delay":', b"9", b"}"),
    "an unknown field": repeated(b'{"', b"q", b'":1}'),
    "nested": lambda size: b'{"delay":' + b"[" * (size // 3) + b"]" * (size // 3) + b"}",
}
JOB_BYTES_MAX = BodyLimits.of(Settings()).job.bytes_max
TIME_BYTES_MAX = BodyLimits.of(Settings()).time.bytes_max
CASES = [
    *(("/v1/jobs/batch", SIZE, BATCHES[name], name) for name in BATCHES),
    *(("/v1/jobs", JOB_BYTES_MAX, JOBS[name], name) for name in JOBS),
    *(("/v1/tokens", TIME_BYTES_MAX, TIMES[name], name) for name in TIMES),
    *(("PATCH", TIME_BYTES_MAX, TIMES[name], name) for name in TIMES),
]


async def refuse(api: Api, path: str, body: bytes) -> tuple[int, str, int]:
    """Status and text of the response, and how much memory was allocated at the peak."""
    method = "POST"
    if path == "PATCH":
        method, path = "PATCH", f"/v1/jobs/{(await api.accept(delay='1h')).token}"
    async with api.http() as http:
        tracemalloc.start()
        response = await http.request(method, path, content=body)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return response.status_code, response.text, peak


@pytest.mark.parametrize(("path", "size", "shape", "name"), CASES, ids=[f"{case[0]}-{case[3]}" for case in CASES])
async def test_a_hostile_body_is_refused_in_few_words_and_little_memory(
    path: str, size: int, shape: Shape, name: str
) -> None:
    api = Api()
    status, text, peak = await refuse(api, path, shape(size))
    assert len(text) < RESPONSE_BYTES_MAX, name
    if path == "/v1/jobs/batch" and status == 200:
        assert json.loads(text)["refused"] <= 2, "its other items are one"
    else:
        assert 400 <= status < 500
    assert peak < 4 * size + 2_000_000
    assert api.queues.messages("demo") == []


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/tokens", "PATCH"])
async def test_a_body_is_not_read_beyond_what_such_a_request_can_need(path: str) -> None:
    status, text, _ = await refuse(Api(), path, b"x" * (JOB_BYTES_MAX + 1))
    assert (status, json.loads(text)["code"]) == (413, "request-too-large")


async def test_a_job_too_large_is_refused_alone_in_a_batch() -> None:
    api = Api()
    jobs = [{"queue": "demo", "body": body} for body in ("a", "x" * JOB_BYTES_MAX, "b")]
    async with api.http() as http:
        results = (await http.post("/v1/jobs/batch", json={"jobs": jobs})).json()["results"]
    assert [result["status"] for result in results] == [202, 413, 202]
    assert results[1]["problem"]["code"] == "request-too-large"
    assert api.queues.messages("demo") == ["a", "b"]


async def test_the_largest_job_is_accepted_however_it_is_spelt() -> None:
    api = Api()
    text = "".join(f"\\u{ord(character):04x}" for character in "x" * (api.settings.message_bytes_max - 500))
    async with api.http() as http:
        response = await http.post("/v1/jobs", content=f'{{"queue":"demo","body":"{text}"}}'.encode())
    assert response.status_code == 202


@pytest.mark.parametrize("count", [0, 1, 3])
def test_items_of_a_batch_are_counted_and_kept_apart(count: int) -> None:
    items = [b'{"body":"%d, ]}"}' % n for n in range(count)]
    raw = b' { "jobs" : [ ' + b" ,\n".join(items) + b" ] } "
    assert [bytes(item) for item in decode_batch(raw, 3)] == items


def test_one_item_too_many_is_refused() -> None:
    with pytest.raises(InvalidField, match="more than 3"):
        decode_batch(b'{"jobs":[1,2,3,4]}', 3)


SPACE = st.sampled_from(["", " ", "\n\t "])
VALUE = st.sampled_from(
    [
        '{"queue":"demo","body":"hello"}',
        "1",
        '"\\ud800"',
        '"\\uD83D\\uDE00"',
        '"\\\\ud800"',
        '["\\udfff", "]"]',
        '{"a,":"}"}',
    ]
)


@given(st.lists(st.tuples(SPACE, VALUE, SPACE), max_size=8), SPACE, SPACE)
def test_a_batch_with_lone_surrogates_is_split_where_its_commas_are(
    items: list[tuple[str, str, str]], first: str, last: str
) -> None:
    raw = f'{first}{{"jobs":1, "jobs"{last}:{first}[{",".join(map("".join, items))}]{last}}}{first}'.encode()
    assert [bytes(item) for item in decode_batch(raw, 8)] == [value.encode() for _, value, _ in items]


# --- what is repeated of a request ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"body": CANARY, "policy": CANARY},
        {"body": [CANARY]},
        {"body": CANARY, "delay": [CANARY]},
        {"body": CANARY, "delay": {CANARY: CANARY}},
        {"body": CANARY, "json": {CANARY: CANARY}},
        {"body": CANARY, "cancellable": CANARY},
        {"body": CANARY, "attributes": CANARY},
        {"body": CANARY, "attributes": {"a": [CANARY]}},
        {"body": CANARY, "attributes": {"a": {"type": CANARY, "value": CANARY}}},
        {"body": CANARY, "attributes": {"a": {"type": "Number", "value": CANARY}}},
        {"body": CANARY, "token": CANARY},
        {"body": CANARY, "token": CANARY.ljust(52, "A")},
        {"body": CANARY, "message_group_id": f"{CANARY} "},
        {"body": CANARY, "deduplication_id": CANARY},
        {"body": CANARY, "run_at": CANARY},
        {"body": CANARY + "\x01"},
        {"body_base64": CANARY + "!"},
    ],
)
async def test_a_problem_does_not_repeat_what_was_sent(
    fields: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    api = Api()
    async with api.http() as http:
        job = {"queue": "demo", **fields}
        for path, content in (("/v1/jobs", job), ("/v1/jobs/batch", {"jobs": [job]})):
            response = await http.post(path, json=content)
            assert '"status":422' in response.text
            assert CANARY not in response.text
    assert CANARY not in caplog.text


async def test_no_token_stands_in_full_in_a_log_line_or_a_problem(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    api = Api()
    token = (await api.accept(delay="1h")).token
    caplog.clear()
    api.table.faults.fail_next("find", KeyError("a bug"))
    async with api.http() as http:
        for path in (f"/v1/jobs/{token}", f"/v1/jobs/{token}/x", f"/v2/{token}{token}", f"/v1/jobs/{token[:-1]}A"):
            response = await http.get(path)
            assert response.status_code >= 400
            assert token not in response.text
            assert token[:28] in response.json()["instance"], "enough to search for"
        assert (await http.put(f"/v1/jobs/{token}")).status_code == 405
        assert len((await http.get("/" + "x" * 20_000)).text) < RESPONSE_BYTES_MAX
    urls = [record for record in caplog.records if "path" in str(record.msg)]
    assert len(urls) > 5
    assert token not in "".join(str(record.msg) for record in urls)


# --- turns ------------------------------------------------------------------------------------------------------------


class Hurried(SystemClock):
    """A millisecond passes at each look."""

    now_s = 0.0

    def monotonic(self) -> float:
        self.now_s += 0.001
        return self.now_s


async def test_others_have_their_turn_while_a_batch_is_read() -> None:
    api = Api()
    api.submissions.clock = Hurried()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)  # noqa: TID251 - turns of the event loop

    running = asyncio.ensure_future(other())
    jobs = [{"queue": "demo", "body": "x", "dealy": 1}] * 500
    async with api.http() as http:
        response = await http.post("/v1/jobs/batch", json={"jobs": jobs})
    running.cancel()
    assert response.json()["refused"] == 500
    assert turns > 100


def test_a_decoded_job_holds_no_more_than_it_needs() -> None:
    job = decode_job(b'{"queue":"demo","body":"x","attributes":{"a":1}}')
    assert bytes(memoryview(job.attributes)) == b'{"a":1}'  # type: ignore[arg-type]
