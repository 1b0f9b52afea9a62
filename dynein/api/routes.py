"""The endpoints: bytes in, a call of `Submissions`, bytes out. `openapi` documents what they promise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dynein.api.body_limits import BodyLimit, BodyLimits
from dynein.api.caller import Caller, caller_of
from dynein.api.decoding import decode_batch, decode_job, decode_move, decode_prepare
from dynein.api.health import Lifecycle
from dynein.api.intake import Intake
from dynein.api.problems import CATALOGUE, Draining, UnsupportedHeader, headers_of, problem_of
from dynein.api.schemas import Accepted, BatchAnswer, BatchItem, JobRequest
from dynein.api.submission import Submissions
from dynein.errors import DyneinError, Retryable, as_result
from dynein.runtime.time_slices import TimeSlices
from dynein.settings import Settings

_IDEMPOTENCY_HEADERS = ("Idempotency-Key", "X-Idempotency-Key")
_ENCODER = msgspec.json.Encoder()


def job_routes(submissions: Submissions, lifecycle: Lifecycle, settings: Settings) -> list[Route]:
    """The API's own routes.

    Plain Starlette routes: FastAPI's own add some 100 µs of CPU to a request (measured), twice our own work on it.
    """
    intake = Intake(settings.request_bytes_max, submissions.clock)
    limits = BodyLimits.of(settings)

    async def submit(request: Request) -> Response:
        _check_accepting(lifecycle)
        caller = caller_of(request.scope)
        _check_headers(request)
        async with intake.body(request, limits.job) as raw:
            try:
                job = decode_job(raw)
            except DyneinError as error:
                submissions.count_refused(error, caller)
                raise
            accepted = await submissions.accept(job, caller)
        return _response(202, accepted, {"location": f"/v1/jobs/{accepted.token}"})

    async def submit_batch(request: Request) -> Response:
        _check_accepting(lifecycle)
        _check_headers(request)
        async with intake.body(request, limits.batch) as raw:
            items = decode_batch(raw, settings.batch_jobs_max)
            outcomes = await _accept_batch(submissions, items, limits.job, caller_of(request.scope))
        return _batch_response(outcomes)

    async def prepare(request: Request) -> Response:
        _check_accepting(lifecycle)
        async with intake.body(request, limits.time) as raw:
            prepared = await submissions.prepare(decode_prepare(raw))
        return _response(200, prepared)

    async def get(request: Request) -> Response:
        return _response(200, await submissions.get(_token(request)))

    async def cancel(request: Request) -> Response:
        return _response(200, await submissions.cancel(_token(request), caller_of(request.scope)))

    async def move(request: Request) -> Response:
        token = _token(request)
        _check_headers(request)
        async with intake.body(request, limits.time) as raw:
            change = decode_move(raw)
            moved = await submissions.move(token, change, caller_of(request.scope))
        return _response(200, moved, {"location": f"/v1/jobs/{moved.token}"})

    return [
        Route("/v1/jobs", submit, methods=["POST"]),
        Route("/v1/jobs/batch", submit_batch, methods=["POST"]),
        Route("/v1/tokens", prepare, methods=["POST"]),
        Route("/v1/jobs/{token}", get, methods=["GET"]),
        Route("/v1/jobs/{token}", cancel, methods=["DELETE"]),
        Route("/v1/jobs/{token}", move, methods=["PATCH"]),
        Route("/problems/{code}", _explain_problem, methods=["GET"]),
    ]


def _token(request: Request) -> str:
    """The token in the path. ``batch`` is none: that path has a method of its own, and no other."""
    token: str = request.path_params["token"]
    if token == "batch":
        raise HTTPException(405)
    return token


def _check_headers(request: Request) -> None:
    """A caller who sends a header that makes repeats safe elsewhere must not find out later that it did nothing."""
    for name in _IDEMPOTENCY_HEADERS:
        if name in request.headers:
            raise UnsupportedHeader(name)


async def _explain_problem(request: Request) -> Response:
    """What a problem type means, for people who follow the ``type`` of a problem document."""
    kind = CATALOGUE.get(request.path_params["code"])
    if kind is None:
        raise HTTPException(404)
    return PlainTextResponse(f"{kind.title} ({kind.status})\n\n{kind.meaning}\n")


async def _accept_batch(
    submissions: Submissions, items: Sequence[bytes | msgspec.Raw], limit: BodyLimit, caller: Caller
) -> list[Accepted | DyneinError]:
    """The outcome of each job, those included that could not be decoded."""
    slices = TimeSlices(submissions.clock)
    outcomes: list[Accepted | DyneinError | None] = []
    decoded: list[JobRequest] = []
    for item in items:
        await slices.give_way()
        try:
            limit.check(memoryview(item).nbytes)
            decoded.append(decode_job(item))
        except DyneinError as error:
            submissions.count_refused(error, caller)
            outcomes.append(as_result(error))
        else:
            outcomes.append(None)
    accepted = iter(await submissions.accept_many(decoded, caller))
    return [next(accepted) if outcome is None else outcome for outcome in outcomes]


def _batch_response(outcomes: Sequence[Accepted | DyneinError]) -> Response:
    results: list[BatchItem] = []
    accepted = 0
    headers: dict[str, str] = {}
    for i, outcome in enumerate(outcomes):
        if isinstance(outcome, DyneinError):
            problem = problem_of(outcome, f"/v1/jobs/batch#/jobs/{i}")
            results.append(BatchItem(problem.status, problem=problem))
            if isinstance(outcome, Retryable):
                headers.update(headers_of(outcome))
        else:
            accepted += 1
            results.append(
                BatchItem(202, outcome.token, outcome.policy, outcome.due_at, outcome.due_at_ms, outcome.warnings)
            )
    return _response(200, BatchAnswer(accepted, len(results) - accepted, results), headers)


def _check_accepting(lifecycle: Lifecycle) -> None:
    if lifecycle.draining:
        raise Draining("This process is shutting down; nothing was accepted.")


def _response(status: int, content: Any, headers: dict[str, str] | None = None) -> Response:  # noqa: ANN401 - any struct
    return Response(_ENCODER.encode(content), status, headers=headers, media_type="application/json")
