"""One request to the API, repeated as long as that makes sense. Pure: a generator that asks its driver for I/O.

It yields a `Call`, which the driver sends over HTTP, returning a `Response` or `NoResponse`; or a `Pause`, for which
the driver sleeps. So blocking and asynchronous callers share this code.
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
NOTHING_WAS_ACCEPTED = frozenset(
    {"draining", "misconfigured", "not-ready", "not-sent", "overloaded", "rate-limited", "throttled"}
)
"""Problems after which a repeat cannot deliver a job twice: `dynein.api.problems` says so of each."""
NOT_YET = frozenset({"not-stored-yet"})
"""Refusals that end by themselves after a while."""
_FIRST_PAUSE_S = 0.05
_PAUSE_MAX_S = 2.0
_QUOTED_BYTES = 200


class Call(NamedTuple):
    """A request. ``repeatable``: done twice, it has the same effect as once."""

    method: str
    path: str
    body: bytes | None = None
    repeatable: bool = True


class Response(NamedTuple):
    """A response of the API, or of something in between."""

    status: int
    body: bytes
    retry_after_s: float = 0.0
    request_id: str | None = None


class NoResponse(NamedTuple):
    """``sent``: the request may have reached the API."""

    sent: bool
    why: str


class Pause(NamedTuple):
    """Seconds to sleep."""

    seconds: float


Steps = Generator[Call | Pause, Response | NoResponse | None, ResultT]
"""What a driver runs."""


def drive(
    steps: Steps[ResultT], send: Callable[[Call], Response | NoResponse], sleep: Callable[[float], None]
) -> ResultT:
    """The driver for blocking callers; `dynein.client.asynchronous` has the other."""
    reply: Response | NoResponse | None = None
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
        """The next pause, or ``None`` when the time is up."""
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
        """The error to raise for it."""
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


def exchange(call: Call, patience: Patience) -> Steps[Response]:
    """The response of the first try that succeeds. Raises the error of the last try if none does."""
    while True:
        response = yield call
        assert isinstance(response, Response | NoResponse)
        error, retry_after_s = _error_in(response)
        if error is None:
            assert isinstance(response, Response)
            return response
        if not worth_repeating(error, repeatable=call.repeatable):
            raise error
        pause = patience.pause(retry_after_s)
        if pause is None:
            raise error
        yield pause


def worth_repeating(error: ClientError, *, repeatable: bool) -> bool:
    """May, and should, a call that ended with ``error`` be tried again? ``repeatable``: as in `Call`."""
    if isinstance(error, Refused):
        return error.code in NOT_YET
    return repeatable or isinstance(error, NotDone)


def read(response: Response, expected: type[ResultT]) -> ResultT:
    """The content of a successful response. Raises `Refused` when it is not one of the Dynein API."""
    try:
        return msgspec.json.decode(response.body, type=expected)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problem = _not_dynein(response)
        raise problem.error(response.request_id) from error


def _error_in(response: Response | NoResponse) -> tuple[ClientError | None, float]:
    """The error in it, if any, and the seconds to pause at least before another try."""
    if isinstance(response, NoResponse):
        return (Unanswered(response.why) if response.sent else NotDone(response.why)), 0.0
    if response.status < HTTPStatus.MULTIPLE_CHOICES:
        return None, 0.0
    return _problem(response).error(response.request_id), response.retry_after_s


def _problem(response: Response) -> Problem:
    """Its problem document; a made-up one if something else responded, such as a load balancer."""
    try:
        return msgspec.json.decode(response.body, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _not_dynein(response)


def _not_dynein(response: Response) -> Problem:
    quoted = response.body[:_QUOTED_BYTES].decode(errors="replace").strip()
    detail = f"the response with status {response.status} is not from the Dynein API, perhaps from a proxy: {quoted}"
    return Problem(f"http-{response.status}", detail, response.status)
