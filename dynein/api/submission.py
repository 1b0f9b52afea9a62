"""The API's work, without HTTP: accepts jobs, prepares tokens, and passes on what concerns `dynein.api.stored_jobs`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec import UNSET

from dynein.api.caller import ANONYMOUS, Caller
from dynein.api.destination_lookup import DestinationLookup
from dynein.api.drafting import Draft, draft
from dynein.api.due_time import format_rfc3339
from dynein.api.job_sender import JobSender
from dynein.api.key_maker import KeyMaker
from dynein.api.outcomes import Outcome, OutcomeRecorder
from dynein.api.policy import When, due_at_ms
from dynein.api.recent_deduplication import RecentDeduplication
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
from dynein.api.send_result import SendResult
from dynein.api.stored_jobs import StoredJobs
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import FifoGroup
from dynein.core.ports import Deployment, Ports
from dynein.core.queue_address import is_fifo, name_of
from dynein.core.queues import Destination
from dynein.delivery.destinations import Destinations
from dynein.errors import DyneinError, RateLimited, Unavailable, as_result
from dynein.observability.events.api import SEND_FAILED
from dynein.runtime.context import Context
from dynein.runtime.rate_limits import RateLimits
from dynein.runtime.time_slices import TimeSlices
from dynein.settings import Settings


class _Dispatched(NamedTuple):
    """A job that is being sent."""

    draft: Draft
    url: str
    """Of its destination queue."""
    sending: asyncio.Future[SendResult]


class Submissions:
    """Accepts jobs. A job is accepted once SQS has acknowledged it, and not before.

    An agent, for the sake of its `KeyMaker`. ``random_bytes`` makes job ids and create ids.
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
        self._lookup = DestinationLookup(destinations, context.clock, settings)
        self._signer = signer
        self.clock = context.clock
        self._settings = settings
        self._own_bytes_max = deployment.own_bytes_max
        self._rates = RateLimits(settings.destination_rate_per_s, settings.destination_burst_s)
        self._keys = KeyMaker(ports.shards, deployment.layout, context, random_bytes)
        self._sender = JobSender(ports.queues, destinations, deployment.inbound_url, context, settings)
        self._deduplication = RecentDeduplication()
        self._recorder = OutcomeRecorder(context)
        self._stored = StoredJobs(ports, signer, context, settings)

    async def run(self, stopping: asyncio.Event) -> None:
        """See `KeyMaker.run`. Jobs are accepted as long as `accept` is called."""
        await self._keys.run(stopping)

    async def run_once(self) -> float:
        """See `KeyMaker.run_once`."""
        return await self._keys.run_once()

    async def drained(self) -> None:
        """Return once every job has its result from SQS."""
        await self._sender.drained()

    async def accept(self, request: JobRequest, caller: Caller = ANONYMOUS) -> Accepted:
        """Accept one job. Raises `dynein.errors.Rejected` or `Retryable`."""
        (result,) = await self.accept_many([request], caller)
        if isinstance(result, DyneinError):
            raise result
        return result

    async def accept_many(
        self, requests: Sequence[JobRequest], caller: Caller = ANONYMOUS
    ) -> list[Accepted | DyneinError]:
        """Accept many jobs; the result of each, in order."""
        now_ms = self.clock.now_ms()
        destinations = await self._lookup.all([request.queue for request in requests], caller)
        slices = TimeSlices(self.clock)
        dispatched = []
        for request in requests:
            await slices.give_way()
            dispatched.append(self._dispatch(request, destinations[request.queue], now_ms, caller))
        outcomes = [
            Outcome(request, None, sent)
            if isinstance(sent, DyneinError)
            else Outcome(request, sent.draft, await self._result_of(sent))
            for request, sent in zip(requests, dispatched, strict=True)
        ]
        self._recorder.record(outcomes, caller)
        return [outcome.result for outcome in outcomes]

    async def prepare(self, request: PrepareRequest) -> Prepared:
        """A token for a job that is yet to be submitted. Nothing is stored."""
        when = When(request.run_at, request.delay, request.timezone)
        due_ms = due_at_ms(when, self.clock.now_ms(), delay_max_days=self._settings.delay_max_days)
        key = self._keys.new_key(_group(request))._replace(due_at_ms=due_ms)
        token = self._signer.sign(JobRef(TokenKind.PREPARED, key))
        return Prepared(token, format_rfc3339(due_ms), due_ms)

    async def get(self, token: str) -> JobStatus:
        """See `StoredJobs.get`."""
        return await self._stored.get(token)

    async def cancel(self, token: str, caller: Caller = ANONYMOUS) -> CancelledJob:
        """See `StoredJobs.cancel`."""
        return await self._stored.cancel(token, caller)

    async def move(self, token: str, request: MoveRequest, caller: Caller = ANONYMOUS) -> MovedJob:
        """See `StoredJobs.move`."""
        return await self._stored.move(token, request, caller)

    def count_refused(self, error: DyneinError, caller: Caller = ANONYMOUS) -> None:
        """Record a job that was refused because it could not be decoded."""
        self._recorder.record_refused(error, caller)

    def _dispatch(
        self, request: JobRequest, destination: Destination | DyneinError, now_ms: int, caller: Caller
    ) -> _Dispatched | DyneinError:
        """Check the job and begin to send it; `_result_of` waits for the result."""
        if isinstance(destination, DyneinError):
            return destination
        wait_s = self._rates.take(destination.url, 1.0, self.clock.monotonic())
        if wait_s > 0:
            limit = f"{self._rates.rate_per_s:g} jobs a second (setting destination_rate_per_s)"
            return RateLimited(f"More than {limit} are submitted to {request.queue}.", retry_after_s=wait_s)
        try:
            ready = draft(
                request,
                destination,
                now_ms,
                self._keys.new_key(_group(request)),
                self._signer,
                self._settings,
                self._own_bytes_max,
                caller.traceparent,
            )
            create_id = "" if request.token is None else self._keys.create_id()
            sending = self._sender.send(ready, destination, create_id, now_ms)
        except DyneinError as error:
            return as_result(error)
        if warnings := self._deduplication.warnings_of(destination.url, ready):
            ready = ready._replace(warnings=ready.warnings + warnings)
        return _Dispatched(ready, destination.url, sending)

    async def _result_of(self, dispatched: _Dispatched) -> Accepted | DyneinError:
        ready = dispatched.draft
        try:
            result = await dispatched.sending
        except DyneinError as error:
            result = as_result(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a response
            SEND_FAILED.log(error, token=ready.token)
            result = Unavailable("the send failed unexpectedly; the job may have been sent all the same")
        if result is not None:
            self._deduplication.forget(dispatched.url, ready)
            return result
        due_ms = ready.wanted_at_ms
        return Accepted(ready.token, ready.policy, format_rfc3339(due_ms), due_ms, ready.warnings or UNSET)


def _group(request: JobRequest | PrepareRequest) -> FifoGroup | None:
    """Whose order the job is to be in."""
    if request.queue is None or request.message_group_id is None or not is_fifo(request.queue):
        return None
    return FifoGroup(name_of(request.queue), request.message_group_id)
