"""Probes and metrics: what every process serves, whatever its roles."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from enum import Enum
from typing import NamedTuple

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dynein.api.problems import make, respond
from dynein.core.queues import Queues
from dynein.core.shard_records import ShardRecords
from dynein.errors import DyneinError, NotBootstrapped, Retryable, as_result
from dynein.observability.telemetry import Telemetry
from dynein.runtime.clock import Clock

READINESS_TTL_S = 2.0
"""How long a result of `Readiness` is reused, so that frequent probes cost little."""


class Phase(Enum):
    """A phase of a process's life."""

    SERVING = "serving"
    LINGERING = "lingering"
    """Not ready any more, but still accepting jobs, until load balancers have noticed."""
    DRAINING = "draining"
    """Accepts no new jobs; finishes those it has."""


_NEXT = {
    Phase.SERVING: frozenset({Phase.LINGERING, Phase.DRAINING}),
    Phase.LINGERING: frozenset({Phase.DRAINING}),
    Phase.DRAINING: frozenset[Phase](),
}


class Lifecycle:
    """The phase of a process. It only goes forward."""

    def __init__(self) -> None:
        self.phase = Phase.SERVING

    @property
    def ready(self) -> bool:
        """Should new requests be sent here?"""
        return self.phase is Phase.SERVING

    @property
    def draining(self) -> bool:
        """Are new jobs refused?"""
        return self.phase is Phase.DRAINING

    def linger(self) -> None:
        """Become not ready, and go on."""
        self._go(Phase.LINGERING)

    def drain(self) -> None:
        """Refuse new jobs."""
        self._go(Phase.DRAINING)

    def _go(self, phase: Phase) -> None:
        assert phase in _NEXT[self.phase], (self.phase, phase)
        self.phase = phase


SQS, DYNAMODB = "SQS", "DynamoDB"
_NEEDED_BY = {"api": frozenset({SQS}), "ingester": frozenset({SQS, DYNAMODB}), "dispatcher": frozenset({SQS, DYNAMODB})}
"""What a role cannot do without. The API accepts jobs while the table is down; only looking up, cancelling and moving
them has to wait."""


class Health(NamedTuple):
    """What `Readiness` found. Both are lists of sentences."""

    not_ready: list[str]
    """Why no requests should be sent here; empty: they should."""
    unreachable: list[str]
    """What cannot be reached, though the process is ready all the same."""


class Readiness:
    """Can this process do its work? Call it to find out.

    It is ready once it has reached what its roles need, and stays so through an outage: if all processes became not
    ready, their callers would find no endpoint at all, in place of a 503 that says when to try again. What an operator
    has to put right (permissions, a queue that is gone) makes it not ready at any time.
    """

    def __init__(
        self,
        roles: Collection[str],
        queues: Queues,
        shards: ShardRecords,
        inbound_url: str,
        clock: Clock,
        lifecycle: Lifecycle,
    ) -> None:
        self._needed = frozenset[str]().union(*(_NEEDED_BY[role] for role in roles))
        self._queues = queues
        self._shards = shards
        self._inbound_url = inbound_url
        self._clock = clock
        self._lifecycle = lifecycle
        self._checking = asyncio.Lock()
        self._reached: set[str] = set()
        """What has been reached before."""
        self._health = Health([], [])
        self._valid_until = float("-inf")

    async def __call__(self) -> Health:
        """Concurrent probes share one check, whose result is kept for `READINESS_TTL_S`."""
        if not self._lifecycle.ready:
            return Health(["shutting down"], [])
        async with self._checking:
            if self._clock.monotonic() >= self._valid_until:
                self._health = await self._check()
                self._valid_until = self._clock.monotonic() + READINESS_TTL_S
            return self._health

    async def _check(self) -> Health:
        checks = {SQS: self._reach_sqs(), DYNAMODB: self._reach_table()}
        errors = dict(zip(checks, await asyncio.gather(*map(_error_of, checks.values())), strict=True))
        self._reached.update(service for service, error in errors.items() if error is None)
        health = Health([], [])
        for service, error in errors.items():
            if error is not None:
                passes = isinstance(error, Retryable) and service in self._reached
                ready = passes or service not in self._needed
                (health.unreachable if ready else health.not_ready).append(f"{service}: {error}")
        return health

    async def _reach_sqs(self) -> None:
        await self._queues.depth(self._inbound_url)

    async def _reach_table(self) -> None:
        if await self._shards.layout() is None:
            raise NotBootstrapped("the table has no layout; run `dynein bootstrap`")


async def _error_of(check: Awaitable[None]) -> DyneinError | None:
    try:
        await check
    except DyneinError as error:
        return as_result(error)
    return None


def health_routes(readiness: Callable[[], Awaitable[Health]], telemetry: Telemetry) -> list[Route]:
    """``/healthz``, ``/readyz`` and ``/metrics``."""

    async def healthz(_: Request) -> Response:
        return Response(b'{"status":"alive"}', media_type="application/json")

    async def readyz(request: Request) -> Response:
        health = await readiness()
        if health.not_ready:
            return respond(make("not-ready", "; ".join(health.not_ready), request.url.path), {"retry-after": "1"})
        found = {"status": "ready", **({"unreachable": health.unreachable} if health.unreachable else {})}
        return Response(msgspec.json.encode(found), media_type="application/json")

    async def metrics(_: Request) -> Response:
        return Response(telemetry.exposition(), headers={"content-type": CONTENT_TYPE_LATEST})

    return [
        Route("/healthz", healthz, methods=["GET"]),
        Route("/readyz", readyz, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]
