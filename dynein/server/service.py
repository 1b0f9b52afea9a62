"""One process of the service, from its settings: connected to AWS, assembled, served over HTTP, run until it is
stopped.

Any subset of the three roles runs in one process. Every process also serves ``/healthz``, ``/readyz`` and ``/metrics``:
on a port of their own (``ops_port``), until its last moment, or on the API's.

Stopping, in order: ``/readyz`` fails while the API still accepts jobs for ``linger_s`` (load balancers need a moment to
notice); then the API rejects new submissions with 503, finishes those under way and closes its port. Ingester and
dispatcher drain concurrently, from the first moment. When all have drained, or after ``drain_s``, the last counts are
posted to the ledger, and the process ends.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import secrets
import socket
from collections.abc import Sequence
from functools import partial

from dynein import __version__
from dynein.api.app import create_app
from dynein.api.health import Lifecycle, Readiness
from dynein.aws.clients import Clients, clients
from dynein.aws.dynamodb.layout import verify_layout
from dynein.aws.ports import aws_ports, aws_table
from dynein.ledger.process import tally_by
from dynein.observability.events.process import PROCESS_STARTED, START_DELAYED
from dynein.observability.telemetry import Telemetry
from dynein.observability.tracing import Tracing
from dynein.runtime.clock import Clock, SystemClock
from dynein.runtime.context import Context
from dynein.runtime.retry import Backoff, Retry
from dynein.server.assembly import API, Assembly, find_deployment, open_tracing
from dynein.server.http_agent import HttpAgent, Sharing, WithoutApi, serving_ops
from dynein.server.listener import Listeners, open_listeners
from dynein.server.load_gate import LoadGate
from dynein.settings import Settings

START_TRIES_MAX = 5
"""Attempts of the first calls. AWS may be slow or throttle at that moment, and a process that gave up would only be
started again. Yet few enough to report a wrong address or region soon: after some 5 s where the connection is
refused."""
_START_BACKOFF = Backoff(first_s=0.5, max_s=4.0)


class Service:
    """One process. ``bind`` may be called before ``run``, so that a port in use is reported before anything starts.

    ``listeners``: the ports, if they are open already. ``sharing``: they are shared with other workers.
    """

    def __init__(
        self,
        settings: Settings,
        roles: Sequence[str],
        *,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
        listeners: Listeners | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        settings.require_secrets("by every role, to sign job tokens and what Dynein writes to its own queues")
        self._settings = settings
        self._roles = roles
        self._listeners = listeners
        self._sharing = sharing
        self.telemetry = telemetry or Telemetry()
        rng = random.Random()  # noqa: S311 - jitter, not secrecy
        self._context = Context(clock or SystemClock(), rng, self.telemetry, tally_by(settings))
        self.http: HttpAgent | None = None
        """The API's HTTP server, once there is one."""
        self.started = asyncio.Event()
        """Set once all ports serve requests."""

    def bind(self) -> None:
        """Open the ports. Raises `FatalError` when one is in use."""
        self._listeners = open_listeners(self._settings, self._roles)

    @property
    def listeners(self) -> Listeners:
        """The ports, once bound."""
        assert self._listeners is not None, "bind first"
        return self._listeners

    async def run(self, stopping: asyncio.Event) -> None:
        """Serve until ``stopping`` is set, then drain. Raises `FatalError` when operator action is required."""
        if self._listeners is None:
            self.bind()
        tracing = open_tracing(self._settings)
        try:
            async with clients(self._settings, self._context.clock, self.telemetry) as aws:
                assembly = await self._assemble(aws, tracing)
                lifecycle = Lifecycle()
                readiness = self._readiness(assembly, lifecycle)
                self.http = self._http_agent(assembly, readiness, lifecycle, tracing)
                ops = partial(create_app, None, readiness, lifecycle, self.telemetry, self._settings)
                self.telemetry.measure_process()
                _collect_garbage_seldom()
                url, ops_url = self.listeners.url, self.listeners.ops_url
                PROCESS_STARTED.log(version=__version__, roles=",".join(self._roles), url=url, ops_url=ops_url)
                async with serving_ops(ops, self.listeners.ops, self._context.clock):
                    await assembly.run(stopping, self.http or WithoutApi(lifecycle, self.started))
        finally:
            if tracing is not None:
                tracing.close()

    async def _assemble(self, aws: Clients, tracing: Tracing | None) -> Assembly:
        settings, context = self._settings, self._context
        retry = Retry(context.clock, context.rng, _START_BACKOFF, failed=_log_delay, tries_max=START_TRIES_MAX)
        table = aws_table(aws, context, settings)
        layout = await retry.call("reading the layout", lambda: verify_layout(table, settings))
        ports = aws_ports(aws, table, layout, context, settings)
        deployment = await retry.call(
            "looking for the queues", lambda: find_deployment(layout, lambda _: ports, context, settings)
        )
        member = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        return Assembly(self._roles, lambda _: ports, deployment, context, settings, member=member, tracing=tracing)

    def _readiness(self, assembly: Assembly, lifecycle: Lifecycle) -> Readiness:
        ports, inbound_url = assembly.ports_of(API), assembly.deployment.inbound_url
        return Readiness(self._roles, ports.queues, ports.shards, inbound_url, self._context.clock, lifecycle)

    def _http_agent(
        self, assembly: Assembly, readiness: Readiness, lifecycle: Lifecycle, tracing: Tracing | None
    ) -> HttpAgent | None:
        if self.listeners.api is None:
            return None
        app = create_app(
            assembly.submissions,
            readiness,
            lifecycle,
            self.telemetry,
            self._settings,
            tracing,
            serves_ops=self.listeners.ops is None,
        )
        return HttpAgent(
            app,
            lifecycle,
            self.listeners.api,
            self._context.clock,
            self._settings,
            sharing=self._sharing,
            gate=LoadGate(self._settings, self.telemetry),
            started=self.started,
        )


def _log_delay(what: str, error: Exception, failures: int, pause_s: float) -> None:  # noqa: ARG001 - a `Failed`
    START_DELAYED.log(error, what=what, retry_in_s=round(pause_s, 1))


def _collect_garbage_seldom() -> None:
    """Tens of thousands of buffered jobs are not garbage: traversing them again and again took half of the CPU.

    With CPython's defaults (700, 10, 10) every few hundred jobs read start a collection. Objects loaded until now stay
    for good, so they are excluded from collection altogether.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
