"""The API's work, without HTTP: take jobs in, prepare tokens. What comes later in a job's life is in `existing`."""

from __future__ import annotations

import asyncio
import base64
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import msgspec

from dynein.api import checks, job_log
from dynein.api.caller import NOBODY, Caller
from dynein.api.drafting import Bounds, Draft, draft
from dynein.api.due_time import MS_PER_S, format_rfc3339
from dynein.api.policy import When, due_at_ms
from dynein.api.problems import problem_of
from dynein.api.schemas import (
    Accepted,
    CancelledJob,
    JobRequest,
    JobStatus,
    MovedJob,
    MoveRequest,
    Prepared,
    PrepareRequest,
)
from dynein.api.senders import Answer, Direct, DirectSender, InboundSender
from dynein.api.stored_jobs import ExistingJobs
from dynein.core.delivered_message import outgoing_message
from dynein.core.inbound_message import Entry
from dynein.core.job import Policy
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import JOB_ID_BYTES, TriggerKey, shard_of
from dynein.core.ledger import Flow
from dynein.core.ports import Deployment, Ports
from dynein.core.queues import Destination
from dynein.delivery.destinations import Destinations
from dynein.errors import AccessDenied, DyneinError, NotBootstrapped, Rejected, Unavailable, UnknownQueue
from dynein.observability.events.api import JOB_ACCEPTED, SEND_FAILED
from dynein.runtime.context import Context
from dynein.runtime.periodic import run_periodically
from dynein.settings import Settings

LAYOUT_INTERVAL_S = 10.0
"""How soon a raised shard count is noticed."""
LOOK_UPS_MAX = 16
"""Destination look-ups that one batch keeps under way."""
NEAR_MARGIN_S = 4.0
"""A job due within the ingesters' hold window plus this is near: the time an inbound message may take to be read."""
_CREATE_ID_BYTES = 8


