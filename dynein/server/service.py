"""The composition root: builds one process of the service from its settings and runs it until told to stop.

Any subset of the three roles runs in one process. Every process also serves ``/healthz``, ``/readyz`` and ``/metrics``.

Stopping, in order: ``/readyz`` says no, while the API still takes jobs for ``linger_s`` (load balancers need a moment
to notice); then the API answers new submissions with 503, finishes those under way and closes its port. Ingester and
dispatcher drain from the first moment, side by side with that. When all have, or after ``drain_s``, the last counts
go to the ledger, and the process ends.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

import uvicorn
from fastapi import FastAPI

from dynein import __version__
from dynein.api.app import create_app
from dynein.api.health import Lifecycle, Readiness
from dynein.api.submission import Submissions
from dynein.aws.clients import Clients, clients
from dynein.aws.dynamodb.layout import verify_layout
from dynein.aws.dynamodb.shards import DynamoRoster, DynamoShardRecords
from dynein.aws.dynamodb.triggers import DynamoTriggerStore
from dynein.aws.sqs import SqsQueues
from dynein.core.job_token import TokenSigner
from dynein.core.trigger_store import Layout
from dynein.delivery.dead_letter_queue import DeadLetterQueue
from dynein.delivery.delivery import Delivery, Limits
from dynein.delivery.destinations import Directory
from dynein.errors import InvalidSettings, NotBootstrapped, UnknownQueue
from dynein.fleet.membership import Membership
from dynein.fleet.observer import OBSERVERS_SHARD, Observer, Watched
from dynein.ingest.ingester import Ingester
from dynein.ledger.process import ProcessLedger
from dynein.observability.events.process import DRAIN_LATE, PROCESS_STARTED, PROCESS_STOPPED, PROCESS_STOPPING
from dynein.observability.telemetry import Telemetry
from dynein.observability.tracing import Tracing, open_tracing
from dynein.runtime.clock import Clock, SystemClock, sleep_unless
from dynein.runtime.periodic import run_passes
from dynein.runtime.retry import insist
from dynein.scheduler.dispatcher import Dispatcher
from dynein.server.http_server import Server, SharingServer
from dynein.server.listener import LISTEN_BACKLOG, listen, url_of
from dynein.server.workers.connections import Connections
from dynein.settings import Settings

ResultT = TypeVar("ResultT")


class Sharing(NamedTuple):
    """The port, when sibling processes serve it too."""

    listener: socket.socket
    connections: Connections
    worker: int
    """Number of this process among them."""


class Service:
    """One process. ``bind`` may be called before ``run``, so that a taken port is reported before anything starts.

    ``sharing``: the port is taken already, and shared.
    """

    def __init__(
        self,
        settings: Settings,
        roles: Sequence[str],
        *,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        if "api" in roles and not settings.secrets:
            raise InvalidSettings(
                "DYNEIN_TOKEN_SECRETS is needed by the api role: it signs job tokens. Make one with: "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))', and give every API process the same"
            )
        self._settings = settings
        self._roles = roles
        self._clock = clock or SystemClock()
        self._rng = random.Random()  # noqa: S311 - jitter, not secrecy
        self._sharing = sharing
        self._socket = sharing.listener if sharing is not None else None
        self.telemetry = telemetry or Telemetry()
        self.server: Server | None = None
        """The HTTP server, while it runs."""
        self.started = asyncio.Event()
        """Set once the port answers."""

    def bind(self) -> None:
        """Take the port. Raises `Stop` when it is in use."""
        self._socket = listen(self._settings.host, self._settings.port)

    @property
    def url(self) -> str:
        """Where the API answers, once bound."""
        assert self._socket is not None, "bind first"
        return url_of(self._socket)

    async def run(self, stopping: asyncio.Event) -> None:
        """Serve until ``stopping`` is set, then drain. Raises `Stop` when a person has to act."""
        if self._socket is None:
            self.bind()
        tracing = open_tracing(self._settings)
        try:
            async with clients(self._settings, self._clock, self.telemetry) as aws:
                layout = await self._insist(
                    "reading the layout",
                    lambda: verify_layout(aws.dynamodb, self._settings, self._clock, self.telemetry),
                )
                parts = _Parts(self._settings, aws, layout, self._clock, self.telemetry, self._rng, tracing)
                await self._insist("looking for the queues", parts.check_queues)
                self.telemetry.measure_process()
                _collect_garbage_seldom()
                await self._run_all(parts, stopping)
        finally:
            if tracing is not None:
                tracing.close()

    async def _insist(self, what: str, call: Callable[[], Awaitable[ResultT]]) -> ResultT:
        return await insist(what, call, self._clock, self._rng)

    async def _run_all(self, parts: _Parts, stopping: asyncio.Event) -> None:
        lifecycle = Lifecycle()
        submissions = parts.submissions() if "api" in self._roles else None
        readiness = Readiness(parts.queues, parts.shards, parts.inbound_url, self._clock, lifecycle)
        app = create_app(submissions, readiness, lifecycle, self.telemetry, self._settings, parts.tracing)
        work: list[Awaitable[None]] = [self._serve_http(app, lifecycle, stopping)]
        if submissions is not None:
            work.append(run_passes("layout", submissions.run_once, self._clock, stopping, self._rng))
        if "ingester" in self._roles:
            work.append(parts.ingester().run(stopping))
        dispatcher = parts.dispatcher() if "dispatcher" in self._roles else None
        if dispatcher is not None:
            work += [dispatcher.run(stopping), parts.observer(dispatcher).run(stopping)]
        PROCESS_STARTED.log(version=__version__, roles=",".join(self._roles), url=self.url)
        # One process of the fleet reads the ledger: the observer.
        async with parts.ledger.kept(is_observer=lambda: dispatcher is not None and dispatcher.owns(OBSERVERS_SHARD)):
            await self._until_drained(work, stopping)

    async def _until_drained(self, work: Sequence[Awaitable[None]], stopping: asyncio.Event) -> None:
        tasks = [asyncio.ensure_future(part) for part in work]
        watch = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait([watch, *tasks], return_when=asyncio.FIRST_COMPLETED)
            # Either we were told to stop, or one part ended by an error: then the others drain too.
            stopping.set()
            stopped_at = self._clock.monotonic()
            PROCESS_STOPPING.log(within_s=self._settings.drain_s)
            _, late = await asyncio.wait(tasks, timeout=self._settings.drain_s)
            if late:
                DRAIN_LATE.log(within_s=self._settings.drain_s)
        finally:
            watch.cancel()
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        PROCESS_STOPPED.log(took_s=round(self._clock.monotonic() - stopped_at, 3))

    async def _serve_http(self, app: FastAPI, lifecycle: Lifecycle, stopping: asyncio.Event) -> None:
        assert self._socket is not None
        config = uvicorn.Config(
            app,
            http="httptools",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=LISTEN_BACKLOG,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=int(self._settings.drain_s),
        )
        if self._sharing is not None:
            server: Server = SharingServer(config, *self._sharing)
        else:
            server = Server(config)
        self.server = server
        serving = asyncio.ensure_future(server.serve(sockets=[self._socket]))
        try:
            while not server.started and not serving.done():
                await self._clock.sleep(0.01)
            self.started.set()
            stopped = asyncio.ensure_future(stopping.wait())
            await asyncio.wait((stopped, serving), return_when=asyncio.FIRST_COMPLETED)
            lifecycle.linger()
            await sleep_unless(asyncio.Event(), self._clock, self._settings.linger_s)
            lifecycle.drain()
        finally:
            server.should_exit = True
            await serving


def _collect_garbage_seldom() -> None:
    """Tens of thousands of jobs in hand are not garbage: walking through them again and again cost half of the CPU.

    With CPython's defaults (700, 10, 10) every few hundred jobs read start a collection. What was loaded until now
    stays for good, so it is not looked at any more at all.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


