"""What a client sends and repeats, with responses that a test gives and time that only passes in pauses."""

from __future__ import annotations

import datetime as dt
import json
import random
from base64 import b64decode
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynein.client import Accepted, Client, Job, NotDone, Policy, Refused, Unanswered, flows
from dynein.client.exchange import Call, NoResponse, Patience, Response, Steps, drive
from dynein.client.jobs import encode_job

ResultT = TypeVar("ResultT")
PATIENCE_S = 30.0
UNREACHABLE = NoResponse(sent=False, why="connection refused")
LOST = NoResponse(sent=True, why="connection reset")
ACCEPTED = {"token": "T", "policy": "SCHEDULED", "due_at": "2030-01-31T09:00:00.000Z", "due_at_ms": 1896080400000}
JOB = Job("emails", body="hello", delay=5)


def ok(**fields: Any) -> Response:
    return Response(202, json.dumps(fields).encode())


def problem(status: int, code: str, *, retry_after_s: float = 0.0, **more: Any) -> Response:
    document = {"type": f"/problems/{code}", "title": "t", "status": status, "code": code, "detail": f"It is {code}."}
    return Response(status, json.dumps({**document, **more}).encode(), retry_after_s, "request-1")


WARNING = {"code": "queue-delays-messages", "detail": "It does.", "fix": "Set it to 0."}


class Api:
    """Returns the responses that it was made with, the last one repeatedly."""

    def __init__(self, *responses: Response | NoResponse) -> None:
        self._responses = list(responses)
        self._now = 0.0
        self.calls: list[Call] = []
        self.pauses: list[float] = []

    def patience(self) -> Patience:
        return Patience(PATIENCE_S, lambda: self._now, random.Random(7))

    def run(self, steps: Steps[ResultT]) -> ResultT:
        return drive(steps, self._send, self._sleep)

    def _sleep(self, seconds: float) -> None:
        self._now += seconds
        self.pauses.append(seconds)

    def _send(self, call: Call) -> Response | NoResponse:
        self.calls.append(call)
        return self._response(call)

    def _response(self, call: Call) -> Response | NoResponse:
        del call
        return self._responses.pop(0) if len(self._responses) > 1 else self._responses[0]

    def submit(self, job: Job = JOB, *, once: bool = False) -> Accepted:
        return self.run(flows.submit(self.patience, job, once=once))

    def submit_many(self, jobs: Sequence[Job]) -> list[flows.Outcome]:
        return self.run(flows.submit_many(self.patience, jobs))

    @property
    def sent(self) -> list[Any]:
        return [json.loads(call.body or b"null") for call in self.calls]


