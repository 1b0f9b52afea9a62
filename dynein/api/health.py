"""Probes and metrics: what every process serves, whatever its roles."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dynein.api.problems import make, respond
from dynein.core.queues import Queues
from dynein.core.shard_records import ShardRecords
from dynein.errors import DyneinError
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


class Readiness:
    """Can this process do its work? Call it for the reasons why not; an empty list means ready."""

    def __init__(
        self, queues: Queues, shards: ShardRecords, inbound_url: str, clock: Clock, lifecycle: Lifecycle
    ) -> None:
        self._queues = queues
        self._shards = shards
        self._inbound_url = inbound_url
        self._clock = clock
        self._lifecycle = lifecycle
        self._checking = asyncio.Lock()
        self._reasons: list[str] = []
        self._valid_until = float("-inf")

    async def __call__(self) -> list[str]:
        """The reasons. Concurrent probes share one check, whose result is kept for `READINESS_TTL_S`."""
        if not self._lifecycle.ready:
            return ["shutting down"]
        async with self._checking:
            if self._clock.monotonic() >= self._valid_until:
                checks = (_failure("SQS", self._reach_sqs()), _failure("DynamoDB", self._reach_table()))
                self._reasons = [reason for reason in await asyncio.gather(*checks) if reason is not None]
                self._valid_until = self._clock.monotonic() + READINESS_TTL_S
            return self._reasons

    async def _reach_sqs(self) -> str | None:
        await self._queues.depth(self._inbound_url)
        return None

    async def _reach_table(self) -> str | None:
        return "the table has no layout; run `dynein bootstrap`" if await self._shards.layout() is None else None


async def _failure(service: str, check: Awaitable[str | None]) -> str | None:
    try:
        reason = await check
    except DyneinError as error:
        reason = str(error) or type(error).__name__
    return None if reason is None else f"{service}: {reason}"


def health_routes(readiness: Callable[[], Awaitable[list[str]]], telemetry: Telemetry) -> list[Route]:
    """``/healthz``, ``/readyz`` and ``/metrics``."""

    async def healthz(_: Request) -> Response:
        return Response(b'{"status":"alive"}', media_type="application/json")

    async def readyz(request: Request) -> Response:
        reasons = await readiness()
        if reasons:
            return respond(make("not-ready", "; ".join(reasons), request.url.path), {"retry-after": "1"})
        return Response(b'{"status":"ready"}', media_type="application/json")

    async def metrics(_: Request) -> Response:
        return Response(telemetry.exposition(), headers={"content-type": CONTENT_TYPE_LATEST})

    return [
        Route("/healthz", healthz, methods=["GET"]),
        Route("/readyz", readyz, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]
