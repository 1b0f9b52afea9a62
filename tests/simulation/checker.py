"""Checks a run that is over: what users were answered against what reached the queues and what is left.

It knows what the `auditor` recorded. The checks of their own modules are called here too.
"""

from __future__ import annotations

from itertools import pairwise

from dynein.core.job import decode_job
from dynein.core.job_token import TokenKind, parse
from dynein.core.trigger_store import Tombstone
from dynein.delivery.dead_letter_queue import read_dead_letter
from tests.simulation.answers import check_answers
from tests.simulation.auditor import Auditor, Delivery, Record, due, name_of, short
from tests.simulation.conservation import check_ledger
from tests.simulation.explain import Explainer
from tests.simulation.fidelity import differences, queue_of
from tests.simulation.fifo import check_fifo
from tests.simulation.lateness import Lateness, calm_phase_bound_ms
from tests.simulation.ownership import check_ownership
from tests.simulation.redriving import check_redriven
from tests.simulation.world import EPOCH_MS

_REFUSED_BEFORE_S = 10.0
"""How long after a refusal a job may reach the dead-letter queue."""


class Checker:
    """The check of one run. `violations` are all there were."""

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor
        self._world = auditor.world
        self._explainer = Explainer(auditor.world)
        self._lateness = Lateness(auditor)
        self.violations = [*auditor.violations, *auditor.world.problems]
        self.lateness_ms_max = 0.0
        """In the calm phase."""
        for body, record in auditor.records.items():
            self._check_record(body, record)
        self._check_deliveries()
        self._check_remains()
        self.violations.extend(self._lateness.unprompt())
        self.violations.extend(check_answers(auditor))
        self.violations.extend(check_ownership(self._world))
        self.violations.extend(check_fifo(auditor))
        if auditor.ledger is not None:
            self.violations.extend(check_ledger(auditor))
            self.violations.extend(check_redriven(auditor))
        self.violations.extend(auditor.bounds.violations)

    # --- what users were answered ------------------------------------------------------------------------------

    def _check_record(self, body: str, record: Record) -> None:
        where = queue_of(record.request)
        for token, accepted_at in record.tokens.items():
            if parse(token).kind not in (TokenKind.SCHEDULED, TokenKind.PREPARED):
                self._check_end(token, body, where, accepted_at)
                continue
            self._check_chain(token, body, where, accepted_at)
        if not record.tokens and not record.in_doubt:
            sent = [d for ds in self._auditor.deliveries.values() for d in ds if d.body == body]
            if sent:
                errors = ", ".join(sorted({type(error).__name__ for error in record.refused}))
                self.violations.append(
                    f"{name_of(body)}: delivered, though its user was answered that it was not accepted ({errors})"
                )

    def _check_chain(self, token: str, body: str, where: str, since: float) -> None:
        """Follow a job through its moves, by its tombstones, and compare with what its user was answered."""
        auditor = self._auditor
        seen: list[str] = []
        while True:
            seen.append(token)
            stone = self._tombstone(token)
            if stone is None:
                break
            if stone.moved_to is None:
                if token not in auditor.cancel_asked:
                    self.violations.append(f"{short(token)}: cancelled, and no user asked for it")
                return
            if token not in auditor.move_asked:
                self.violations.append(f"{short(token)}: moved, and no user asked for it")
            if stone.moved_to in seen:
                self.violations.append(f"{short(token)}: moved in a circle")
                return
            since = auditor.move_done.get(token, ("", since))[1]
            token = stone.moved_to
        if token in auditor.cancel_done:
            self.violations.append(
                f"{short(token)}: its user was answered that it was cancelled, and it has no tombstone"
            )
        if token in auditor.move_done and not self._came_back(token):
            self.violations.append(f"{short(token)}: answered to be moved, and it has no tombstone")
        self._check_end(token, body, where, since)

    def _came_back(self, token: str) -> bool:
        """Was it moved away and then back to where it was, which removes the tombstone?"""
        seen: list[str] = []
        at = token
        while at in self._auditor.move_done and at not in seen:
            seen.append(at)
            at = self._auditor.move_done[at][0]
        return at == token

    def _check_end(self, token: str, body: str, where: str, since: float) -> None:
        """The job must have arrived, whole, at its queue, in time."""
        deliveries = self._auditor.deliveries.get(token, [])
        if not deliveries:
            self.violations.append(f"{short(token)}: LOST ({name_of(body)} for {where}, {due(token)})")
            return
        if not deliveries[0].dead_letter:
            self._check_lateness(token, deliveries[0], since)

    def _check_lateness(self, token: str, delivery: Delivery, since: float) -> None:
        kind, key = parse(token)
        scenario = self._world.scenario
        expected_ms = max(key.due_at_ms, EPOCH_MS + since * 1000)
        quiet_ms = EPOCH_MS + self._auditor.calm_at * 1000
        late_ms = delivery.visible_ms - expected_ms
        if expected_ms > quiet_ms:
            self.lateness_ms_max = max(self.lateness_ms_max, late_ms)
        late_after_ms = delivery.visible_ms - max(expected_ms, quiet_ms)
        if late_after_ms > calm_phase_bound_ms(scenario, kind, delivery.process.clock):
            self.violations.append(f"{short(token)}: {late_after_ms:.0f} ms late after the faults had stopped")
        since, until = (expected_ms - EPOCH_MS) / 1000, (delivery.visible_ms - EPOCH_MS) / 1000
        bound_ms = self._lateness.bound_ms(token, delivery, since)
        if late_ms > bound_ms:
            unexcused_ms = self._lateness.unexcused_ms(token, delivery, since, until)
            if unexcused_ms > bound_ms:
                self.violations.append(
                    f"{short(token)}: {late_ms:.0f} ms late, {unexcused_ms:.0f} of them without a fault that explains "
                    f"it; at most {bound_ms:.0f} are allowed"
                )

    # --- what reached the queues --------------------------------------------------------------------------------------

    def _check_deliveries(self) -> None:
        for token, deliveries in self._auditor.deliveries.items():
            if self._tombstone(token) is not None:
                self._check_stopped(token)
            due_ms = parse(token).key.due_at_ms
            for delivery in deliveries:
                record = self._auditor.record_of(token) or self._auditor.records.get(delivery.body)
                if record is not None:
                    wrong = ", ".join(differences(record.request, delivery))
                    if wrong:
                        self.violations.append(f"{short(token)}: delivered with {wrong}")
                elif not delivery.dead_letter:
                    self.violations.append(f"{short(token)}: delivered as {delivery.body[:40]!r}, which no user sent")
                early_ms = due_ms - delivery.visible_ms - max(0, delivery.process.clock.offset_ms_max)
                if early_ms > 0.001 and not delivery.dead_letter:
                    self.violations.append(f"{short(token)}: EARLY by {early_ms:.3f} ms")
                if delivery.dead_letter and not self._may_dead_letter(delivery):
                    self.violations.append(f"{short(token)}: dead-lettered by {delivery.process.name} without a reason")
            # In the order in which they were begun: a send may take effect long after its caller gave up.
            for earlier, later in pairwise(sorted(deliveries, key=lambda delivery: delivery.flight.began_at)):
                self._check_twice(token, earlier, later)

    def _check_twice(self, token: str, earlier: Delivery, later: Delivery) -> None:
        why = self._explainer.why(parse(token).key, earlier.flight, later.flight)
        self._auditor.counts["duplicates"] += 1
        if why is None:
            self.violations.append(
                f"{short(token)}: DUPLICATE unexplained, by {earlier.process.name} at {earlier.at:.3f} and by "
                f"{later.process.name} at {later.at:.3f}"
            )
        else:
            self._auditor.counts[f"duplicate: {why}"] += 1

    def _check_stopped(self, token: str) -> None:
        for delivery in self._auditor.deliveries.get(token, []):
            how = "cancelled" if token in self._auditor.cancel_done else "stopped by a tombstone"
            self.violations.append(
                f"{short(token)}: {how}, and delivered by {delivery.process.name} at {delivery.at:.3f}"
            )

    def _may_dead_letter(self, delivery: Delivery) -> bool:
        """Its queue refused it for good, or could not be reached by this process for about the retry budget."""
        record = self._auditor.records.get(decode_job(delivery.body.encode()).body)
        if record is None:
            return False
        budget_s = self._world.settings.retry_budget_s
        at = delivery.flight.began_at
        episodes = self._auditor.fault_injector.bad_queues.get(queue_of(record.request), [])
        for_good = [episode for episode in episodes if episode.for_good]
        if any(episode.since <= at <= episode.until + _REFUSED_BEFORE_S for episode in for_good):
            return True
        # It may have been suspended between the refusal and the dead-letter queue.
        sends = self._world.evidence.sends[delivery.token]
        tried = [a.at for a in sends if a.flight.process == delivery.process.name and not a.done]
        if any(episode.since <= tried_at <= episode.until for episode in for_good for tried_at in tried[-1:]):
            return True
        disturbed = [(episode.since, episode.until) for episode in episodes]
        disturbed += [(d.since, d.until) for d in self._world.evidence.disturbances.get(delivery.process.name, [])]
        window = (at - 2 * budget_s, at)
        failing_s = sum(max(0.0, min(until, window[1]) - max(since, window[0])) for since, until in disturbed)
        return failing_s >= 0.5 * budget_s

    # --- what is left -------------------------------------------------------------------------------------------------

    def _check_remains(self) -> None:
        world, auditor = self._world, self._auditor
        for trigger in world.table.triggers():
            token = trigger.token
            # A tombstone ends a job whether or not its user got a response.
            ended = auditor.deliveries.get(token) or token in auditor.move_done or self._tombstone(token) is not None
            if not (ended and self._explainer.resurrected(trigger.key)):
                self.violations.append(f"{short(token)}: STRANDED in the table, {due(token)}")
        inbound = world.queues.everything(world.settings.inbound_queue)
        if inbound:
            self.violations.append(f"{len(inbound)} messages are left in the inbound queue")
        foreign = [*auditor.fault_injector.poison, *auditor.forger.inbound]
        found: dict[str, None] = {}
        for message in world.queues.everything(world.settings.dead_letter_queue):
            dead_letter = read_dead_letter(message)
            if dead_letter.token is None:
                found[dead_letter.body] = None
                if dead_letter.body not in foreign:
                    self.violations.append(f"a good inbound message was dead-lettered: {dead_letter.reason}")
        self.violations.extend(
            "a poisoned or forged message did not reach the dead-letter queue" for body in foreign if body not in found
        )
        self._check_retirement()

    def _check_retirement(self) -> None:
        settings, scenario = self._world.settings, self._world.scenario
        width_ms = scenario.bucket_width_s * 1000
        slack_ms = (settings.retire_grace_s + 3 * settings.lease_ttl_s + 10) * 1000 + scenario.skew_ms_max * 2
        finished_at = min(self._world.loop.time(), self._auditor.finished_at)
        expected = int((EPOCH_MS + finished_at * 1000 - slack_ms) // width_ms) - 2
        for record in self._world.table.shards():
            if record.retired_before < expected:
                behind = expected - record.retired_before
                self.violations.append(f"shard {record.shard}: retirement is {behind} buckets behind")
        clocks = {process.name: process.clock for process in self._world.processes}
        for retirement in self._world.evidence.retirements:
            ended_ms = retirement.bucket * width_ms + settings.retire_grace_s * 1000
            early_ms = ended_ms - (EPOCH_MS + retirement.at * 1000) - clocks[retirement.process].offset_ms_max
            if early_ms > 0:
                self.violations.append(
                    f"shard {retirement.shard}: bucket {retirement.bucket - 1} was retired by {retirement.process} "
                    f"at {retirement.at:.3f}, {early_ms:.0f} ms before its grace had passed"
                )

    def _tombstone(self, token: str) -> Tombstone | None:
        return self._world.table.peek(parse(token).key).tombstone
