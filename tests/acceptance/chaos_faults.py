"""A fleet to be disturbed: real processes, a real engine, a proxy in between, and what can be done to each."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from dynein.core.job import decode_job
from tests.acceptance.chaos_accounts import GONE_QUEUE, STALL, Accounts, Fault, Sighting, Way
from tests.acceptance.chaos_clients import Clients, consuming
from tests.acceptance.chaos_engine import BUCKET_WIDTH_S, QUEUES, Aws, age, open_aws
from tests.acceptance.fleet import HANG_S, QUICK, Fleet, Process, fleet, monotonic, now_ms, pause
from tests.acceptance.proxy import NO_FAULTS, LinkFaults, Proxy

ROLES = ("api", "ingester", "dispatcher")
SETTINGS = {
    **QUICK,
    # What a process had, others get while the test runs.
    "DYNEIN_CALL_TIMEOUT_S": "5",
    "DYNEIN_LEASE_TTL_S": "8",
    "DYNEIN_MEMBER_TTL_S": "7",
    "DYNEIN_CLOCK_SKEW_MAX_S": "16",
    "DYNEIN_RETIRE_GRACE_S": "32",
    "DYNEIN_VISIBILITY_TIMEOUT_S": "9",
    "DYNEIN_BUCKET_WIDTH_S": str(BUCKET_WIDTH_S),
    "DYNEIN_RETRY_BUDGET_S": "20",  # longer than any outage here: only the queue that is gone uses it up
    "DYNEIN_BACKOFF_MAX_S": "1",
}
LOST = {"lease.lost": Way.DISPATCHER, "inbound.lost": Way.INGESTER}
"""What a process logs that has been frozen or starved for too long."""
LOST_MS = 20_000
"""From the last renewal that was in time to that line, with much to spare."""
MOMENT_S = 0.05
HEARD_S = 6.0
"""What comes into a frozen ingester's sockets for so long (the rest of a long poll, on a machine that has much else to
do) is new to it when it runs on, and may be visible to others again by then."""
KILLED = {"api": Way.NONE, "ingester": Way.INGESTER, "dispatcher": Way.DISPATCHER}
"""A dead API process sends nothing; whoever repeats a create to another needs a prepared token."""
FROZEN = {**KILLED, "api": Way.API}
"""It wakes up to an answer that comes too late for it, and repeats its send to the inbound queue."""
LOOK_S = 0.1
STALL_S = 0.4
"""A stall of less than this no call notices, but the renewal of a lease that has little time left."""


class Chaos:
    """The fleet. ``processes`` holds two of each role, by names like ``ingester-0``."""

    def __init__(self, running: Fleet, proxy: Proxy, aws: Aws, seed: int) -> None:
        self.fleet = running
        self.proxy = proxy
        self.aws = aws
        self.accounts = Accounts()
        self.processes: dict[str, Process] = {}
        self.clients = Clients(running, self.accounts, self._api_urls, queues=QUEUES, seed=seed)

    def _api_urls(self) -> list[str]:
        return [process.url for name, process in self.processes.items() if name.startswith("api")]

    @contextlib.contextmanager
    def fault(self, what: str, way: Way = Way.ANY) -> Iterator[None]:
        """Note that something is done, from now until the block is left."""
        from_ms = now_ms()
        try:
            yield
        finally:
            self.accounts.faults.append(Fault(what, way, from_ms, now_ms()))

    # --- processes --------------------------------------------------------------------------------------------------

    async def start(self, name: str) -> None:
        """Start a process, again if it ends while the engine is out of reach, as an orchestrator would."""
        role = name.partition("-")[0]
        deadline = monotonic() + HANG_S
        while True:
            try:
                self.processes[name] = await self.fleet.start(role)
            except AssertionError:
                if monotonic() > deadline:
                    raise
            else:
                return

    async def kill(self, name: str) -> None:
        """SIGKILL, and start its successor."""
        role = name[:-2]
        with self.fault(f"SIGKILL {role}", KILLED[role]):
            killed = self.processes.pop(name)
            killed.signal(signal.SIGKILL)
            assert await killed.wait() == -signal.SIGKILL, killed.log.read_text()
        await self.start(name)

    async def freeze(self, name: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        process, role = self.processes[name], name[:-2]
        from_ms = now_ms()
        process.signal(signal.SIGSTOP)
        # Only an ingester can be given work while it is frozen that others are given too.
        strikes_s = (now_ms() - from_ms) / 1000 + (HEARD_S if role == "ingester" else MOMENT_S)
        try:
            await pause(seconds)
        finally:
            process.signal(signal.SIGCONT)
            self.accounts.faults.append(Fault(f"SIGSTOP {role}", FROZEN[role], from_ms, now_ms(), strikes_s))

    async def restart(self, name: str) -> None:
        """SIGTERM, and start its successor. Nothing is excused by that."""
        with self.fault(f"SIGTERM {name[:-2]}", Way.NONE):
            old = self.processes.pop(name)
            assert await old.terminate() == 0, old.log.read_text()
        await self.start(name)

    # --- engine -----------------------------------------------------------------------------------------------------

    async def engine_restart(self, *, kill: bool, down_s: float) -> None:
        """Stop the engine or kill it, and start it again on the same data and port."""
        with self.fault("engine killed" if kill else "engine stopped"):
            await self.fleet.stop_engine(kill=kill)
            await pause(down_s)
            await self.fleet.start_engine()

    async def disk_full(self, seconds: float) -> None:
        """No write to the engine's files succeeds; reads do.

        The kernel refuses every write past ``RLIMIT_FSIZE``. The engine answers 500 to whatever writes, a receive
        included, as it does on a file system without room (tried with a tmpfs of 4 MB), and goes on reading. That it
        ignores SIGXFSZ it has from the Python that becomes it.
        """
        child = self.fleet.engine._child
        assert child is not None
        soft, hard = resource.prlimit(child.pid, resource.RLIMIT_FSIZE)
        with self.fault("disk full"):
            resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (0, hard))
            try:
                await pause(seconds)
            finally:
                resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (soft, hard))

    # --- network ----------------------------------------------------------------------------------------------------

    async def link_faults(self, what: str, faults: LinkFaults, seconds: float, way: Way = Way.ANY) -> None:
        """Interfere with what passes for a while."""
        with self.fault(what, way):
            self.proxy.faults = faults
            try:
                await pause(seconds)
            finally:
                self.proxy.faults = NO_FAULTS

    async def reset_all(self) -> None:
        """RST on every connection at once."""
        with self.fault("all connections reset"):
            self.proxy.reset_all()

    async def refuse(self, seconds: float) -> None:
        """Nobody listens."""
        with self.fault("connections refused"):
            self.proxy.refuse()
            try:
                await pause(seconds)
            finally:
                await self.proxy.listen()

    # --- the end ----------------------------------------------------------------------------------------------------

    async def finish(self) -> str:
        """Wait until all is at rest, end every process as an operator would, and check the accounts. Their sum."""
        await self._rest()
        audit = await self.fleet.run("audit", "--json", **{**QUICK, "DYNEIN_ENDPOINT_URL": self.fleet.endpoint})
        assert audit.code == 0, audit
        for name, process in self.processes.items():
            assert process.process.returncode is None, f"{name} ended by itself: {process.log.read_text()}"
            await process.ready(self.fleet.http)
        ends = await asyncio.gather(*(process.terminate() for process in self.processes.values()))
        assert ends == [0] * len(self.processes), ends
        await self._rest()
        self._note_starved_processes()
        stored = await self.aws.stored()
        assert json.loads(audit.out)["triggers"] == stored.records
        for trigger in stored.triggers:
            body = decode_job(trigger.record).body
            sighting = Sighting(trigger.token, now_ms())
            self.accounts.seen(lambda account: account.stored, body, sighting, f"stored {trigger.token}")
        return self.accounts.check()

    async def _rest(self) -> None:
        """Return once nothing is on its way: no message anywhere, and no trigger but for those due much later."""
        deadline = monotonic() + HANG_S
        while unrest := await self.aws.under_way() or await self._not_seen():
            assert monotonic() < deadline, f"no rest within {HANG_S} s: {unrest}"
            await pause(0.3)

    def _note_starved_processes(self) -> None:
        """What a process lost by its own account, though no fault of the test had met its role shortly before."""
        made = list(self.accounts.faults)
        for event, way in LOST.items():
            for line in [line for process in self.fleet.processes for line in process.logged(event)]:
                at_ms = int(dt.datetime.fromisoformat(line.split(" ", 1)[0]).timestamp() * 1000)
                if not any(way in f.way and f.from_ms <= at_ms <= f.until_ms + LOST_MS for f in made):
                    self.accounts.faults.append(Fault(STALL, way, at_ms - LOST_MS, at_ms))

    async def _not_seen(self) -> str:
        """Jobs that were accepted and are nowhere; nothing if there are none."""
        tokens = {trigger.token for trigger in (await self.aws.stored()).triggers}
        missing = [account for account in self.accounts.waiting_for() if account.token not in tokens]
        return f"{len(missing)} missing: {missing[:3]}" if missing else ""


@contextlib.asynccontextmanager
async def chaos(directory: Path, *, seed: int) -> AsyncIterator[Chaos]:
    """A fleet behind a proxy, its consumers at work."""
    async with fleet(directory, bootstrapped=False) as running:
        running.environment |= SETTINGS
        await running.command("bootstrap")
        async with Proxy(running.engine.port, seed=seed) as proxy, open_aws(running) as aws:
            await age(aws)
            running.environment["DYNEIN_ENDPOINT_URL"] = proxy.url
            made = Chaos(running, proxy, aws, seed)
            await asyncio.gather(*(made.start(f"{role}-{i}") for role in ROLES for i in range(2)))
            watching = asyncio.create_task(_watch_for_stalls(made.accounts))
            try:
                async with consuming(aws.sqs, aws.destinations, aws.dead_letters, made.accounts):
                    await _lose_a_queue(made)
                    await made.clients.post_and_cancel_one_of_each(QUEUES[0])
                    yield made
            finally:
                watching.cancel()


async def _watch_for_stalls(accounts: Accounts) -> None:
    while True:
        before_ms = now_ms()
        await pause(LOOK_S)
        if now_ms() - before_ms > (LOOK_S + STALL_S) * 1000:
            accounts.faults.append(Fault(STALL, Way.ANY, before_ms, now_ms()))


async def _lose_a_queue(made: Chaos) -> None:
    """Some jobs whose destination is deleted before they are due."""
    url = (await made.aws.sqs.create_queue(QueueName=GONE_QUEUE))["QueueUrl"]
    for number in range(6):
        await made.clients.post(GONE_QUEUE, policy="SCHEDULED", delay=3 + number / 2)
    await made.aws.sqs.delete_queue(QueueUrl=url)
