"""A fleet to be disturbed: real processes, a real engine, links in between, and what can be done to each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.acceptance.fleet import HANG_S, Fleet, Process, fleet, monotonic, now_ms, pause
from tests.acceptance.proxy import NO_FAULTS, LinkFaults
from tests.chaos.accounts import GONE_QUEUE, Accounts
from tests.chaos.clients import Clients, consuming
from tests.chaos.clocks import NOTICED_S, Clock
from tests.chaos.engine import QUEUES, Aws, age, open_aws
from tests.chaos.evidence import Evidence
from tests.chaos.excuses import Fault
from tests.chaos.ledger import Death
from tests.chaos.network import SERVICES, Network, network, set_faults
from tests.chaos.settings import ROLES, SETTINGS
from tests.chaos.starvation import Starvation

MOMENT_MS = 50
"""From the look at its lease to the send: what a dispatcher may be frozen in the middle of."""
STUTTER_S = 0.25
EVERYONE = frozenset(f"{role}-{number}" for role in ROLES for number in range(2))


class Started(NamedTuple):
    """A process that was started, and when it was ready."""

    name: str
    process: Process
    ready_ms: int


class Chaos:
    """The fleet. ``processes`` holds two of each role, by names like ``ingester-0``."""

    # Everything a test may do something to is one of its parts.
    def __init__(
        self, running: Fleet, links: Network, aws: Aws, evidence: Evidence, clocks: Mapping[str, Clock], seed: int
    ) -> None:
        self.fleet = running
        self.network = links
        self.aws = aws
        self.accounts = Accounts(evidence)
        self.processes: dict[str, Process] = {}
        self.started: list[Started] = []
        self.killed: list[Death] = []
        self.clocks = clocks
        self.clients = Clients(running, self.accounts, self._api_urls, queues=QUEUES, seed=seed)
        self.starvation = Starvation(self._pids)

    def _api_urls(self) -> list[str]:
        return [process.url for name, process in self.processes.items() if name.startswith("api")]

    def _pids(self) -> dict[str, int]:
        pids = {name: process.process.pid for name, process in self.processes.items()} | {"proxies": os.getpid()}
        engine = self.fleet.engine_pid
        return pids if engine is None else pids | {"engine": engine}

    @contextlib.contextmanager
    def fault(
        self,
        what: str,
        processes: Collection[str] | None,
        *,
        repeats: bool = True,
        lost: bool = True,
        ahead_ms: int = 0,
    ) -> Iterator[None]:
        """Note that something is done, from now until the block is left."""
        concerned = None if processes is None else frozenset(processes)
        from_ms = now_ms()
        try:
            yield
        finally:
            self.accounts.faults.append(
                Fault(what, concerned, from_ms, now_ms(), repeats=repeats, lost=lost, ahead_ms=ahead_ms)
            )

    # --- processes --------------------------------------------------------------------------------------------------

    async def start(self, name: str) -> None:
        """Start a process, again if it ends while the engine is out of reach, as an orchestrator would."""
        role = name.partition("-")[0]
        own = self.network.environment(name) | (self.clocks[name].environment if name in self.clocks else {})
        deadline = monotonic() + HANG_S
        while True:
            try:
                started = await self.fleet.start(role, **own)
            except AssertionError:
                if monotonic() > deadline:
                    raise
            else:
                self.processes[name] = started
                self.started.append(Started(name, started, now_ms()))
                return

    async def kill(self, name: str) -> None:
        """SIGKILL, and start its successor."""
        role = name.partition("-")[0]
        # A dead API process sends nothing; whoever repeats a create to another needs a prepared token.
        with self.fault(f"SIGKILL {role}", {name}, repeats=role != "api"):
            killed = self.processes.pop(name)
            killed.signal(signal.SIGKILL)
            assert await killed.wait() == -signal.SIGKILL, killed.log.read_text()
        self.killed.append(Death(name, now_ms()))
        with self.fault(f"no {role}", {name}, repeats=False):
            await self.start(name)

    async def freeze(self, name: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        process, role = self.processes[name], name.partition("-")[0]
        from_ms = now_ms()
        process.signal(signal.SIGSTOP)
        strikes_ms = now_ms() - from_ms + MOMENT_MS
        try:
            await pause(seconds)
        finally:
            process.signal(signal.SIGCONT)
            frozen = Fault(f"SIGSTOP {role}", frozenset({name}), from_ms, now_ms(), strikes_ms=strikes_ms)
            self.accounts.faults.append(frozen)

    async def restart(self, name: str) -> None:
        """SIGTERM, and start its successor. It gives back what it has, so nobody has to wait for it to expire."""
        with self.fault(f"SIGTERM {name.partition('-')[0]}", {name}, repeats=False, lost=False):
            old = self.processes.pop(name)
            assert await old.terminate() == 0, old.log.read_text()
            await self.start(name)

    async def clock(self, name: str, ahead_s: float, seconds: float) -> None:
        """The wall clock of a process is set forward, or back, for a while."""
        ahead_ms = round(ahead_s * 1000)
        with self.fault(
            f"clock {'ahead' if ahead_s > 0 else 'behind'}", {name}, repeats=False, lost=False, ahead_ms=ahead_ms
        ):
            self.clocks[name].set(ahead_ms)
            try:
                await pause(seconds)
            finally:
                self.clocks[name].set(0)
                await pause(2 * NOTICED_S)

    # --- engine -----------------------------------------------------------------------------------------------------

    async def engine_restart(self, *, kill: bool, down_s: float) -> None:
        """Stop the engine or kill it, and start it again on the same data and port."""
        with self.fault("engine killed" if kill else "engine stopped", None):
            await self.fleet.stop_engine(kill=kill)
            await pause(down_s)
            await self.fleet.start_engine()

    async def engine_freeze(self, seconds: float) -> None:
        """The engine does nothing: connections are accepted by the kernel, and nobody answers."""
        with self.fault("engine frozen", None), self._engine_stopped():
            await pause(seconds)

    async def engine_slow(self, seconds: float) -> None:
        """The engine works a quarter of the time, as on a disk that makes it wait: every call is slow, and none fails.

        Calls that take part of a second are no reason to repeat anything: this excuses no duplicate.
        """
        deadline = monotonic() + seconds
        with self.fault("slow engine", None, repeats=False, lost=False):
            while monotonic() < deadline:
                with self._engine_stopped():
                    await pause(STUTTER_S)
                await pause(STUTTER_S / 3)

    @contextlib.contextmanager
    def _engine_stopped(self) -> Iterator[None]:
        pid = self.fleet.engine_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    async def disk_full(self, seconds: float) -> None:
        """No write to the engine's files succeeds; reads do.

        The kernel refuses every write past ``RLIMIT_FSIZE``. The engine answers 500 to whatever writes, a receive
        included, as it does on a file system without room (tried with a tmpfs of 4 MB), and goes on reading. That it
        ignores SIGXFSZ it has from the Python that becomes it.
        """
        pid = self.fleet.engine_pid
        assert pid is not None
        soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        with self.fault("disk full", None):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
            try:
                await pause(seconds)
            finally:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))

    # --- network ----------------------------------------------------------------------------------------------------

    async def link_faults(
        self,
        what: str,
        faults: LinkFaults,
        seconds: float,
        *,
        processes: Collection[str] = EVERYONE,
        services: Iterable[str] = SERVICES,
        repeats: bool = True,
    ) -> None:
        """Interfere for a while with what passes between these processes and services."""
        links = self.network.links(processes, services)
        with self.fault(what, processes, repeats=repeats):
            set_faults(links, faults)
            try:
                await pause(seconds)
            finally:
                set_faults(links, NO_FAULTS)

    async def reset_all(self) -> None:
        """RST on every connection at once."""
        with self.fault("all connections reset", None):
            for link in self.network.links(EVERYONE):
                link.reset_all()

    async def refuse(
        self, seconds: float, *, processes: Collection[str] = EVERYONE, services: Iterable[str] = SERVICES
    ) -> None:
        """Nobody listens."""
        links = self.network.links(processes, services)
        with self.fault("connections refused", processes):
            for link in links:
                link.refuse()
            try:
                await pause(seconds)
            finally:
                for link in links:
                    await link.listen()


@contextlib.asynccontextmanager
async def chaos(directory: Path, *, seed: int, clocks: bool = False, **settings: str) -> AsyncIterator[Chaos]:
    """A fleet whose links can be disturbed, its consumers at work. ``clocks``: and whose clocks can."""
    async with fleet(directory, bootstrapped=False) as running:
        running.environment |= {**SETTINGS, **settings}
        await running.command("bootstrap")
        evidence = Evidence()
        async with (
            network(sorted(EVERYONE), running.engine.port, evidence.listener, seed=seed) as links,
            open_aws(running) as aws,
        ):
            await age(aws)
            own = {name: Clock(directory / f"{name}.clock") for name in EVERYONE} if clocks else {}
            made = Chaos(running, links, aws, evidence, own, seed)
            await asyncio.gather(*map(made.start, sorted(EVERYONE)))
            watching = asyncio.create_task(made.starvation.watch())
            try:
                async with consuming(aws.sqs, aws.destinations, aws.dead_letters, made.accounts):
                    await _lose_a_queue(made)
                    await made.clients.post_and_cancel_one_of_each(QUEUES[0])
                    yield made
            finally:
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching


async def _lose_a_queue(made: Chaos) -> None:
    """Some jobs whose destination is deleted before they are due."""
    url = (await made.aws.sqs.create_queue(QueueName=GONE_QUEUE))["QueueUrl"]
    for number in range(6):
        await made.clients.post(GONE_QUEUE, policy="SCHEDULED", delay=3 + number / 2)
    await made.aws.sqs.delete_queue(QueueUrl=url)
