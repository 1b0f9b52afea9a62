"""The recorder: what users were answered and what reached the queues. `checker` decides afterwards what was wrong."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

from dynein.api.schemas import Accepted, JobRequest, JobStatus
from dynein.core.delivered_message import DUE_AT_ATTRIBUTE, TOKEN_ATTRIBUTE
from dynein.core.inbound_message import unpack
from dynein.core.job_token import parse
from dynein.core.ledger import Counts
from dynein.core.queues import OutgoingMessage
from dynein.delivery.dead_letter_queue import REASON_ATTRIBUTE
from dynein.errors import DyneinError, NotSent, Unavailable
from dynein.testing.queues import Sent
from tests.simulation.answers import Asked
from tests.simulation.bounds import Bounds
from tests.simulation.fault_injector import FaultInjector
from tests.simulation.fidelity import body_of
from tests.simulation.flight import Fate, Flight
from tests.simulation.forger import FORGED, Forger
from tests.simulation.loop import OWNER
from tests.simulation.process import Process
from tests.simulation.world import EPOCH_MS, World


class Delivery(NamedTuple):
    """A job reached its destination queue, or the dead-letter queue."""

    token: str
    message: OutgoingMessage
    queue: str
    at: float
    """Virtual time at which it was sent."""
    visible_ms: float
    """True wall time at which a consumer can see it."""
    process: Process
    flight: Flight
    dead_letter: bool
    order: int
    """Among all deliveries of the run."""

    @property
    def body(self) -> str:
        """What the queue got as the message's body."""
        return self.message.body

    @property
    def group(self) -> str:
        """Message group, if any."""
        return self.message.message_group_id or ""


class Record:
    """One job, as its user knows it."""

    def __init__(self, request: JobRequest) -> None:
        self.request = request
        self.asked = 0
        self.tokens: dict[str, float] = {}
        """Accepted tokens, and when."""
        self.refused: list[DyneinError] = []

    @property
    def in_doubt(self) -> bool:
        """It may have been accepted: not every submission of it was answered with certainty."""
        certain = sum(isinstance(error, NotSent) or not isinstance(error, Unavailable) for error in self.refused)
        return not self.tokens and certain < self.asked


