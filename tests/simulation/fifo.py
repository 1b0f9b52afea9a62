"""What a FIFO destination is promised: nothing twice within SQS's window, and order within a message group.

A message group lives on one shard, whichever process accepted its jobs and however many shards there have been since.
Of jobs due at the same time, those that one process accepted first have the smaller ids. The order of a shard is that
of its keys, due time and id; to keep it is a lane's promise: one process, one role. Jobs that it holds in good time
leave in that order, one call at a time, through all retries. There is no order between processes, none in a backlog,
and none where SQS takes a later entry of one call and refuses an earlier one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from dynein.core.job_token import TokenKind, parse
from dynein.core.keys import TriggerKey
from tests.simulation.evidence import Attempt
from tests.simulation.flight import Fate
from tests.simulation.world import EPOCH_MS

if TYPE_CHECKING:
    from tests.simulation.auditor import Auditor, Delivery

_DEDUPLICATION_S = 300.0
_BACKLOG_MS = 1_000
_TAKEN_IN_S = 0.5
"""How long a trigger may take from its page into its lane."""


class _Sent(NamedTuple):
    token: str
    key: TriggerKey
    tries: list[Attempt]
    """Of the lane that sent it, up to the one that succeeded, and since it last sent the same job."""
    delivery: Delivery

    @property
    def first_try(self) -> float:
        return self.tries[0].flight.began_at

    @property
    def on_time(self) -> bool:
        """It was not part of a backlog, which is worked off shard by shard; by its sender's clock."""
        tried_ms = EPOCH_MS + self.first_try * 1000 + self.delivery.process.clock.offset_ms_max
        return tried_ms - self.key.due_at_ms < _BACKLOG_MS


def check_fifo(auditor: Auditor) -> Iterator[str]:
    """Every violation."""
    yield from _twice(auditor)
    yield from _on_several_shards(auditor)
    for lane in _lanes(auditor).values():
        for before, after in pairwise(sorted(lane, key=lambda sent: sent.delivery.order)):
            if after.first_try < before.first_try:
                if not _left_behind(auditor, after, before):
                    yield f"{before.token[12:24]} overtook {after.token[12:24]} of its group, which was being retried"
            elif after.key < before.key and before.on_time and _should_lead(auditor, after, before):
                later = "due after" if after.key.due_at_ms < before.key.due_at_ms else "accepted after"
                yield f"{before.token[12:24]} was {later} {after.token[12:24]} of its group, and sent before it"
    for batch in auditor.fifo_batches:
        yield from _out_of_order(auditor, batch)


def _on_several_shards(auditor: Auditor) -> Iterator[str]:
    """A group of which jobs are on more than one shard: more than one dispatcher may send them at a time."""
    shards: dict[tuple[str, str | None], int] = {}
    for record in auditor.records.values():
        request = record.request
        if request.queue.endswith(".fifo"):
            for token in record.tokens:
                shard = parse(token).key.shard
                known = shards.setdefault((request.queue, request.message_group_id), shard)
                if shard != known:
                    yield f"{token[12:24]} is on shard {shard}, other jobs of its group on shard {known}"


def _twice(auditor: Auditor) -> Iterator[str]:
    for token, deliveries in auditor.deliveries.items():
        to_queue = [delivery for delivery in deliveries if delivery.queue.endswith(".fifo")]
        for first, again in pairwise(to_queue):
            episodes = auditor.fault_injector.bad_queues.get(first.queue, [])
            # A queue that was removed and created anew has forgotten what it had seen.
            forgot = any(
                episode.since <= again.at and episode.until >= first.at and episode.removed for episode in episodes
            )
            if again.at - first.at < _DEDUPLICATION_S and not forgot:
                yield f"{token[12:24]}: twice on {first.queue}, at {first.at:.3f} and {again.at:.3f}"


def _lanes(auditor: Auditor) -> dict[tuple[str, ...], list[_Sent]]:
    lanes: dict[tuple[str, ...], list[_Sent]] = {}
    for token, deliveries in auditor.deliveries.items():
        sent_at: dict[tuple[str, ...], float] = {}
        for delivery in sorted(deliveries, key=lambda delivery: delivery.flight.began_at):
            flight = delivery.flight
            if not delivery.queue.endswith(".fifo") or flight.role not in ("dispatcher", "ingester"):
                continue
            lane = (flight.process, flight.role, delivery.queue, delivery.group)
            tries = [
                attempt
                for attempt in auditor.world.evidence.sends[token]
                if (attempt.flight.process, attempt.flight.role) == lane[:2]
                and sent_at.get(lane, -math.inf) < attempt.flight.began_at <= flight.began_at
            ]
            sent_at[lane] = flight.began_at
            lanes.setdefault(lane, []).append(_Sent(token, parse(token).key, tries, delivery))
    return lanes


def _should_lead(auditor: Auditor, late: _Sent, early: _Sent) -> bool:
    """Did a dispatcher have ``late`` well before ``early`` was tried, by the last page that could have contained it?"""
    flight = late.delivery.flight
    if flight.role != "dispatcher":
        return False
    if any(attempt.flight is early.delivery.flight and not attempt.done for attempt in late.tries):
        return False  # they were in one call, and SQS did not take it
    reads = auditor.world.evidence.reads.get(parse(late.token).key, [])
    mine = [read.at for read in reads if read.flight.process == flight.process and read.at <= late.first_try]
    return max(mine, default=math.inf) + auditor.world.settings.call_timeout_s + _TAKEN_IN_S < early.first_try


def _left_behind(auditor: Auditor, late: _Sent, early: _Sent) -> bool:
    """Had ``late`` to stay behind: refused in the call that took ``early``, in doubt, or evicted with its shard?"""
    calls = [attempt.flight for attempt in early.tries]
    if any(attempt.flight in calls or not attempt.flight.answered for attempt in late.tries):
        return True
    evidence, key, process = auditor.world.evidence, parse(late.token).key, late.delivery.process.name
    lease_calls = evidence.lease_calls.get(process, [])
    since, until = late.first_try - auditor.world.settings.lease_ttl_s, late.delivery.at
    if late.delivery.flight.role == "ingester" and any(
        add.flight.process == process and since <= add.flight.began_at <= until for add in evidence.adds.get(key, [])
    ):
        return True  # its lane failed for too long, so it was stored; too late for its bucket, so the ingester sent it
    return (
        any(handover.shard == key.shard and since <= handover.at <= until for handover in evidence.handovers)
        or any(since <= call.began_at <= until and call.fate is not Fate.FINE for call in lease_calls)
        or evidence.disturbed_by(process, since, until) is not None
    )


def _out_of_order(auditor: Auditor, batch: Sequence[str]) -> Iterator[str]:
    """IMMEDIATE jobs of one request leave in the order they have in it, and the ids of all rise."""
    for token, later in pairwise(batch):
        if parse(later).key.job_id <= parse(token).key.job_id:
            yield f"{later[12:24]} was accepted after {token[12:24]}, and its id does not show it"
    batch = [token for token in batch if parse(token).kind is TokenKind.IMMEDIATE]
    groups: dict[str, list[Delivery]] = {}
    for token in batch:
        for delivery in auditor.deliveries.get(token, [])[:1]:
            groups.setdefault(delivery.group, []).append(delivery)
    for deliveries in groups.values():
        for first, second in pairwise(deliveries):
            if second.order < first.order:
                yield f"{second.token[12:24]} overtook {first.token[12:24]}, which was before it in its batch"
