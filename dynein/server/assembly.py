"""Assembles a process from its ports: the one place where roles are wired.

``dynein serve`` passes in SQS and DynamoDB (`dynein.aws.ports`), the simulation its own engines with faults in between;
both run the same way (`Assembly.run`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Sequence

from dynein.api.submission import Submissions
from dynein.core.job_token import TokenSigner
from dynein.core.ports import Deployment, Ports
from dynein.core.seal import Seal
from dynein.core.shard_records import Layout
from dynein.delivery.dead_letter_queue import DeadLetterQueue
from dynein.delivery.delivery import Delivery
from dynein.delivery.destinations import Destinations
from dynein.errors import InvalidSettings, NotBootstrapped, UnknownQueue
from dynein.fleet.membership import Membership
from dynein.fleet.observer import OBSERVERS_SHARD, Observer
from dynein.ingest import Ingester
from dynein.ledger.process import ProcessLedger
from dynein.observability.events.process import DRAIN_LATE, PROCESS_STOPPED, PROCESS_STOPPING
from dynein.observability.tracing import Tracing
from dynein.runtime.context import Context
from dynein.runtime.tasks import Agent, run_until_drained
from dynein.scheduler import Dispatcher
from dynein.settings import Settings

API, INGESTER, DISPATCHER = "api", "ingester", "dispatcher"
DESTINATIONS, DEAD_LETTERS, OBSERVER, LEDGER = "destinations", "dead letters", "observer", "ledger"

PortsOf = Callable[[str], Ports]
"""The ports of one part of the process, by its name above. In a real process all parts have the same ports."""


# As many fields as a process has parts: this is the one place that knows them all.
class Assembly:
    """One process. The ``roles`` are built at once; `agents` are the parts that run. A role not asked for is ``None``.

    ``member`` names the process in the roster; it must be unique, over time too. ``random_bytes`` makes job ids.
    """

    def __init__(
        self,
        roles: Collection[str],
        ports_of: PortsOf,
        deployment: Deployment,
        context: Context,
        settings: Settings,
        *,
        member: str,
        tracing: Tracing | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.ports_of = ports_of
        self.deployment = deployment
        self._context = context
        self._settings = settings
        self._member = member
        self._tracing = tracing
        self._destinations = _destinations(ports_of, context, settings)
        self._dead_letters = DeadLetterQueue(
            ports_of(DEAD_LETTERS).queues,
            self._destinations,
            settings.dead_letter_queue,
            Seal(settings.secrets),
            message_bytes_max=deployment.own_bytes_max,
        )
        self.deliveries: list[Delivery] = []
        self.submissions = self._submissions(random_bytes) if API in roles else None
        self.ingester = self._ingester() if INGESTER in roles else None
        self.dispatcher = self._dispatcher() if DISPATCHER in roles else None
        self.observer = self._observer(self.dispatcher) if self.dispatcher is not None else None
        ledger_ports = ports_of(LEDGER)
        self.ledger = ProcessLedger(ledger_ports.ledger, ledger_ports.roster, context, settings)

    @property
    def agents(self) -> list[Agent]:
        """The parts that run concurrently; the ledger runs around them."""
        parts: Sequence[Agent | None] = (self.submissions, self.ingester, self.dispatcher, self.observer)
        return [part for part in parts if part is not None]

    def is_observer(self) -> bool:
        """Whether this is the one process of the fleet that measures the queues and shards, and reads the ledger."""
        return self.dispatcher is not None and self.dispatcher.owns(OBSERVERS_SHARD)

    async def run(self, stopping: asyncio.Event, *more: Agent) -> None:
        """Run the process until the end of its drain; ``more`` agents run beside its own.

        Raises `FatalError` when operator action is required. The ledger ends last: jobs are counted until then.
        """
        async with self.ledger.kept(is_observer=self.is_observer):
            drained = await run_until_drained(
                [*more, *self.agents],
                stopping,
                self._context.clock,
                drain_s=self._settings.drain_s,
                draining=lambda: PROCESS_STOPPING.log(within_s=self._settings.drain_s),
            )
            if drained.late:
                DRAIN_LATE.log(within_s=self._settings.drain_s)
            PROCESS_STOPPED.log(took_s=round(drained.took_s, 3))

    # --- the roles --------------------------------------------------------------------------------------------------

    def _submissions(self, random_bytes: Callable[[int], bytes]) -> Submissions:
        return Submissions(
            self.ports_of(API),
            self._destinations,
            TokenSigner(self._settings.secrets),
            self.deployment,
            self._context,
            self._settings,
            random_bytes=random_bytes,
        )

    def _ingester(self) -> Ingester:
        return Ingester(
            self.ports_of(INGESTER),
            self._membership(INGESTER),
            self._delivery(INGESTER),
            self._dead_letters,
            self.deployment,
            self._context,
            self._settings,
        )

    def _dispatcher(self) -> Dispatcher:
        return Dispatcher(
            self.ports_of(DISPATCHER),
            self._membership(DISPATCHER),
            self._delivery(DISPATCHER),
            self._dead_letters,
            self.deployment,
            self._context,
            self._settings,
        )

    def _observer(self, dispatcher: Dispatcher) -> Observer:
        ports = self.ports_of(OBSERVER)
        return Observer(dispatcher, ports.queues, ports.triggers, self.deployment, self._context, self._settings)

    def _membership(self, role: str) -> Membership:
        roster = self.ports_of(role).roster
        return Membership(
            roster, self._context.clock, role=role, member=self._member, ttl_s=self._settings.member_ttl_s
        )

    def _delivery(self, role: str) -> Delivery:
        queues = self.ports_of(role).queues
        delivery = Delivery(
            role,
            queues,
            self._destinations,
            self._dead_letters,
            self._context,
            self._settings,
            tracing=self._tracing,
        )
        self.deliveries.append(delivery)
        return delivery


async def find_deployment(layout: Layout, ports_of: PortsOf, context: Context, settings: Settings) -> Deployment:
    """Look up the queues that ``dynein bootstrap`` made. Raises `NotBootstrapped` when one is missing."""
    destinations = _destinations(ports_of, context, settings)
    own = []
    for name in (settings.inbound_queue, settings.dead_letter_queue):
        try:
            own.append(await destinations.resolve(name))
        except UnknownQueue as error:
            raise NotBootstrapped(f"queue {name} does not exist: run `dynein bootstrap`") from error
    inbound, dead_letters = own
    bytes_max = min(queue.message_bytes_max or settings.message_bytes_max for queue in own)
    return Deployment(layout, inbound.url, dead_letters.url, bytes_max)


def open_tracing(settings: Settings) -> Tracing | None:
    """The tracer that the settings ask for. Raises `InvalidSettings` when it is not installed."""
    if not settings.otel:
        return None
    try:
        from dynein.observability.otel import open_telemetry  # noqa: PLC0415 - an optional dependency
    except ModuleNotFoundError as error:
        raise InvalidSettings(
            f"DYNEIN_OTEL is set, but OpenTelemetry is not installed (no module {error.name}): "
            "pip install 'dynein[otel]', or unset it"
        ) from error
    return open_telemetry()


def _destinations(ports_of: PortsOf, context: Context, settings: Settings) -> Destinations:
    return Destinations(ports_of(DESTINATIONS).queues, context.clock, ttl_s=settings.destination_cache_s)
