"""A function for each operation of a client, as steps for a driver. Pure: see `dynein.client.exchange`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from urllib.parse import quote

import msgspec

from dynein.client.errors import ClientError
from dynein.client.exchange import Call, Patience, Pause, Problem, Response, Steps, exchange, read, worth_repeating
from dynein.client.jobs import Accepted, Delay, Job, JobWarning, Moved, Prepared, Status, When, encode_job, encode_when
from dynein.core.job import Policy

BATCH_JOBS_MAX = 1000
"""The API's default of ``batch_jobs_max``."""
BATCH_BYTES_MAX = 8 * 1024 * 1024
"""Half of the API's default of ``request_bytes_max``."""
NewPatience = Callable[[], Patience]
Outcome = Accepted | ClientError
"""The outcome of one job of many; an error is the one that would be raised for that job alone."""


class _BatchItem(msgspec.Struct):
    status: int
    token: str = ""
    policy: str = ""
    due_at_ms: int = 0
    warnings: tuple[JobWarning, ...] = ()
    problem: Problem | None = None


class _Batch(msgspec.Struct):
    results: list[_BatchItem]


def prepare(
    new_patience: NewPatience,
    run_at: When | None,
    delay: Delay | None,
    timezone: str | None = None,
    group: tuple[str, str] | None = None,
) -> Steps[Prepared]:
    """A token for a job that is yet to be submitted. ``group``: its FIFO queue and message group, if it has one."""
    fields = encode_when(run_at, delay, timezone)
    if group is not None:
        fields |= {"queue": group[0], "message_group_id": group[1]}
    call = Call("POST", "/v1/tokens", msgspec.json.encode(fields))
    response = yield from exchange(call, new_patience())
    return read(response, Prepared)


def submit(new_patience: NewPatience, job: Job, *, once: bool) -> Steps[Accepted]:
    """One job. ``once``: with a token taken first."""
    if once and job.token is None:
        group = (job.queue, job.message_group_id) if job.message_group_id is not None else None
        prepared = yield from prepare(new_patience, job.run_at, job.delay, job.timezone, group)
        job = dataclasses.replace(job, token=prepared.token, run_at=None, timezone=None, delay=None)
    call = Call("POST", "/v1/jobs", encode_job(job), repeatable=job.token is not None)
    response = yield from exchange(call, new_patience())
    return read(response, Accepted)


def get(new_patience: NewPatience, token: str) -> Steps[Status]:
    """The state of a job."""
    response = yield from exchange(Call("GET", _path(token)), new_patience())
    return read(response, Status)


def cancel(new_patience: NewPatience, token: str) -> Steps[None]:
    """Keep a job from being delivered."""
    yield from exchange(Call("DELETE", _path(token)), new_patience())


def move(
    new_patience: NewPatience, token: str, run_at: When | None, delay: Delay | None, timezone: str | None = None
) -> Steps[Moved]:
    """Give a job another due time. With a delay a repeat would ask for another time: it is not repeated if in doubt."""
    body = msgspec.json.encode(encode_when(run_at, delay, timezone))
    call = Call("PATCH", _path(token), body, repeatable=delay is None)
    response = yield from exchange(call, new_patience())
    return read(response, Moved)


def submit_many(new_patience: NewPatience, jobs: Sequence[Job]) -> Steps[list[Outcome]]:
    """Many jobs, in as few requests as possible; jobs that were turned away temporarily are sent again."""
    encoded = [encode_job(job) for job in jobs]
    sizes_bytes = [len(job) for job in encoded]
    repeatable = [job.token is not None for job in jobs]
    outcomes: dict[int, Outcome] = {}
    patience = new_patience()
    waiting = list(range(len(jobs)))
    while waiting:
        for numbers in batches(waiting, sizes_bytes):
            body = b'{"jobs":[' + b",".join(encoded[n] for n in numbers) + b"]}"
            call = Call("POST", "/v1/jobs/batch", body, repeatable=all(repeatable[n] for n in numbers))
            batch_outcomes = yield from _submit_batch(call, len(numbers), patience)
            outcomes.update(zip(numbers, batch_outcomes, strict=True))
        waiting = [n for n in waiting if _worth_repeating(outcomes[n], repeatable=repeatable[n])]
        pause: Pause | None = patience.pause(0.0) if waiting else None
        if pause is None:
            break
        yield pause
    return [outcomes[n] for n in range(len(jobs))]


def batches(numbers: Sequence[int], sizes_bytes: Sequence[int]) -> Iterator[list[int]]:
    """``numbers`` of jobs, cut where the API's bounds are reached."""
    batch: list[int] = []
    size_bytes = 0
    for number in numbers:
        job_bytes = sizes_bytes[number] + 1
        if batch and (len(batch) == BATCH_JOBS_MAX or size_bytes + job_bytes > BATCH_BYTES_MAX):
            yield batch
            batch, size_bytes = [], 0
        batch.append(number)
        size_bytes += job_bytes
    if batch:
        yield batch


def _submit_batch(call: Call, jobs: int, patience: Patience) -> Steps[list[Outcome]]:
    try:
        response = yield from exchange(call, patience)
        results = read(response, _Batch).results
    except ClientError as error:
        return [error] * jobs
    return [_outcome(item, response) for item in results]


def _outcome(item: _BatchItem, response: Response) -> Outcome:
    if item.status < HTTPStatus.BAD_REQUEST:
        return Accepted(item.token, item.due_at_ms, Policy(item.policy), item.warnings)
    assert item.problem is not None, item
    return item.problem.error(response.request_id)


def _worth_repeating(outcome: Outcome, *, repeatable: bool) -> bool:
    return isinstance(outcome, ClientError) and worth_repeating(outcome, repeatable=repeatable)


def _path(token: str) -> str:
    return f"/v1/jobs/{quote(token, safe='')}"
