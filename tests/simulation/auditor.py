"""Sees what users were answered and what reached the queues, trusts no role, and says what was wrong."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import NamedTuple

from dynein.api.schemas import Accepted, JobRequest
from dynein.dead_letters import REASON_ATTRIBUTE, read_dead_letter
from dynein.errors import DyneinError, Unavailable
from dynein.inbound import unpack
from dynein.job import decode_job
from dynein.outgoing import DUE_AT_ATTRIBUTE, TOKEN_ATTRIBUTE
from dynein.partition import TriggerKey
from dynein.testing.queues import Sent
from dynein.token import Placement, parse
from dynein.trigger_store import Tombstone
from tests.simulation.explain import Explainer
from tests.simulation.network import FLIGHT, Fate, Flight
from tests.simulation.process import Process
from tests.simulation.saboteur import Saboteur
from tests.simulation.world import EPOCH_MS, World


class Delivery(NamedTuple):
    """A job reached its destination queue, or the dead-letter queue."""

    token: str
    body: str
    queue: str
    at: float
    """Virtual time at which it was sent."""
    visible_ms: float
    """True wall time at which a consumer can see it."""
    process: Process
    flight: Flight
    dead_letter: bool


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
        """Nobody can say whether it was accepted."""
        certain = sum(1 for error in self.refused if not isinstance(error, Unavailable))
        return not self.tokens and certain < self.asked


class Auditor:
    """Takes everything down during a run; `verdict` judges it."""

    def __init__(self, world: World, saboteur: Saboteur) -> None:
        self.world = world
        self.saboteur = saboteur
        self.records: dict[str, Record] = {}
        self.deliveries: dict[str, list[Delivery]] = {}
        self.explainer = Explainer(world)
        self.cancel_asked: dict[str, None] = {}
        self.cancel_done: dict[str, float] = {}
        self.move_asked: dict[str, None] = {}
        self.move_done: dict[str, tuple[str, float]] = {}
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self.quiet_at = math.inf
        """When the fleet must have recovered."""
        self.lateness_ms_max = 0.0
        world.queues.on_sent.append(self._sent)

    # --- what users say -----------------------------------------------------------------------------------------------

    def submitting(self, request: JobRequest) -> None:
        assert request.body is not None
        self.records.setdefault(request.body, Record(request)).asked += 1
        self.world.trace.note("user", f"submits {request.body.strip('x')!r} to {request.queue}")

    def accepted(self, request: JobRequest, answer: Accepted) -> None:
        record = self._record(request)
        record.tokens.setdefault(answer.token, self.world.loop.time())
        self.counts["accepted"] += 1
        self.world.trace.note(
            "api",
            f"accepts {self._name(request.body)} as {answer.policy} {short(answer.token)} {self._due(answer.token)}",
        )

    def refused(self, request: JobRequest, error: DyneinError) -> None:
        self._record(request).refused.append(error)
        self.counts["refused"] += 1
        self.world.trace.note("api", f"refuses {self._name(request.body)}: {type(error).__name__}: {error}")

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
        self.world.trace.note("api", f"has moved {short(token)} to {short(new_token)} {self._due(new_token)}")

    def looked_up(self, token: str, state: str) -> None:
        self.world.trace.note("api", f"says {short(token)} is {state}")

    # --- what reaches the queues --------------------------------------------------------------------------------------

    def _sent(self, sent: Sent) -> None:
        flight = FLIGHT.get()
        if flight is None:
            return  # the saboteur's
        settings = self.world.settings
        if sent.queue == settings.inbound_queue:
            self.explainer.inbound(sent.message_id, [a.trigger.token for a in unpack(sent.message.body)], flight)
            return
        attributes = sent.message.attributes
        if TOKEN_ATTRIBUTE not in attributes:
            return  # an inbound message, dead-lettered: judged by what is in the queue at the end
        if sent.duplicate:
            self.counts["dropped by FIFO deduplication"] += 1
            return
        token = attributes[TOKEN_ATTRIBUTE].value
        process = next(p for p in self.world.processes if p.name == flight.process)
        dead_letter = sent.queue == settings.dead_letter_queue
        delivery = Delivery(
            token,
            sent.message.body,
            sent.queue,
            self.world.loop.time(),
            EPOCH_MS + sent.visible_at * 1000,
            process,
            flight,
            dead_letter,
        )
        self.deliveries.setdefault(token, []).append(delivery)
        self.counts["dead-lettered" if dead_letter else "delivered"] += 1
        reason = f": {attributes[REASON_ATTRIBUTE].value}" if dead_letter else ""
        verb = "dead-letters" if dead_letter else "sends"
        self.world.trace.note(process.name, f"{verb} {short(token)} to {sent.queue}{reason}")
        self._check_ownership(delivery)
        if not dead_letter and int(attributes[DUE_AT_ATTRIBUTE].value) != parse(token).key.due_at_ms:
            self.violations.append(f"{short(token)}: the message says another due time than its token")

    def _check_ownership(self, delivery: Delivery) -> None:
        process, flight = delivery.process, delivery.flight
        if process.role != "dispatcher" or process.clock.suspended_s:
            return
        if flight.fate is Fate.STRAGGLER or delivery.at - flight.began_at > self.world.settings.call_timeout_s:
            return
        shard = parse(delivery.token).key.shard
        owner = self.world.table.shards()[shard].owner
        if owner != process.name:
            self.violations.append(
                f"{short(delivery.token)}: {process.name} sent it at {delivery.at:.3f}, and {owner} owns shard {shard}"
            )

    # --- the verdict --------------------------------------------------------------------------------------------------

    def verdict(self) -> list[str]:
        """Every violation, once the run is over."""
        self.violations.extend(self.world.problems)
        for body, record in self.records.items():
            self._judge(body, record)
        self._judge_deliveries()
        self._judge_remains()
        self.violations.extend(self.explainer.unexplained_takes())
        return self.violations

    def _judge(self, body: str, record: Record) -> None:
        where = record.request.queue
        for token, accepted_at in record.tokens.items():
            if parse(token).placement not in (Placement.SCHEDULED, Placement.PREPARED):
                self._judge_end(token, body, where, accepted_at)
                continue
            self._judge_chain(token, body, where, accepted_at)
        if not record.tokens and not record.in_doubt:
            sent = [d for ds in self.deliveries.values() for d in ds if d.body == body]
            if sent:
                errors = ", ".join(sorted({type(error).__name__ for error in record.refused}))
                self.violations.append(f"{self._name(body)}: delivered, though its user was told it was not ({errors})")

    def _judge_chain(self, token: str, body: str, where: str, since: float) -> None:
        """Follow a job through its moves, by what the table says, and compare with what its user was told."""
        seen: list[str] = []
        while True:
            seen.append(token)
            stone = self._tombstone(parse(token).key)
            if stone is None:
                break
            if stone.moved_to is None:
                if token not in self.cancel_asked:
                    self.violations.append(f"{short(token)}: cancelled, and nobody asked for it")
                return
            if token not in self.move_asked:
                self.violations.append(f"{short(token)}: moved, and nobody asked for it")
            if stone.moved_to in seen:
                self.violations.append(f"{short(token)}: moved in a circle")
                return
            since = self.move_done.get(token, ("", since))[1]
            token = stone.moved_to
        if token in self.cancel_done:
            self.violations.append(f"{short(token)}: its user was told it was cancelled, and it has no tombstone")
        if token in self.move_done and not self._came_back(token):
            self.violations.append(f"{short(token)}: its user was told it was moved, and it has no tombstone")
        self._judge_end(token, body, where, since)

    def _came_back(self, token: str) -> bool:
        """Was it moved away and then back to where it was, which takes the tombstone away?"""
        seen: list[str] = []
        at = token
        while at in self.move_done and at not in seen:
            seen.append(at)
            at = self.move_done[at][0]
        return at == token

    def _judge_stopped(self, token: str) -> None:
        for delivery in self.deliveries.get(token, []):
            how = "cancelled" if token in self.cancel_done else "stopped by a tombstone"
            self.violations.append(
                f"{short(token)}: {how}, and delivered by {delivery.process.name} at {delivery.at:.3f}"
            )

    def _judge_end(self, token: str, body: str, where: str, since: float) -> None:
        """The job must have arrived, whole, at its queue, in time."""
        deliveries = self.deliveries.get(token, [])
        if not deliveries:
            self.violations.append(f"{short(token)}: LOST ({self._name(body)} for {where}, {self._due(token)})")
            return
        for delivery in deliveries:
            if not delivery.dead_letter and (delivery.queue != where or delivery.body != body):
                self.violations.append(f"{short(token)}: delivered to {delivery.queue} as {delivery.body!r}")
        if not deliveries[0].dead_letter:
            self._judge_lateness(token, deliveries[0], since)

    def _judge_lateness(self, token: str, delivery: Delivery, since: float) -> None:
        placement, key = parse(token)
        bound_ms: float = 1_500 + 2 * self.world.scenario.skew_ms_max
        if placement is Placement.SQS_DELAYED:
            # SQS counts the delay from when the message reaches it, and a call of ours may have been slow.
            bound_ms += self.world.scenario.settings.call_timeout_s * 1000
        expected_ms = max(key.due_at_ms, EPOCH_MS + since * 1000)
        quiet_ms = EPOCH_MS + self.quiet_at * 1000
        if expected_ms <= quiet_ms:
            late_ms = delivery.visible_ms - quiet_ms
        else:
            late_ms = delivery.visible_ms - expected_ms
            self.lateness_ms_max = max(self.lateness_ms_max, late_ms)
        if late_ms > bound_ms:
            self.violations.append(f"{short(token)}: {late_ms:.0f} ms late after the faults had stopped")

    def _judge_deliveries(self) -> None:
        for token, deliveries in self.deliveries.items():
            if self._tombstone(parse(token).key) is not None:
                self._judge_stopped(token)
            due_ms = parse(token).key.due_at_ms
            for delivery in deliveries:
                early_ms = due_ms - delivery.visible_ms - max(0, delivery.process.clock.offset_ms_max)
                if early_ms > 0.001 and not delivery.dead_letter:
                    self.violations.append(f"{short(token)}: EARLY by {early_ms:.3f} ms")
                if delivery.dead_letter and not self._may_dead_letter(delivery):
                    self.violations.append(
                        f"{short(token)}: dead-lettered by {delivery.process.name} for no good reason"
                    )
            # In the order in which they were tried: a send may take effect long after its caller gave up.
            for earlier, later in pairwise(sorted(deliveries, key=lambda delivery: delivery.flight.began_at)):
                until = max(earlier.at, later.at)
                why = self.explainer.why(token, earlier.flight, later.flight, until)
                self.counts["duplicates"] += 1
                if why is None:
                    self.violations.append(
                        f"{short(token)}: DUPLICATE unexplained, by {earlier.process.name} at {earlier.at:.3f} and by "
                        f"{later.process.name} at {later.at:.3f}"
                    )
                else:
                    self.counts[f"duplicate: {why}"] += 1

    def _may_dead_letter(self, delivery: Delivery) -> bool:
        """Its queue refused it for good, or could not be reached by this process for about the retry budget."""
        record = self.records.get(decode_job(delivery.body).body)
        if record is None:
            return False
        budget_s = self.world.settings.retry_budget_s
        at = delivery.flight.began_at
        spells = self.saboteur.bad_queues.get(record.request.queue, [])
        if any(since <= at <= until + 10.0 for since, until, for_good in spells if for_good):
            return True
        hindered = [(since, until) for since, until, _ in spells]
        hindered += [(d.since, d.until) for d in self.world.observer.disturbances.get(delivery.process.name, [])]
        window = (at - 2 * budget_s, at)
        failing_s = sum(max(0.0, min(until, window[1]) - max(since, window[0])) for since, until in hindered)
        return failing_s >= 0.5 * budget_s

    def _judge_remains(self) -> None:
        world = self.world
        for trigger in world.table.triggers():
            if not (self.deliveries.get(trigger.token) and self.explainer.resurrected(trigger.token)):
                self.violations.append(f"{short(trigger.token)}: STRANDED in the table, {self._due(trigger.token)}")
        inbound = world.queues.everything(world.settings.inbound_queue)
        if inbound:
            self.violations.append(f"{len(inbound)} messages are left in the inbound queue")
        poison = dict.fromkeys(self.saboteur.poison)
        found: dict[str, None] = {}
        for message in world.queues.everything(world.settings.dead_letter_queue):
            letter = read_dead_letter(message)
            if letter.token is None:
                found[letter.body] = None
                if letter.body not in poison:
                    self.violations.append(f"a good inbound message was dead-lettered: {letter.reason}")
        for body in poison:
            if body not in found:
                self.violations.append("a poisoned message did not reach the dead-letter queue")
        self._judge_retirement()

    def _judge_retirement(self) -> None:
        settings = self.world.settings
        width_ms = self.world.scenario.bucket_width_s * 1000
        slack_ms = (
            settings.retire_grace_s + 3 * settings.lease_ttl_s + 10
        ) * 1000 + self.world.scenario.skew_ms_max * 2
        expected = int((self.world.now_ms() - slack_ms) // width_ms) - 2
        for record in self.world.table.shards():
            if record.retired_before < expected:
                behind = expected - record.retired_before
                self.violations.append(f"shard {record.shard}: retirement is {behind} buckets behind")

    # ------------------------------------------------------------------------------------------------------------------

    def _tombstone(self, key: TriggerKey) -> Tombstone | None:
        return self.world.table.peek(key).tombstone

    def _record(self, request: JobRequest) -> Record:
        assert request.body is not None
        return self.records[request.body]

    def _name(self, body: str | None) -> str:
        return repr((body or "").strip("x "))

    def _due(self, token: str) -> str:
        return f"due at {(parse(token).key.due_at_ms - EPOCH_MS) / 1000:.3f}"


def short(token: str) -> str:
    """Enough of a token to find it in a trace."""
    return token[12:24]
