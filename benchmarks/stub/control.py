"""The stub's own calls, for benchmarks: ``POST /stub/NAME`` with a JSON object."""

from __future__ import annotations

import os
import random
from typing import Any

from benchmarks.jobs import SECRET, packed_messages, stored_triggers
from benchmarks.stub.meter import Meter
from benchmarks.stub.queues import Queues
from benchmarks.stub.table import Table
from dynein.core.inbound_message import unpack
from dynein.core.seal import Seal


class Control:
    """One method for each name."""

    def __init__(self, meter: Meter, queues: Queues, table: Table) -> None:
        self._meter = meter
        self._queues = queues
        self._table = table
        self._rng = random.Random(20_261_123)

    def handle(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        """Do what ``name`` says."""
        response: dict[str, Any] = getattr(self, f"do_{name}")(**request)
        return response

    def do_counts(self) -> dict[str, Any]:
        """Everything counted since the start."""
        return self._meter.snapshot()

    def do_feed(self, *, queue: str, messages: int, jobs_a_message: int, **jobs: Any) -> dict[str, Any]:  # noqa: ANN401
        """Feed ``queue`` for ever with ``messages`` packed messages, over and over; none: stop and purge."""
        bodies = packed_messages(self._rng, messages, jobs_a_message, **jobs) if messages else None
        self._queues.feed(queue, bodies)
        if not bodies:
            self._queues.purge(queue)
        return {"bytes": sum(map(len, bodies or ()))}

    def do_depth(self, *, queue: str) -> dict[str, Any]:
        """How many messages a queue holds."""
        return self._queues.depth(queue)

    def do_unpack(self, *, queue: str) -> dict[str, Any]:
        """The number of jobs in the messages waiting on ``queue``, which are then deleted."""
        bodies = self._queues.bodies(queue)
        self._queues.purge(queue)
        seal = Seal([SECRET.encode()])
        return {"messages": len(bodies), "jobs": sum(len(unpack(body, seal).arrivals) for body in bodies)}

    def do_load(self, *, count: int, **triggers: Any) -> dict[str, Any]:  # noqa: ANN401
        """Store ``count`` triggers, uncounted."""
        return {"loaded": self._table.load(stored_triggers(self._rng, count, **triggers))}

    def do_forget(self, *, from_ms: int) -> dict[str, Any]:
        """Delete the triggers due from then on."""
        self._table.forget_triggers(from_ms)
        return {}

    def do_triggers(self) -> dict[str, Any]:
        """How many triggers are stored."""
        return {"triggers": self._table.triggers()}

    def do_watch(self, *, on: bool) -> dict[str, Any]:
        """Start or stop recording when each job arrives."""
        self._queues.watched = on
        return {}

    def do_arrivals(self) -> dict[str, Any]:
        """The arrivals since the last call."""
        return self._queues.arrivals.take()

    def do_arrived(self) -> dict[str, Any]:
        """The number of arrivals so far."""
        return {"count": len(self._queues.arrivals.due_ms)}

    def do_pid(self) -> dict[str, Any]:
        """This process's id."""
        return {"pid": os.getpid()}