class TestSubmit:
    def test_what_was_accepted_is_returned(self) -> None:
        api = Api(ok(**ACCEPTED))
        accepted = api.submit()
        assert accepted == Accepted("T", 1896080400000, Policy.SCHEDULED)
        assert accepted.due_at == dt.datetime(2030, 1, 31, 9, tzinfo=dt.UTC)
        assert [(call.method, call.path) for call in api.calls] == [("POST", "/v1/jobs")]
        assert api.sent == [{"queue": "emails", "body": "hello", "delay": 5}]

    @pytest.mark.parametrize(
        "turned_away",
        [
            UNREACHABLE,
            *(problem(503, code) for code in ("overloaded", "draining", "not-ready", "not-sent", "misconfigured")),
            *(problem(429, code) for code in ("throttled", "rate-limited")),
        ],
        ids=lambda response: getattr(response, "why", "") or json.loads(response.body)["code"],
    )
    def test_what_was_certainly_not_accepted_is_sent_again(self, turned_away: Response | NoResponse) -> None:
        api = Api(turned_away, turned_away, ok(**ACCEPTED))
        assert api.submit().token == "T"
        assert len(api.calls) == 3

    @pytest.mark.parametrize(
        "doubt", [LOST, problem(503, "unavailable"), problem(500, "internal"), Response(502, b"<html>bad gateway")]
    )
    def test_in_doubt_it_is_not_sent_again(self, doubt: Response | NoResponse) -> None:
        api = Api(doubt, ok(**ACCEPTED))
        with pytest.raises(Unanswered):
            api.submit()
        assert len(api.calls) == 1

    def test_with_a_token_it_is_sent_again_in_doubt(self) -> None:
        api = Api(LOST, problem(503, "unavailable"), ok(**ACCEPTED))
        assert api.submit(Job("emails", body="hello", token="PREPARED")).token == "T"
        assert api.sent == [{"queue": "emails", "body": "hello", "token": "PREPARED"}] * 3

    def test_once_takes_a_token_for_the_due_time_first(self) -> None:
        prepared = ok(token="PREPARED", due_at="", due_at_ms=1)
        api = Api(LOST, prepared, LOST, ok(**ACCEPTED))
        api.submit(once=True)
        assert [call.path for call in api.calls] == ["/v1/tokens", "/v1/tokens", "/v1/jobs", "/v1/jobs"]
        assert api.sent[1:3] == [{"delay": 5}, {"queue": "emails", "body": "hello", "token": "PREPARED"}]

    def test_a_refusal_is_not_repeated_and_says_what_to_send(self) -> None:
        api = Api(problem(422, "invalid-field", field="dealy", fix="Did you mean 'delay'?"))
        with pytest.raises(Refused, match="Did you mean 'delay'") as raised:
            api.submit()
        error = raised.value
        assert (error.code, error.status, error.field, error.request_id) == ("invalid-field", 422, "dealy", "request-1")
        assert len(api.calls) == 1

    def test_patience_ends(self) -> None:
        api = Api(UNREACHABLE)
        with pytest.raises(NotDone, match="connection refused"):
            api.submit()
        assert 10 < len(api.calls) < 40
        assert PATIENCE_S - 2 < sum(api.pauses) <= PATIENCE_S
        assert api.pauses[0] < 0.1
        assert max(api.pauses) <= 2

    def test_a_pause_is_at_least_as_long_as_the_api_asks(self) -> None:
        api = Api(problem(503, "overloaded", retry_after_s=7.0), ok(**ACCEPTED))
        api.submit()
        assert api.pauses == [7.0]

    @pytest.mark.parametrize("response", [Response(200, b"<html>welcome"), Response(302, b""), Response(404, b"nginx")])
    def test_a_response_from_something_else(self, response: Response) -> None:
        with pytest.raises(Refused, match="not from the Dynein API") as raised:
            Api(response).submit()
        assert raised.value.code == f"http-{response.status}"


class TestStoredJobs:
    def test_get(self) -> None:
        api = Api(LOST, ok(**ACCEPTED, state="scheduled", cancellable=True, queue="emails"))
        status = api.run(flows.get(api.patience, "a/b"))
        assert (status.state, status.cancellable, status.queue, status.name) == ("scheduled", True, "emails", None)
        assert [(call.method, call.path) for call in api.calls] == [("GET", "/v1/jobs/a%2Fb")] * 2

    def test_a_cancel_is_repeated_in_doubt_and_while_the_job_is_not_stored_yet(self) -> None:
        api = Api(LOST, problem(409, "not-stored-yet", retry_after_s=1.0), ok(token="T", state="cancelled"))
        api.run(flows.cancel(api.patience, "T"))
        assert [call.method for call in api.calls] == ["DELETE"] * 3
        assert api.pauses[1] == 1.0

    def test_a_cancel_that_comes_too_late(self) -> None:
        api = Api(problem(409, "too-late"))
        with pytest.raises(Refused) as raised:
            api.run(flows.cancel(api.patience, "T"))
        assert raised.value.code == "too-late"

    def test_a_move_to_a_time_is_repeated_in_doubt_and_one_by_a_delay_is_not(self) -> None:
        moved = ok(token="N", due_at="", due_at_ms=5, previous_token="T")
        api = Api(LOST, moved)
        assert api.run(flows.move(api.patience, "T", 5, None)).token == "N"
        assert api.sent == [{"run_at": 5}] * 2
        api = Api(LOST, moved)
        with pytest.raises(Unanswered):
            api.run(flows.move(api.patience, "T", None, dt.timedelta(minutes=1)))
        assert api.sent == [{"delay": 60.0}]

    @pytest.mark.parametrize("run_at", ["2027-06-30T12:00:00", dt.datetime(2027, 6, 30, 12)])  # noqa: DTZ001 - local
    def test_a_local_time_goes_with_its_zone(self, run_at: str | dt.datetime) -> None:
        when = {"run_at": "2027-06-30T12:00:00", "timezone": "Europe/Berlin"}
        api = Api(ok(**ACCEPTED))
        api.submit(Job("emails", body="hello", run_at=run_at, timezone="Europe/Berlin"))
        assert api.sent == [{"queue": "emails", "body": "hello", **when}]
        api = Api(ok(token="P", due_at_ms=1), ok(**ACCEPTED))
        api.submit(Job("emails", body="hello", run_at=run_at, timezone="Europe/Berlin"), once=True)
        assert api.sent == [when, {"queue": "emails", "body": "hello", "token": "P"}]
        api = Api(ok(token="N", due_at_ms=5, previous_token="T"))
        api.run(flows.move(api.patience, "T", run_at, None, "Europe/Berlin"))
        assert api.sent == [when]

    def test_a_refusal_has_the_token_of_a_job_that_was_moved(self) -> None:
        api = Api(problem(409, "moved", moved_to="N"))
        with pytest.raises(Refused) as raised:
            api.run(flows.cancel(api.patience, "T"))
        assert raised.value.moved_to == "N"