class _Parts:
    """What the roles are built from; one of each a process."""

    def __init__(
        self,
        settings: Settings,
        aws: Clients,
        layout: Layout,
        clock: Clock,
        telemetry: Telemetry,
        rng: random.Random,
        tracing: Tracing | None,
    ) -> None:
        self._settings = settings
        self._layout = layout
        self._clock = clock
        self._telemetry = telemetry
        self._rng = rng
        self.tracing = tracing
        self._member = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.queues = SqsQueues(aws.sqs, telemetry)
        self.store = DynamoTriggerStore(aws.dynamodb, settings.table, clock, telemetry, layout.bucket_width_ms, rng=rng)
        self.shards = DynamoShardRecords(aws.dynamodb, settings.table, clock, telemetry, rng=rng)
        self._roster = DynamoRoster(aws.dynamodb, settings.table, clock, telemetry)
        self.ledger = ProcessLedger(settings, aws.dynamodb, self._roster, clock, telemetry, rng)
        self.directory = Directory(self.queues, clock, ttl_s=settings.destination_cache_s)
        self._dead_letters = DeadLetterQueue(
            self.queues, self.directory, settings.dead_letter_queue, message_bytes_max=settings.message_bytes_max
        )
        self.inbound_url = self.dead_letter_url = ""

    async def check_queues(self) -> None:
        """Raises `NotBootstrapped` when a queue that ``dynein bootstrap`` makes is missing."""
        urls = []
        for name in (self._settings.inbound_queue, self._settings.dead_letter_queue):
            try:
                destination = await self.directory.resolve(name)
            except UnknownQueue as error:
                raise NotBootstrapped(f"queue {name} does not exist: run `dynein bootstrap`") from error
            urls.append(destination.url)
        self.inbound_url, self.dead_letter_url = urls

    def submissions(self) -> Submissions:
        return Submissions(
            self.queues,
            self.directory,
            self.store,
            self.shards,
            TokenSigner(self._settings.secrets),
            self._clock,
            self._telemetry,
            self._settings,
            layout=self._layout,
            inbound_url=self.inbound_url,
            rng=self._rng,
            tally=self.ledger.tally,
        )

    def ingester(self) -> Ingester:
        return Ingester(
            queues=self.queues,
            store=self.store,
            shards=self.shards,
            delivery=self._delivery("ingester"),
            dead_letters=self._dead_letters,
            membership=self._membership("ingester"),
            clock=self._clock,
            telemetry=self._telemetry,
            settings=self._settings,
            rng=self._rng,
            bucket_width_ms=self._layout.bucket_width_ms,
            inbound_url=self.inbound_url,
            tally=self.ledger.tally,
        )

    def dispatcher(self) -> Dispatcher:
        return Dispatcher(
            store=self.store,
            shards=self.shards,
            membership=self._membership("dispatcher"),
            delivery=self._delivery("dispatcher"),
            dead_letters=self._dead_letters,
            clock=self._clock,
            telemetry=self._telemetry,
            settings=self._settings,
            rng=self._rng,
            bucket_width_ms=self._layout.bucket_width_ms,
            tally=self.ledger.tally,
        )

    def observer(self, dispatcher: Dispatcher) -> Observer:
        return Observer(
            dispatcher,
            self.queues,
            Watched(self.inbound_url, self.dead_letter_url),
            self.store,
            self._clock,
            self._telemetry,
            self._settings,
            self._rng,
            self._layout.bucket_width_ms,
        )

    def _membership(self, role: str) -> Membership:
        return Membership(self._roster, self._clock, role=role, member=self._member, ttl_s=self._settings.member_ttl_s)

    def _delivery(self, role: str) -> Delivery:
        settings = self._settings
        limits = Limits(
            message_bytes_max=settings.message_bytes_max,
            lane_waiting_max=settings.lane_waiting_max,
            lane_in_flight_max=settings.lane_in_flight_max,
            backoff_first_s=settings.backoff_first_s,
            backoff_max_s=settings.backoff_max_s,
            retry_budget_s=settings.retry_budget_s,
        )
        return Delivery(
            role,
            self.queues,
            self.directory,
            self._dead_letters,
            self._clock,
            self._telemetry,
            limits,
            self._rng,
            tally=self.ledger.tally,
            tracing=self.tracing,
        )
