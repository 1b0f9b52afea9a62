"""What comes out on standard error."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any, Literal, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynein.observability.events.api import JOB_CANCELLED, JOB_REFUSED
from dynein.observability.events.delivery import DESTINATION_FAILING, DESTINATION_RECOVERED
from dynein.observability.events.event import Event, Line
from dynein.observability.events.process import PASS_FAILED
from dynein.observability.logs import KEYS_MAX, NOISY, PERIOD_S, Sparing, configure_logging
from dynein.observability.one_line import CHARS_MAX, as_json, flattened
from tests.unit.lines import not_shown

FORMATS: list[Literal["console", "json"]] = ["console", "json"]
AT = 1_896_080_400.0125


class Output:
    """Standard error of a process whose logging is set up."""

    def __init__(self, log_format: Literal["console", "json"], level: str = "DEBUG", worker: str | None = None) -> None:
        self._root = logging.getLogger()
        self._before = (list(self._root.handlers), self._root.level, sys.stderr)
        sys.stderr = self._stream = io.StringIO()
        configure_logging(log_format, level, worker=worker)

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._root.handlers[:], level, sys.stderr = self._before
        self._root.setLevel(level)


@pytest.fixture(autouse=True)
def _time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = made(*args, **kwargs)
        record.created = AT
        return record

    monkeypatch.setattr(logging, "_logRecordFactory", factory)


@pytest.fixture(autouse=True)
def _library_levels() -> Iterator[None]:
    yield
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_a_json_line() -> None:
    with Output("json") as output:
        JOB_CANCELLED.log(token="T", due_at_ms=5, request_id=None)
    assert output.text == (
        '{"time":"2030-01-31T09:00:00.012Z","level":"INFO","event":"job.cancelled","role":"api","token":"T",'
        '"due_at_ms":5,"message":"the job will not be delivered"}\n'
    )


def test_a_console_line() -> None:
    with Output("console") as output:
        JOB_CANCELLED.log(token="T", request_id="a b")
    assert output.text == (
        "2030-01-31T09:00:00.012Z INFO    job.cancelled: the job will not be delivered role=api token=T "
        'request_id="a b"\n'
    )


def test_each_line_has_the_worker_it_is_from() -> None:
    with Output("json", worker="worker 3") as output:
        JOB_CANCELLED.log(token="T")
        logging.getLogger("somebody.else").warning("%s!", "hello")
    assert [line["worker"] for line in output.objects] == ["worker 3", "worker 3"]
    assert all(isinstance(line["pid"], int) for line in output.objects)
    with Output("console", worker="worker 3") as output:
        JOB_CANCELLED.log(token="T")
    assert f"INFO    [worker 3 {os.getpid()}] job.cancelled: " in output.text


def test_lines_of_libraries_have_the_same_form() -> None:
    with Output("json") as output:
        logging.getLogger("somebody.else").warning("%s\nsecond", "hello")
    (line,) = output.objects
    assert (line["event"], line["logger"], line["message"]) == ("log", "somebody.else", "hello\nsecond")
    with Output("console") as output:
        logging.getLogger("somebody.else").warning("%s\nsecond", "hello")
    assert output.lines == ["2030-01-31T09:00:00.012Z WARNING somebody.else: hello\\u000asecond"]


@pytest.mark.parametrize("log_format", FORMATS)
def test_below_the_level_nothing_is_written(log_format: Literal["console", "json"]) -> None:
    with Output(log_format, "INFO") as output:
        assert not JOB_REFUSED.enabled
        JOB_REFUSED.log(error="x")
    assert output.text == ""


def test_a_trace_is_in_the_json_and_indented_on_the_console() -> None:
    error = RuntimeError("x\n2030-01-31T09:00:00.012Z INFO    job.cancelled: forged")
    with Output("json") as output:
        PASS_FAILED.log(error, what="layout")
    (line,) = output.objects
    assert line["exception"].startswith("RuntimeError: x\n")
    with Output("console") as output:
        PASS_FAILED.log(error, what="layout")
    assert "forged" in output.lines[2]
    assert [line[:4].isspace() for line in output.lines] == [False, True, True]


ANYTHING = st.text(st.characters(), max_size=40) | st.text(
    "\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\x1b[a\x9b\u202e\u2066\u200b\U000e0041", max_size=10
)


def test_all_that_is_not_shown_is_escaped_and_json_readers_get_it_back() -> None:
    characters = [chr(code) for code in range(sys.maxunicode + 1)]
    hidden = [c for c in characters if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
    assert not not_shown("".join(map(flattened, hidden)))
    assert all(flattened(c) == c for c in characters if unicodedata.category(c)[0] in "LNPS"), "and nothing else"
    spelt = "".join(c for c in hidden if unicodedata.category(c) != "Cs")
    for value in (spelt, "\ud800", "\udfff"):
        assert json.loads(as_json({"value": value})) == {"value": value}


@given(ANYTHING, ANYTHING, st.sampled_from(FORMATS))
def test_nothing_from_outside_makes_a_second_line(text: str, more: str, log_format: Literal["console", "json"]) -> None:
    with Output(log_format) as output:
        JOB_REFUSED.log(queue=text, field=more, error=f"{text}: {more}", code="invalid-field")
        logging.getLogger("somebody.else").warning("%s", text)
    assert len(output.lines) == 2
    assert not_shown(output.text) == ["\n", "\n"]
    if log_format == "json":
        assert output.objects[0]["queue"] == text.encode("utf-8", "backslashreplace").decode()


@pytest.mark.parametrize("log_format", FORMATS)
def test_a_line_has_an_end(log_format: Literal["console", "json"]) -> None:
    with Output(log_format) as output:
        JOB_REFUSED.log(queue="x" * 1_000_000)
        logging.getLogger("somebody.else").warning("y" * 1_000_000)
    assert all(len(line) < CHARS_MAX + 300 for line in output.lines)


# --- once a minute ---------------------------------------------------------------------------------------------------


def passed(
    sparing: Sparing, at: float, event: Event = DESTINATION_FAILING, **fields: object
) -> dict[str, object] | None:
    line = Line(event, dict(fields))
    record = logging.makeLogRecord({"msg": line, "created": at})
    return line.fields if sparing.filter(record) else None


def test_a_failing_destination_is_one_line_a_minute_with_how_many_were_left_out() -> None:
    sparing = Sparing()
    logged = [passed(sparing, at / 10, role="dispatcher", queue="gone") for at in range(1_200)]
    assert [at for at, fields in enumerate(logged) if fields is not None] == [0, 600]
    assert logged[0] == {"role": "dispatcher", "queue": "gone"}
    assert logged[600] == {"role": "dispatcher", "queue": "gone", "repeats": 599}


def test_other_destinations_roles_and_events_are_logged_separately() -> None:
    sparing = Sparing()
    for role in ("dispatcher", "ingester"):
        for queue in ("a", "b"):
            assert passed(sparing, 0.0, role=role, queue=queue) is not None
            assert passed(sparing, 1.0, DESTINATION_RECOVERED, role=role, queue=queue) is not None
            assert passed(sparing, 2.0, role=role, queue=queue) is None


def test_every_other_event_comes_each_time() -> None:
    sparing = Sparing()
    assert all(passed(sparing, 0.0, JOB_CANCELLED, token="T") is not None for _ in range(3))
    assert sparing.filter(logging.makeLogRecord({"msg": "a library's"}))


def test_a_clock_that_is_set_back_silences_nothing() -> None:
    sparing = Sparing()
    assert passed(sparing, 10_000.0, role="api", queue="q") is not None
    assert passed(sparing, 1_000.0, role="api", queue="q") is not None
    assert passed(sparing, 1_000.0 + PERIOD_S - 1, role="api", queue="q") is None


def test_what_is_remembered_of_them_is_bounded() -> None:
    sparing = Sparing(keys_max=3)
    for number in range(10):
        assert passed(sparing, 0.0, role="api", queue=number) is not None
    assert len(sparing._logged) == 3
    assert passed(sparing, 0.0, role="api", queue=9) is None
    assert KEYS_MAX >= 10_000, "as many as there are lanes"