class BatchApi(Api):
    """The outcome of each job of a batch is as its body says: ``ok``, or problems, one after the other."""

    def __init__(self) -> None:
        super().__init__(ok())
        self.batches: list[list[str]] = []

    def _response(self, call: Call) -> Response:
        bodies = [job["body"] for job in json.loads(call.body or b"")["jobs"]]
        met = [body for batch in self.batches for body in batch]
        self.batches.append(bodies)
        results = []
        for body in bodies:
            fates = body.split(" ")[1:]
            fate = fates[min(met.count(body), len(fates) - 1)]
            status = {"ok": 202, "invalid-field": 422}.get(fate, 503)
            document = json.loads(problem(status, fate).body)
            results.append({"status": 202, **ACCEPTED} if fate == "ok" else {"status": status, "problem": document})
        return Response(200, json.dumps({"accepted": 0, "refused": 0, "results": results}).encode())


class TestSubmitMany:
    def test_each_job_has_its_outcome_and_only_those_turned_away_are_sent_again(self) -> None:
        api = BatchApi()
        bodies = ["1 ok", "2 overloaded throttled ok", "3 invalid-field", "4 unavailable ok", "5 draining ok"]
        first, second, third, fourth, fifth = api.submit_many([Job("q", body=body) for body in bodies])
        assert isinstance(first, Accepted)
        assert isinstance(second, Accepted)
        assert isinstance(third, Refused)
        assert isinstance(fourth, Unanswered), "it may have been accepted"
        assert isinstance(fifth, Accepted)
        assert api.batches == [bodies, [bodies[1], bodies[4]], [bodies[1]]]

    def test_with_tokens_they_are_sent_again_in_doubt(self) -> None:
        api = BatchApi()
        [outcome] = api.submit_many([Job("q", body="1 unavailable ok", token="PREPARED")])
        assert isinstance(outcome, Accepted)

    def test_none_at_all(self) -> None:
        api = BatchApi()
        assert api.submit_many([]) == []
        assert api.batches == []

    def test_a_batch_without_a_response_does_not_affect_the_others(self) -> None:
        responses: list[Response | NoResponse] = [LOST]
        results = [{"status": 202, **ACCEPTED}]
        responses.append(Response(200, json.dumps({"accepted": 1, "refused": 0, "results": results}).encode()))
        outcomes = Api(*responses).submit_many([Job("q", body="x")] * (flows.BATCH_JOBS_MAX + 1))
        assert {type(outcome) for outcome in outcomes[:-1]} == {Unanswered}
        assert isinstance(outcomes[-1], Accepted)

    def test_a_response_from_something_else_is_the_outcome_of_each_job(self) -> None:
        outcomes = Api(Response(200, b"<html>welcome")).submit_many([Job("q", body="x")] * 2)
        assert [outcome.code for outcome in outcomes if isinstance(outcome, Refused)] == ["http-200"] * 2

    def test_nothing_is_sent_if_one_of_them_cannot_be_encoded(self) -> None:
        api = BatchApi()
        with pytest.raises(ValueError, match="run_at"):
            api.submit_many([Job("q", body="1 ok"), Job("q", body="2 ok", run_at=dt.datetime(2030, 1, 1))])  # noqa: DTZ001 - that is what is wrong
        assert api.batches == []

    @given(st.lists(st.integers(1, 3 * flows.BATCH_BYTES_MAX // 2), max_size=12), st.integers(1, 3000))
    def test_batches_are_within_the_bounds_and_hold_every_job_once(self, large: list[int], small: int) -> None:
        sizes = [*large, *[100] * small]
        cut = list(flows.batches(range(len(sizes)), sizes))
        assert [number for batch in cut for number in batch] == list(range(len(sizes)))
        for batch in cut:
            assert len(batch) <= flows.BATCH_JOBS_MAX
            assert len(batch) == 1 or sum(sizes[n] + 1 for n in batch) <= flows.BATCH_BYTES_MAX


def test_an_invalid_url_is_refused() -> None:
    for url in ("dynein", "ftp://dynein", "http://"):
        with pytest.raises(ValueError, match="write http://HOST:PORT"):
            Client(url)


class TestJobs:
    def test_every_field(self) -> None:
        job = Job(
            "q",
            body=b"\x00\xff",
            run_at=dt.datetime(2030, 1, 31, 10, tzinfo=dt.timezone(dt.timedelta(hours=1))),
            policy=Policy.SCHEDULED,
            cancellable=True,
            name="n",
            attributes={"text": "t", "count": 1, "price": Decimal("0.10"), "photo": b"\xff"},
            message_group_id="g",
            deduplication_id="d",
            traceparent="tp",
        )
        assert json.loads(encode_job(job)) == {
            "queue": "q",
            "body_base64": "AP8=",
            "run_at": 1896080400000,
            "policy": "SCHEDULED",
            "cancellable": True,
            "name": "n",
            "attributes": {
                "text": "t",
                "count": 1,
                "price": {"type": "Number", "value": "0.10"},
                "photo": {"type": "Binary", "value": "/w=="},
            },
            "message_group_id": "g",
            "deduplication_id": "d",
            "traceparent": "tp",
        }

    def test_json_may_be_null(self) -> None:
        assert json.loads(encode_job(Job("q", json=None))) == {"queue": "q", "json": None}

    def test_what_json_cannot_hold_is_refused(self) -> None:
        with pytest.raises(ValueError, match="'q' cannot be written as JSON"):
            encode_job(Job("q", json=object()))

    @given(st.integers(0, 10**17))
    def test_a_moment_is_never_early_and_less_than_a_millisecond_late(self, microseconds: int) -> None:
        moment = dt.datetime(1970, 1, 2, tzinfo=dt.UTC) + dt.timedelta(microseconds=microseconds)
        run_at_ms = json.loads(encode_job(Job("q", body="", run_at=moment)))["run_at"]
        late = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=run_at_ms) - moment
        assert dt.timedelta(0) <= late < dt.timedelta(milliseconds=1)

    @given(st.binary())
    def test_bytes_come_back(self, body: bytes) -> None:
        assert b64decode(json.loads(encode_job(Job("q", body=body)))["body_base64"]) == body


def test_a_token_taken_for_a_job_of_a_message_group_is_prepared_for_it() -> None:
    api = Api(ok(**{**ACCEPTED, "token": "P"}), ok(**ACCEPTED))
    api.run(flows.submit(api.patience, Job("a.fifo", body="x", message_group_id="g"), once=True))
    assert json.loads(api.calls[0].body or b"") == {"queue": "a.fifo", "message_group_id": "g"}


def test_warnings_come_with_what_was_accepted() -> None:
    warned = {**ACCEPTED, "warnings": [WARNING]}
    job = Job("a.fifo", body="x", message_group_id="g", allow_for_queue_delay=True)
    api = Api(ok(**warned))
    (warning,) = api.run(flows.submit(api.patience, job, once=False)).warnings
    assert warning.code == "queue-delays-messages"
    assert json.loads(api.calls[0].body or b"")["allow_for_queue_delay"] is True
    api = Api(ok(results=[{"status": 202, **warned}, {"status": 202, **ACCEPTED}]))
    first, second = api.run(flows.submit_many(api.patience, [job, JOB]))
    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert [len(accepted.warnings) for accepted in (first, second)] == [1, 0]
