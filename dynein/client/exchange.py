"""One request to the API, repeated as long as that makes sense. Pure: a generator that asks its driver for I/O.

A driver sends a `Call` that it is given over HTTP and answers with an `Answer`, or with `NoAnswer`; it lets a `Pause`
pass. So there is one course of events for blocking and asynchronous callers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from http import HTTPStatus
from typing import NamedTuple, TypeVar

import msgspec

from dynein.client.errors import ClientError, NotDone, Refused, Unanswered
from dynein.runtime.backoff import pause_s

ResultT = TypeVar("ResultT")
NOTHING_WAS_ACCEPTED = frozenset({"draining", "not-ready", "overloaded", "throttled"})
"""Problems with which the API says that a repeat cannot deliver twice."""
NOT_YET = frozenset({"not-stored-yet"})
"""A refusal that time mends."""
_FIRST_PAUSE_S = 0.05
_PAUSE_MAX_S = 2.0
_QUOTED_BYTES = 200


class Call(NamedTuple):
    """A request. ``repeatable``: done twice, it comes to the same."""

    method: str
    path: str
    body: bytes | None = None
    repeatable: bool = True


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: bytes
    retry_after_s: float = 0.0
    request_id: str | None = None


class NoAnswer(NamedTuple):
    """``sent``: the request may have reached somebody."""

    sent: bool
    why: str


class Pause(NamedTuple):
    """Time to let pass."""

    seconds: float


Steps = Generator[Call | Pause, Answer | NoAnswer | None, ResultT]
"""What a driver drives."""


def drive(steps: Steps[ResultT], send: Callable[[Call], Answer | NoAnswer], sleep: Callable[[float], None]) -> ResultT:
    """The driver for those that wait; `dynein.client.asynchronous` has the other."""
    reply: Answer | NoAnswer | None = None
    while True:
        try:
            step = steps.send(reply)
        except StopIteration as end:
            result: ResultT = end.value
            return result
        if isinstance(step, Pause):
            sleep(step.seconds)
            reply = None
        else:
            reply = send(step)


class Patience:
    """How long to go on trying, and how long to pause before the next try."""

    def __init__(self, seconds: float, monotonic: Callable[[], float], rng: random.Random) -> None:
        self._until = monotonic() + seconds
        self._monotonic = monotonic
        self._rng = rng
        self._failures = 0

    def pause(self, at_least_s: float) -> Pause | None:
        """``None``: it has ended."""
        self._failures += 1
        backoff_s = pause_s(self._failures, first_s=_FIRST_PAUSE_S, max_s=_PAUSE_MAX_S, rng=self._rng)
        seconds = max(at_least_s, backoff_s)
        return Pause(seconds) if self._monotonic() + seconds < self._until else None


class Problem(msgspec.Struct, frozen=True):
    """A problem document of the API."""

    code: str
    detail: str
    status: int
    field: str | None = None
    fix: str | None = None
    moved_to: str | None = None

    def error(self, request_id: str | None) -> ClientError:
        """What to raise for it."""
        if self.code in NOTHING_WAS_ACCEPTED:
            return NotDone(self.detail, request_id=request_id)
        if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return Unanswered(self.detail, request_id=request_id)
        return Refused(
            self.detail,
            status=self.status,
            code=self.code,
            field=self.field,
            fix=self.fix,
            moved_to=self.moved_to,
            request_id=request_id,
        )


def exchange(call: Call, patience: Patience) -> Steps[Answer]:
    """The answer, once there is one that says yes. Raises what the last try came to."""
    while True:
        answer = yield call
        assert isinstance(answer, Answer | NoAnswer)
        error, retry_after_s = _judge(answer)
        if error is None:
            assert isinstance(answer, Answer)
            return answer
        if not worth_repeating(error, repeatable=call.repeatable):
            raise error
        pause = patience.pause(retry_after_s)
        if pause is None:
            raise error
        yield pause


def worth_repeating(error: ClientError, *, repeatable: bool) -> bool:
    """May, and should, what came to this be tried again? ``repeatable``: done twice, it comes to the same."""
    if isinstance(error, Refused):
        return error.code in NOT_YET
    return repeatable or isinstance(error, NotDone)


def read(answer: Answer, expected: type[ResultT]) -> ResultT:
    """What a successful answer says. Raises `Refused` when it is not what Dynein would say."""
    try:
        return msgspec.json.decode(answer.body, type=expected)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problem = _not_dynein(answer)
        raise problem.error(answer.request_id) from error


def _judge(answer: Answer | NoAnswer) -> tuple[ClientError | None, float]:
    """What is wrong with it, and how long to leave the API alone."""
    if isinstance(answer, NoAnswer):
        return (Unanswered(answer.why) if answer.sent else NotDone(answer.why)), 0.0
    if answer.status < HTTPStatus.MULTIPLE_CHOICES:
        return None, 0.0
    return _problem(answer).error(answer.request_id), answer.retry_after_s


def _problem(answer: Answer) -> Problem:
    """Its problem document; one made up where somebody else answers, such as a load balancer."""
    try:
        return msgspec.json.decode(answer.body, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _not_dynein(answer)


def _not_dynein(answer: Answer) -> Problem:
    said = answer.body[:_QUOTED_BYTES].decode(errors="replace").strip()
    detail = f"what answered with {answer.status} is not the Dynein API, but perhaps something before it: {said}"
    return Problem(f"http-{answer.status}", detail, answer.status)
