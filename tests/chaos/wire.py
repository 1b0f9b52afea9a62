"""What passes on a process's connections to SQS and DynamoDB, as calls: what it was given and what it did."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httptools

from tests.acceptance.fleet import now_ms

OK = 200


@dataclass(slots=True)
class Call:
    """One request and what became of it. Times are wall time, ms; 0 if it has not come to that."""

    process: str
    operation: str
    """AWS's name for it: ``SendMessageBatch``."""
    asked_at_ms: int
    """When the whole request was passed to the engine."""
    answered_at_ms: int = 0
    """When the engine's answer was here."""
    passed_at_ms: int = 0
    """When the whole answer was passed to the process."""
    hung_up_at_ms: int = 0
    """When the connection ended without it."""
    status: int = 0

    @property
    def known(self) -> bool:
        """Has the process been answered that it was done?"""
        return self.status == OK and self.passed_at_ms > 0


Asked = Callable[[Call, Mapping[str, Any]], None]
Answered = Callable[[Call, Mapping[str, Any]], None]


class Wire:
    """Reads one connection, on which answers come in the order of their requests (a `Listener` of the proxy).

    ``asked`` is called, with what is asked, once a whole request is about to reach the engine; ``answered``, with what
    is answered, once the engine's whole answer is here, whether or not it is passed on.
    """

    def __init__(self, process: str, asked: Asked, answered: Answered, now: Callable[[], int] = now_ms) -> None:
        self._process = process
        self._now = now
        self._requests = httptools.HttpRequestParser(_Requests(self._whole_request))
        self._answers = httptools.HttpResponseParser(_Answers(self._whole_answer))
        self._tell_asked = asked
        self._tell_answered = answered
        self._open: deque[Call] = deque()
        self._to_pass: list[Call] = []

    def requested(self, chunk: bytes) -> None:
        self._requests.feed_data(chunk)

    def answered(self, chunk: bytes) -> None:
        self._answers.feed_data(chunk)

    def passed(self) -> None:
        for call in self._to_pass:
            call.passed_at_ms = self._now()
        self._to_pass.clear()

    def hung_up(self) -> None:
        for call in (*self._open, *self._to_pass):
            call.hung_up_at_ms = call.hung_up_at_ms or self._now()

    def _whole_request(self, operation: str, body: bytes) -> None:
        call = Call(self._process, operation, self._now())
        self._open.append(call)
        self._tell_asked(call, json.loads(body))

    def _whole_answer(self, body: bytes) -> None:
        """Of the oldest request that has none yet."""
        call = self._open.popleft()
        call.answered_at_ms = self._now()
        call.status = self._answers.get_status_code()
        self._to_pass.append(call)
        self._tell_answered(call, json.loads(body) if call.status == OK and body else {})


class _Requests:
    """httptools' callbacks for what a process sends."""

    def __init__(self, whole: Callable[[str, bytes], None]) -> None:
        self._whole = whole
        self._operation = ""
        self._body: list[bytes] = []

    def on_message_begin(self) -> None:
        self._operation = ""
        self._body = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-amz-target":
            self._operation = value.decode("ascii").rpartition(".")[2]

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._whole(self._operation, b"".join(self._body))


class _Answers:
    """httptools' callbacks for what the engine sends."""

    def __init__(self, whole: Callable[[bytes], None]) -> None:
        self._whole = whole
        self._body: list[bytes] = []

    def on_message_begin(self) -> None:
        self._body = []

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._whole(b"".join(self._body))
