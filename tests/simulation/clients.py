"""How users reach an API process: by its submission service directly, or by its HTTP application."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
from starlette.types import ASGIApp, Message

from dynein.api.problems import Problem
from dynein.api.schemas import (
    Accepted,
    BatchAnswer,
    CancelledJob,
    JobRequest,
    JobStatus,
    MovedJob,
    MoveRequest,
    Prepared,
    PrepareRequest,
)
from dynein.errors import Conflict, DyneinError, InvalidToken, Overloaded, Rejected, Throttled, Unavailable

AnswerT = TypeVar("AnswerT")


class Client(Protocol):
    """One API process, as its users see it; `dynein.api.submission.Submissions` is one. Errors are `dynein.errors`."""

    async def accept(self, request: JobRequest) -> Accepted:
        """Submit a job."""

    async def accept_many(self, requests: Sequence[JobRequest]) -> list[Accepted | DyneinError]:
        """Submit many."""

    async def prepare(self, request: PrepareRequest) -> Prepared:
        """Get a token."""

    async def get(self, token: str) -> JobStatus:
        """Look up a job's state."""

    async def cancel(self, token: str) -> CancelledJob:
        """Cancel it."""

    async def move(self, token: str, request: MoveRequest) -> MovedJob:
        """Move it."""


class HttpClient:
    """Calls an ASGI application, and reads its responses as a program would: by status and problem code.

    ``complain`` is called with a description of each response that no program could make sense of.
    """

    def __init__(self, app: ASGIApp, complain: Callable[[str], None]) -> None:
        self._app = app
        self._complain = complain

    async def accept(self, request: JobRequest) -> Accepted:
        return await self._ask("POST", "/v1/jobs", msgspec.json.encode(request), 202, Accepted)

    async def accept_many(self, requests: Sequence[JobRequest]) -> list[Accepted | DyneinError]:
        body = msgspec.json.encode({"jobs": requests})
        answer = await self._ask("POST", "/v1/jobs/batch", body, 200, BatchAnswer)
        outcomes: list[Accepted | DyneinError] = []
        for item in answer.results:
            if isinstance(item.problem, Problem):
                outcomes.append(self._error(item.status, item.problem))
            else:
                outcomes.append(msgspec.convert(msgspec.to_builtins(item), Accepted))
                if item.status != 202:
                    self._complain(f"a job of a batch was accepted, and its status is {item.status}")
        if [answer.accepted, answer.refused, len(outcomes)] != _counted(outcomes, len(requests)):
            self._complain(f"a batch of {len(requests)} was answered {answer.accepted} and {answer.refused}")
        return outcomes

    async def prepare(self, request: PrepareRequest) -> Prepared:
        return await self._ask("POST", "/v1/tokens", msgspec.json.encode(request), 200, Prepared)

    async def get(self, token: str) -> JobStatus:
        return await self._ask("GET", f"/v1/jobs/{token}", b"", 200, JobStatus)

    async def cancel(self, token: str) -> CancelledJob:
        return await self._ask("DELETE", f"/v1/jobs/{token}", b"", 200, CancelledJob)

    async def move(self, token: str, request: MoveRequest) -> MovedJob:
        return await self._ask("PATCH", f"/v1/jobs/{token}", msgspec.json.encode(request), 200, MovedJob)

    async def _ask(self, method: str, path: str, body: bytes, status_wanted: int, kind: type[AnswerT]) -> AnswerT:
        status, headers, answer = await self._call(method, path, body)
        if status == status_wanted:
            return msgspec.json.decode(answer, type=kind)
        if status in (429, 503) and not headers.get("retry-after", "").isdecimal():
            self._complain(f"{method} answered {status} without Retry-After")
        try:
            problem = msgspec.json.decode(answer, type=Problem)
        except msgspec.MsgspecError:
            self._complain(f"{method} answered {status}: {answer[:100]!r}")
            raise Unavailable(f"status {status}") from None
        raise self._error(status, problem)

    def _error(self, status: int, problem: Problem) -> DyneinError:
        if status != problem.status:
            self._complain(f"status {status}, and the problem says {problem.status}")
        if status == 409:
            moved_to = problem.moved_to if isinstance(problem.moved_to, str) else None
            return Conflict(problem.code, problem.detail, moved_to=moved_to)
        if status == 404:
            return InvalidToken(problem.detail)
        if status == 422:
            return Rejected(problem.detail)
        if status == 429:
            return Throttled(problem.detail)
        if status == 503:
            # Only this one leaves open whether the job was accepted.
            return (Unavailable if problem.code == "unavailable" else Overloaded)(problem.detail)
        self._complain(f"status {status} {problem.code}: {problem.detail}")
        return Unavailable(problem.detail)

    async def _call(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"x-request-id", b"simulated")],
            "client": ("user", 1),
            "server": ("api", 80),
        }
        to_receive: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        answered: list[Message] = []

        async def receive() -> Message:
            return to_receive.pop() if to_receive else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            answered.append(message)

        await self._app(scope, receive, send)
        headers = {name.decode().lower(): value.decode() for name, value in answered[0]["headers"]}
        return answered[0]["status"], headers, b"".join(message.get("body", b"") for message in answered[1:])


def _counted(outcomes: Sequence[Accepted | DyneinError], asked: int) -> list[int]:
    accepted = sum(isinstance(outcome, Accepted) for outcome in outcomes)
    return [accepted, len(outcomes) - accepted, asked]
