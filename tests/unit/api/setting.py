"""The API on in-memory queues and table, with and without HTTP."""

from __future__ import annotations

import random
from typing import Any

import httpx
import msgspec
from pydantic import SecretStr

from dynein.api.app import create_app
from dynein.api.decoding import decode_job
from dynein.api.health import Lifecycle, Readiness
from dynein.api.schemas import Accepted, JobRequest
from dynein.api.submission import Submissions
from dynein.core.inbound_message import Arrival, unpack
from dynein.core.job_token import JobRef, TokenSigner, parse
from dynein.core.ledger import Counts, Tally
from dynein.core.ports import Deployment, Ports
from dynein.core.seal import Seal
from dynein.core.shard_records import Layout
from dynein.delivery.destinations import Destinations
from dynein.observability.telemetry import Telemetry
from dynein.observability.tracing import Tracing
from dynein.runtime.context import Context
from dynein.settings import Settings
from dynein.testing import FakeLedger, FakeQueues, FakeTriggerTable, ManualClock

SECRET = b"0123456789abcdef-test"
SEAL = Seal([SECRET])
INBOUND = "dynein-inbound"
LEDGER_WINDOW_MS = 3_600_000


class Api:
    """One API process."""

    def __init__(self, *, tracing: Tracing | None = None, queues_bytes_max: int | None = None, **settings: Any) -> None:
        """``queues_bytes_max``: the largest message of all queues, if that is not `Settings.message_bytes_max`."""
        self.settings = Settings(token_secrets=SecretStr(SECRET.decode()), **settings)
        self.clock = ManualClock()
        bytes_max = queues_bytes_max or self.settings.message_bytes_max
        self.queues = FakeQueues(self.clock, message_bytes_max=bytes_max)
        self.inbound_url = self.queues.create(INBOUND)
        self.queues.create("demo")
        self.queues.create("other")
        self.queues.create("orders.fifo")
        self.table = FakeTriggerTable(self.clock)
        self.signer = TokenSigner([SECRET])
        self.telemetry = Telemetry()
        self.tally = Tally(LEDGER_WINDOW_MS)
        rng = random.Random(1)
        self.destinations = Destinations(self.queues, self.clock, ttl_s=300)
        self.submissions = Submissions(
            Ports(self.queues, self.table, self.table, self.table, FakeLedger()),
            self.destinations,
            self.signer,
            Deployment(Layout(60_000, 4, 4), self.inbound_url, "", bytes_max),
            Context(self.clock, rng, self.telemetry, self.tally),
            self.settings,
            random_bytes=rng.randbytes,
        )
        self.lifecycle = Lifecycle()
        self.readiness = Readiness(["api"], self.queues, self.table, self.inbound_url, self.clock, self.lifecycle)
        self.app = create_app(self.submissions, self.readiness, self.lifecycle, self.telemetry, self.settings, tracing)

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://localhost")

    async def accept(self, **fields: Any) -> Accepted:
        return await self.submissions.accept(job(**fields))

    def ref(self, token: str) -> JobRef:
        return parse(token)

    def arrivals(self) -> list[Arrival]:
        """What the inbound queue holds, unpacked."""
        return [arrival for body in self.queues.messages(INBOUND) for arrival in unpack(body, SEAL).arrivals]

    async def ingest(self) -> None:
        """Store everything in the inbound queue, as an ingester would."""
        while received := await self.queues.receive(
            self.inbound_url, entries_max=10, wait_s=0, visibility_timeout_s=30
        ):
            for message in received:
                for arrival in unpack(message.body, SEAL).arrivals:
                    assert await self.table.add([arrival.trigger]) == []
            await self.queues.delete(self.inbound_url, [message.receipt for message in received])

    async def raise_marks(self, token: str) -> None:
        """As if a dispatcher had read the job that ``token`` names."""
        await self.table.raise_hold_mark(self.ref(token).key.shard, self.ref(token).key.due_at_ms)

    def sends(self, queue: str) -> int:
        """How many send calls were made to a queue."""
        return sum(1 for call in self.queues.faults.calls if call.verb == "send" and call.target == queue)

    def tallied(self) -> dict[int, Counts]:
        """Jobs counted since the last call, by their due time in ledger windows from now."""
        now_ms = self.clock.now_ms()
        this_window_ms = now_ms // LEDGER_WINDOW_MS * LEDGER_WINDOW_MS
        taken = self.tally.take(now_ms, 100)
        return {(start_ms - this_window_ms) // LEDGER_WINDOW_MS: counts for start_ms, counts in taken.items()}

    def counted(self, metric: str, **labels: str) -> float:
        return self.telemetry.registry.get_sample_value(metric, labels) or 0.0


def job(**fields: Any) -> JobRequest:
    """A request as it would come over the wire; the queue is ``demo`` and the body ``hello`` unless said otherwise."""
    if not {"body", "json", "body_base64"} & fields.keys():
        fields["body"] = "hello"
    return decode_job(msgspec.json.encode({"queue": "demo", **fields}))