class Submissions:
    """Takes jobs in. A job is accepted once SQS has acknowledged it, and not before.

    ``random_bytes`` makes job ids and create ids (a simulation passes a seeded source). `run_once` reads the table's
    layout anew, since the shard count may be raised while we run.
    """

    def __init__(
        self,
        ports: Ports,
        destinations: Destinations,
        signer: TokenSigner,
        deployment: Deployment,
        context: Context,
        settings: Settings,
        *,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        queues, store, shards = ports.queues, ports.triggers, ports.shards
        layout, inbound_url = deployment.layout, deployment.inbound_url
        clock, telemetry, rng, tally = context.clock, context.telemetry, context.rng, context.tally
        self._directory = directory = destinations
        self._shards = shards
        self._signer = signer
        self._clock = clock
        self._telemetry = telemetry
        self._random_bytes = random_bytes
        self._tally = tally
        self._bounds = Bounds(settings.message_bytes_max, settings.delay_max_days)
        self._near_ms = int((settings.hold_window_s + NEAR_MARGIN_S) * MS_PER_S)
        self._existing = ExistingJobs(
            store, shards, signer, clock, telemetry, delay_max_days=settings.delay_max_days, tally=tally
        )
        self._rng = rng
        self._layout = layout
        self._direct = DirectSender(
            queues,
            directory,
            clock,
            message_bytes_max=settings.message_bytes_max,
            waiting_max=settings.submit_waiting_max,
            in_flight_max=settings.submit_in_flight_max,
        )
        self._inbound = InboundSender(
            queues,
            clock,
            rng,
            url=inbound_url,
            pack_bytes_max=settings.pack_bytes_max,
            message_bytes_max=settings.message_bytes_max,
            waiting_max=settings.submit_waiting_max,
            in_flight_max=settings.submit_in_flight_max,
            retry_within_s=settings.call_timeout_s,
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Keep an eye on the layout until ``stopping`` is set. Jobs are taken as long as somebody calls."""
        await run_periodically("layout", self.run_once, self._clock, stopping, self._rng)

    async def run_once(self) -> float:
        """Read the layout; says in how many seconds to do so again. Raises `NotBootstrapped` in a table without one."""
        layout = await self._shards.layout()
        if layout is None:
            raise NotBootstrapped("the table has no layout; run `dynein bootstrap`")
        self._layout = layout
        return LAYOUT_INTERVAL_S

    async def drained(self) -> None:
        """Return once every job taken has its answer from SQS."""
        await self._direct.drained()
        await self._inbound.drained()

    async def accept(self, request: JobRequest, caller: Caller = NOBODY) -> Accepted:
        """Take one job. Raises `dynein.errors.Rejected` or `Retryable`."""
        (outcome,) = await self.accept_many([request], caller)
        if isinstance(outcome, DyneinError):
            raise outcome
        return outcome

    async def accept_many(
        self, requests: Sequence[JobRequest], caller: Caller = NOBODY
    ) -> list[Accepted | DyneinError]:
        """Take many jobs, in order; what came of each."""
        now_ms = self._clock.now_ms()
        destinations = await self._resolve([request.queue for request in requests])
        leaving = [self._leave(request, destinations[request.queue], now_ms, caller) for request in requests]
        outcomes = [
            departure if isinstance(departure, DyneinError) else await _arrive(*departure) for departure in leaving
        ]
        self._count_accepted([outcome for outcome in outcomes if isinstance(outcome, Accepted)])
        failed = [(r, o) for r, o in zip(requests, outcomes, strict=True) if isinstance(o, DyneinError)]
        for request, error in failed:
            self.count_refused(error, caller, request)
        if failed:
            job_log.turned_away((error for _, error in failed), caller)
        if caller.span is not None or JOB_ACCEPTED.enabled:
            taken = list(_taken(leaving, outcomes))
            job_log.accepted(taken, caller)
            if caller.span is not None:
                caller.span.accepted([ready.token for ready in taken], [ready.job.queue for ready in taken])
        return outcomes

    async def prepare(self, request: PrepareRequest) -> Prepared:
        """A token for a job to come. Nothing is stored."""
        when = When(request.run_at, request.delay)
        due_ms = due_at_ms(when, self._clock.now_ms(), delay_max_days=self._bounds.delay_max_days)
        key = self._new_key()._replace(due_at_ms=due_ms)
        token = self._signer.sign(JobRef(TokenKind.PREPARED, key))
        return Prepared(token, format_rfc3339(due_ms), due_ms)

    async def get(self, token: str) -> JobStatus:
        """Where a job is. Raises `dynein.errors.InvalidToken`."""
        return await self._existing.get(token)

    async def cancel(self, token: str, caller: Caller = NOBODY) -> CancelledJob:
        """Make sure that a job is not delivered. Raises `dynein.errors.Conflict` when nobody can any more."""
        return await self._existing.cancel(token, caller)

    async def move(self, token: str, request: MoveRequest, caller: Caller = NOBODY) -> MovedJob:
        """Give a scheduled job another due time. Raises `dynein.errors.Conflict` when it is past that."""
        return await self._existing.move(token, request, caller)

    def count_refused(self, error: DyneinError, caller: Caller = NOBODY, request: JobRequest | None = None) -> None:
        """Count a refused job: one refused here, or one that could not even be read."""
        self._telemetry.refused.labels(problem_of(error, "").code).inc()
        if isinstance(error, Rejected):
            queue, token = (None, None) if request is None else (request.queue, request.token)
            job_log.refused(error, caller, queue=queue, token=token)

    def _count_accepted(self, jobs: Sequence[Accepted]) -> None:
        for policy, accepted in Counter(job.policy for job in jobs).items():
            self._telemetry.accepted.labels(policy.value).inc(accepted)
        self._tally.add_all(Flow.ACCEPTED, [job.due_at_ms for job in jobs])
        # What its destination queue has acknowledged is out of our hands, delayed by SQS or not.
        self._tally.add_all(Flow.DELIVERED, [job.due_at_ms for job in jobs if job.policy is not Policy.SCHEDULED])

    async def _resolve(self, queues: Sequence[str]) -> dict[str, Destination | DyneinError]:
        """Every queue's destination, or why there is none."""
        answers: dict[str, Destination | DyneinError] = {}
        unknown = []
        for queue in dict.fromkeys(queues):
            known = self._directory.known(queue)
            if known is None:
                unknown.append(queue)
            else:
                answers[queue] = known
        for start in range(0, len(unknown), LOOK_UPS_MAX):
            some = unknown[start : start + LOOK_UPS_MAX]
            answers.update(zip(some, await asyncio.gather(*map(self._look_up, some)), strict=True))
        return answers

    async def _look_up(self, queue: str) -> Destination | DyneinError:
        try:
            checks.queue(queue)
            return await self._directory.resolve(queue)
        except AccessDenied as error:
            return UnknownQueue(queue, str(error))
        except DyneinError as error:
            return error

    def _leave(
        self, request: JobRequest, destination: Destination | DyneinError, now_ms: int, caller: Caller
    ) -> tuple[Draft, asyncio.Future[Answer]] | DyneinError:
        """Check the job and put it on its way."""
        try:
            if isinstance(destination, DyneinError):
                return destination
            ready = draft(request, destination, now_ms, self._new_key(), self._signer, self._bounds, caller.traceparent)
            if ready.policy is Policy.SCHEDULED:
                # Only creates of a prepared token may be many, and need to be told apart.
                create_id = "" if request.token is None else self._create_id()
                entry = Entry(ready.token, create_id, msgspec.Raw(ready.record))
                return ready, self._inbound.submit(entry, near=ready.due_at_ms - now_ms <= self._near_ms)
            until_ms = ready.due_at_ms if ready.policy is Policy.SQS_DELAYED else None
            message = outgoing_message(ready.job, ready.token, ready.due_at_ms, fifo=destination.fifo)
            direct = Direct(message, ready.message_bytes, until_ms, request.queue)
            return ready, self._direct.submit(destination.url, direct, fifo=destination.fifo)
        except DyneinError as error:
            return error

    def _new_key(self) -> TriggerKey:
        job_id = self._random_bytes(JOB_ID_BYTES)
        return TriggerKey(0, job_id, shard_of(job_id, self._layout.shard_count))

    def _create_id(self) -> str:
        return base64.urlsafe_b64encode(self._random_bytes(_CREATE_ID_BYTES)).rstrip(b"=").decode("ascii")


def _taken(
    leaving: Sequence[tuple[Draft, asyncio.Future[Answer]] | DyneinError], outcomes: Sequence[Accepted | DyneinError]
) -> Iterator[Draft]:
    """The drafts of what was accepted."""
    for departure, outcome in zip(leaving, outcomes, strict=True):
        if isinstance(outcome, Accepted) and not isinstance(departure, DyneinError):
            yield departure[0]


async def _arrive(ready: Draft, answered: asyncio.Future[Answer]) -> Accepted | DyneinError:
    try:
        answer = await answered
    except DyneinError as error:
        return error
    except Exception as error:  # noqa: BLE001 - the caller is told
        SEND_FAILED.log(error, token=ready.token)
        return Unavailable("the send failed unexpectedly; the job may have been sent all the same")
    if answer is not None:
        return answer
    return Accepted(ready.token, ready.policy, format_rfc3339(ready.due_at_ms), ready.due_at_ms)