class Auditor:
    """Records everything during a run. Trusts no role."""

    def __init__(self, world: World, fault_injector: FaultInjector, forger: Forger) -> None:
        self.world = world
        self.fault_injector = fault_injector
        self.forger = forger
        self.records: dict[str, Record] = {}
        """By body."""
        self.asked: list[Asked] = []
        """Every request that was answered."""
        self._of_job: dict[bytes, Record] = {}
        """By job id, which a job keeps when it is moved."""
        self.deliveries: dict[str, list[Delivery]] = {}
        self.fifo_batches: list[list[str]] = []
        """Tokens of jobs of one request each, for one FIFO queue, in the order of the request."""
        self.cancel_asked: dict[str, None] = {}
        self.cancel_done: dict[str, float] = {}
        self.move_asked: dict[str, None] = {}
        self.move_done: dict[str, tuple[str, float]] = {}
        self.redriven: list[Sent] = []
        """What an operator's redrive sent when the run was over."""
        self.ledger: dict[int, Counts] | None = None
        """What a reader finds in it when all windows have closed."""
        self.bounds = Bounds(world)
        self.violations: list[str] = []
        """What was seen to be wrong at once."""
        self.counts: Counter[str] = Counter()
        self.calm_at = math.inf
        """When the fleet must have recovered."""
        self.finished_at = math.inf
        """When all was done, and the last processes were told to stop."""
        world.queues.on_sent.append(self._sent)

    # --- what users do and are answered ------------------------------------------------------------------------------

    def submitting(self, request: JobRequest) -> None:
        body = body_of(request)
        self.records.setdefault(body, Record(request)).asked += 1
        self.world.trace.note("user", f"submits {name_of(body)} to {request.queue}")

    def answered(self, asked: Asked) -> None:
        """A request of any kind."""
        self.asked.append(asked)
        if isinstance(asked.answer, JobStatus):
            self.world.trace.note("api", f"reports {short(asked.token)} as {asked.answer.state}")

    def record_of(self, token: str) -> Record | None:
        """The job that a token names or named, if its user was ever answered that it was accepted."""
        return self._of_job.get(parse(token).key.job_id)

    def accepted(self, request: JobRequest, answer: Accepted) -> None:
        record = self._record(request)
        record.tokens.setdefault(answer.token, self.world.loop.time())
        self._of_job[parse(answer.token).key.job_id] = record
        self.counts["accepted"] += 1
        process = OWNER.get()
        assert isinstance(process, Process), "called in a process"
        self.world.books.accepted(process.name, parse(answer.token))
        self.world.trace.note(
            "api", f"accepts {name_of(body_of(request))} as {answer.policy} {short(answer.token)} {due(answer.token)}"
        )

    def accepted_in_order(self, tokens: list[str]) -> None:
        """These came in one request, in this order."""
        self.fifo_batches.append(tokens)

    def refused(self, request: JobRequest, error: DyneinError) -> None:
        self._record(request).refused.append(error)
        self.counts["refused"] += 1
        self.world.trace.note("api", f"refuses {name_of(body_of(request))}: {type(error).__name__}: {error}")

    def cancelling(self, token: str) -> None:
        self.cancel_asked[token] = None
        self.world.trace.note("user", f"cancels {short(token)}")

    def cancelled(self, token: str) -> None:
        self.cancel_done.setdefault(token, self.world.loop.time())
        self.counts["cancelled"] += 1
        self.world.trace.note("api", f"has cancelled {short(token)}")

    def moving(self, token: str) -> None:
        self.move_asked[token] = None
        self.world.trace.note("user", f"moves {short(token)}")

    def moved(self, token: str, new_token: str) -> None:
        self.counts["moved"] += 1
        if new_token != token:
            self.move_done[token] = (new_token, self.world.loop.time())
        self.world.trace.note("api", f"has moved {short(token)} to {short(new_token)} {due(new_token)}")

    # --- what reaches the queues --------------------------------------------------------------------------------------

    def _sent(self, sent: Sent) -> None:
        flight = self.world.network.serving
        if flight is None:
            return  # no process sent it
        settings = self.world.settings
        if sent.queue == settings.inbound_queue:
            self._carried(sent, flight)
            return
        attributes = sent.message.attributes
        if TOKEN_ATTRIBUTE not in attributes:
            return  # an inbound message, dead-lettered: checked by what is in the queue at the end
        if sent.duplicate:
            self.counts["dropped by FIFO deduplication"] += 1
            return
        token = attributes[TOKEN_ATTRIBUTE].value
        dead_letter = sent.queue == settings.dead_letter_queue
        delivery = Delivery(
            token,
            sent.message,
            sent.queue,
            self.world.loop.time(),
            EPOCH_MS + sent.visible_at * 1000,
            next(p for p in self.world.processes if p.name == flight.process),
            flight,
            dead_letter,
            self.counts["delivered"] + self.counts["dead-lettered"],
        )
        self.deliveries.setdefault(token, []).append(delivery)
        self.counts["dead-lettered" if dead_letter else "delivered"] += 1
        reason = f": {attributes[REASON_ATTRIBUTE].value}" if dead_letter else ""
        verb = "dead-letters" if dead_letter else "sends"
        self.world.trace.note(flight.process, f"{verb} {short(token)} to {sent.queue}{reason}")
        self._check_ownership(delivery)
        if FORGED in delivery.body:
            self.violations.append(f"{short(token)}: FORGED, and {flight.process} {verb} it: {delivery.body!r}")
        if not dead_letter and int(attributes[DUE_AT_ATTRIBUTE].value) != parse(token).key.due_at_ms:
            self.violations.append(f"{short(token)}: the message has another due time than its token")

    def _carried(self, sent: Sent, flight: Flight) -> None:
        arrivals = unpack(sent.message.body, self.world.seal).arrivals
        self.bounds.message_jobs_max = max(self.bounds.message_jobs_max, len(arrivals))
        evidence = self.world.evidence
        evidence.inbound[sent.message_id] = self.world.queues._queues[sent.queue].messages[sent.message_id]
        for arrival in arrivals:
            evidence.carriers.setdefault(arrival.key, {})[sent.message_id] = flight
            evidence.creates.setdefault(arrival.key, {})[arrival.create_id] = None
        evidence.prepared[sent.message_id] = [arrival for arrival in arrivals if arrival.prepared]

    def _check_ownership(self, delivery: Delivery) -> None:
        process, flight = delivery.process, delivery.flight
        if flight.role != "dispatcher" or process.clock.suspended_s:
            return
        if flight.fate is Fate.STRAGGLER or delivery.at - flight.began_at > self.world.settings.call_timeout_s:
            return
        shard = parse(delivery.token).key.shard
        owner = self.world.table.shards()[shard].owner
        if owner != process.name:
            self.violations.append(
                f"{short(delivery.token)}: {process.name} sent it at {delivery.at:.3f}, and {owner} owns shard {shard}"
            )

    def _record(self, request: JobRequest) -> Record:
        return self.records[body_of(request)]


def name_of(body: str) -> str:
    """The job's, in a trace."""
    return repr(body.strip("x "))


def due(token: str) -> str:
    """When the job is due, in virtual time."""
    return f"due at {(parse(token).key.due_at_ms - EPOCH_MS) / 1000:.3f}"


def short(token: str) -> str:
    """Enough of a token to find it in a trace."""
    return token[12:24]
