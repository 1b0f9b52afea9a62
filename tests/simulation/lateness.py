"""How late a job may be: not at all without faults; with faults, as long as one that concerns it is on or is recent.

A job that was stored in good time is a dispatcher's: what kept ingesters from working does not excuse it.

Whatever the faults, and for every job: of the time by which it was late, only so much may be left as a job may be late
without any fault, once the times are taken out during which a fault kept somebody from working on it, each with the
recovery that the product states for that fault. So one outage excuses its own length and the recovery after it; a job
that is forgotten until its bucket comes up for retirement is always a violation.

============================  ==========================================================================================
fault                         excuses, besides its own length
============================  ==========================================================================================
a call fails, or is slow      its timeout, and the pause before it is repeated
the same, for a receive; an   until the messages become visible again, as well
unexpected error
a shard is without an owner   until it has been taken, and read; for jobs of that shard only
a process dies, freezes, is   the shards are taken and the inbound messages become visible: `Scenario.recovery_s`
cut off, starts or stops
a destination fails           the lanes' longest pause; for jobs of that destination only
a partition takes no writes   the longest pause between two writes; for jobs of that partition only
============================  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from dynein.core.job_token import TokenKind, parse
from dynein.core.keys import TriggerKey, bucket_of
from dynein.server.assembly import API, DISPATCHER, INGESTER
from tests.simulation.flight import OUTSIDE_OF_JOBS, Fate, Flight
from tests.simulation.process import ProcessClock
from tests.simulation.scenario import Scenario
from tests.simulation.world import EPOCH_MS

if TYPE_CHECKING:
    from tests.simulation.auditor import Auditor, Delivery

_JITTER_MS = 1_500.0
"""A tick, some calls, an orderly handover between two dispatchers."""
_BUCKET_READ_MS = 75.0
"""A page of an open bucket, taken in. A late write has all of them read again, one after another; one that comes while
that is under way, once more."""
_AMPLE = 1_000
_PROMPT_S = 0.6
"""From a due time to the first try, where all is well: some calls that are under way may have to end first."""
_INGEST_BACKOFF_S = 5.0
"""Longest pause of an ingester that met errors (`dynein.ingest.ingester`)."""
_INBOUND_VERBS = ("receive", "delete", "extend")

_BOTH = (INGESTER, DISPATCHER)

_CROWD = 100
"""Jobs due at about the same time: some batches, or a backlog."""

Span = tuple[float, float]


def calm_phase_bound_ms(scenario: Scenario, kind: TokenKind, sender: ProcessClock) -> float:
    """By how much a job may be late without faults. Its sender waits for its due time by its own clock."""
    bound_ms = _JITTER_MS + max(0, -sender.offset_ms_min)
    if kind in (TokenKind.SCHEDULED, TokenKind.PREPARED):
        open_s = scenario.settings.retire_grace_s + scenario.settings.read_ahead_s
        bound_ms += 2 * _BUCKET_READ_MS * open_s / scenario.bucket_width_s
    if scenario.settings.read_ahead_jobs_max < _AMPLE:
        # A dispatcher whose buffer is full of jobs due soon has no room for one moved before them.
        bound_ms += scenario.settings.read_ahead_s * 1000
    if scenario.settings.held_jobs_max < _AMPLE:
        # Nor has an ingester that holds as many jobs due later as it may.
        bound_ms += scenario.settings.hold_window_s * 1000
    if kind is TokenKind.SQS_DELAYED:
        # SQS counts the delay from when the message reaches it, and the call may have been slow.
        bound_ms += scenario.settings.call_timeout_s * 1000
    return bound_ms


class Lateness:
    """What excuses lateness in one run that is over."""

    def __init__(self, auditor: Auditor) -> None:
        self._world = auditor.world
        self._scenario = auditor.world.scenario
        self._settings = auditor.world.settings
        self._queue_faults = auditor.fault_injector.bad_queues
        self._roles = {process.name: process.roles for process in self._world.processes}
        self._everybody = _merged([*self._calls(_BOTH), *self._processes(_BOTH)])
        self._dispatchers = _merged([*self._calls((DISPATCHER,)), *self._processes((DISPATCHER,))])
        self._jobs = len(auditor.records)

    def unexcused_ms(self, token: str, delivery: Delivery, since: float, until: float) -> float:
        """How long it was late while nothing excused that. It should have been delivered at ``since``."""
        kind, key = parse(token)
        spans = [*self._destination(delivery.queue)]
        spans += self._dispatchers if self._was_stored(key, since) else self._everybody
        if kind in (TokenKind.SCHEDULED, TokenKind.PREPARED):
            spans += [*self._partition(key), *self._shard(key.shard)]
        return 1000 * _uncovered(since, until, _merged(spans))

    def bound_ms(self, token: str, delivery: Delivery, since: float) -> float:
        """How much of it may be left. More than in the calm phase: there are bursts, and bounds may be very low."""
        s, (kind, key) = self._settings, parse(token)
        bursts_s = 1.0 + 0.04 * 200.0 / s.page_jobs_max  # a burst is read page by page, and some take long
        crowd, crowd_s = min(self._jobs, _CROWD), 0.0
        least = min(s.read_ahead_jobs_max, s.lane_waiting_max)
        if least < _AMPLE:
            crowd_s += crowd / least * (s.tick_s + 0.5)
        skew_s = 0.0
        if not self._was_stored(key, since):
            ingesters = max(1, min(4, sum(INGESTER in roles for roles in self._roles.values())))
            crowd_s += self._jobs * ingesters / s.ingest_rate_per_s
            if s.held_jobs_max < _AMPLE:
                crowd_s += crowd / s.held_jobs_max * s.hold_window_s
            skew_s = 2.0 * self._scenario.skew_ms_max / 1000  # an ingester's clock says what is near
        return calm_phase_bound_ms(self._scenario, kind, delivery.process.clock) + 1000 * (bursts_s + crowd_s + skew_s)

    def _was_stored(self, key: TriggerKey, at: float) -> bool:
        """Was its trigger in the store in good time? Then no ingester had anything more to do."""
        in_time = at - self._settings.read_ahead_s
        return any(fact.stored for fact in self._world.evidence.facts.of_key.get(key, []) if fact.sure_at <= in_time)

    # --- from a page to its first try ---------------------------------------------------------------------------------

    def unprompt(self) -> Iterable[str]:
        """Jobs that a dispatcher had in memory in good time and did not try to send at their due time.

        Only where nothing was wrong, and memory and lanes had room for all. A FIFO queue takes one call at a time.
        """
        s, evidence = self._settings, self._world.evidence
        ample = min(s.read_ahead_jobs_max, s.lane_waiting_max) >= _AMPLE
        if not ample or self._scenario.has("slow") or self._scenario.has("step"):
            return
        clocks = {process.name: process.clock for process in self._world.processes}
        for token, tries in evidence.sends.items():
            flights = [
                a.flight for a in tries if a.flight.role == "dispatcher" and not a.flight.target.endswith(".fifo")
            ]
            if not token or not flights:
                continue
            key = parse(token).key
            first = min(flights, key=lambda flight: flight.began_at)
            pages = [r for r in evidence.reads.get(key, []) if r.flight.process == first.process]
            read_at = max((_answered_at(r.flight) for r in pages if r.at <= first.began_at), default=first.began_at)
            due_s = (key.due_at_ms - EPOCH_MS - clocks[first.process].offset_ms) / 1000
            since = max(due_s, read_at)
            late_s = first.began_at - since
            spans = _merged([*self._everybody, *self._destination(first.target.rpartition("/")[2])])
            if late_s > _PROMPT_S and _uncovered(since - _PROMPT_S, first.began_at, spans) >= late_s:
                yield f"{token[12:24]}: in the memory of {first.process}, and not tried for {late_s:.3f} s"

    # --- excuses ------------------------------------------------------------------------------------------------------

    def _calls(self, roles: Collection[str]) -> Iterable[Span]:
        for flights in self._world.evidence.troubled_calls.values():
            for flight in flights:
                if flight.role in roles or flight.role not in (API, *_BOTH, *OUTSIDE_OF_JOBS):
                    yield flight.began_at, flight.began_at + self._repeated_s(flight)

    def _repeated_s(self, flight: Flight) -> float:
        s = self._settings
        seconds = max(s.call_timeout_s, flight.there_s + flight.back_s) + 2 * s.tick_s + 1.0
        if flight.verb in _INBOUND_VERBS or flight.fate is Fate.UNEXPECTED:
            return seconds + s.visibility_timeout_s + s.receive_wait_s + _INGEST_BACKOFF_S
        return seconds + s.backoff_max_s + (_INGEST_BACKOFF_S if flight.role == INGESTER else 0.0)

    def _processes(self, roles: Collection[str]) -> Iterable[Span]:
        s = self._settings
        recovery_s = s.lease_ttl_s + s.member_ttl_s + s.backoff_max_s + 2 * s.call_timeout_s + 4 * s.tick_s + 5.0
        if INGESTER in roles:
            recovery_s = self._scenario.recovery_s + s.receive_wait_s
        for process in self._world.processes:
            if not any(role in roles for role in process.roles):
                continue
            for disturbance in self._world.evidence.disturbances.get(process.name, []):
                yield disturbance.since, disturbance.until + recovery_s
            yield process.started_at, process.started_at + s.member_ttl_s + 4 * s.tick_s + 2.0
            if process.died_at is not None:
                yield min(process.died_at, process.told_to_stop_at), process.died_at + recovery_s

    def _destination(self, queue: str) -> Iterable[Span]:
        pause_s = self._settings.backoff_max_s + 2 * self._settings.call_timeout_s + 3 * self._settings.tick_s + 2.0
        for fault in self._queue_faults.get(queue, []):
            yield fault.since, fault.until + pause_s

    def _shard(self, shard: int) -> Iterable[Span]:
        """From when its lease was last known to be good until its next owner has read it."""
        s, evidence = self._settings, self._world.evidence
        longest_s = s.lease_ttl_s + s.member_ttl_s + s.backoff_max_s + 4 * s.tick_s + s.call_timeout_s
        heartbeats = evidence.heartbeats.get(shard, [])
        for handover in evidence.handovers:
            if handover.shard == shard and handover.owner is not None:
                before = max((at for at in heartbeats if at < handover.at), default=0.0)
                since = max(before, handover.at - longest_s)
                yield since, handover.at + 3 * s.tick_s + s.call_timeout_s + 1.0

    def _partition(self, key: TriggerKey) -> Iterable[Span]:
        bucket = bucket_of(key.due_at_ms, self._scenario.bucket_width_s * 1000)
        until = self._world.faults.hot.until(bucket, key.shard)
        if until is not None:
            yield 0.0, until + _INGEST_BACKOFF_S + 2 * self._settings.call_timeout_s + 3 * self._settings.tick_s + 2.0


def _answered_at(flight: Flight) -> float:
    return flight.began_at + flight.there_s + flight.back_s


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for since, until in sorted(spans):
        if merged and since <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(until, merged[-1][1])
        else:
            merged.append((since, until))
    return merged


def _uncovered(since: float, until: float, spans: list[Span]) -> float:
    covered = sum(max(0.0, min(until, end) - max(since, begin)) for begin, end in spans)
    return max(0.0, until - since - covered)
