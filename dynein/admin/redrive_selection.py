"""Which dead letters a redrive takes, where each of them goes, and in which batches. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple

from dynein.core.delivered_message import outgoing_message
from dynein.core.inbound_message import unpack
from dynein.core.job import decode_job
from dynein.core.queue_address import is_fifo, name_of
from dynein.core.queues import OutgoingMessage, Received, message_bytes
from dynein.core.seal import Seal
from dynein.core.trigger_store import MARKER_TTL_S
from dynein.delivery.dead_letter_queue import KIND_JOB, DeadLetter

INGEST_WITHIN_S = 86_400
"""What a redriven inbound message may take until an ingester has looked up its jobs' tombstones."""


class Selection(NamedTuple):
    """Which dead letters to redrive; ``None`` selects all."""

    queue: str | None = None
    """Only jobs for this destination, as the job names it (for a URL, its last part will do)."""
    reason: str | None = None
    """Only dead letters whose reason contains this."""

    def selects(self, dead_letter: DeadLetter, queue: str | None) -> bool:
        """Is it selected? ``queue``: where it goes, ``None`` if that is unknown."""
        if self.queue is not None and (
            dead_letter.kind != KIND_JOB or queue is None or self.queue not in {queue, name_of(queue)}
        ):
            return False
        return self.reason is None or self.reason in dead_letter.reason


class Redrivable(NamedTuple):
    """A dead letter to be redriven: as it was received, where it goes, and what is sent there."""

    received: Received
    queue: str
    message: OutgoingMessage


class Outgoing(NamedTuple):
    """Where a dead letter goes, and what is sent there."""

    queue: str
    message: OutgoingMessage
    earliest_ms: int | None = None
    """Of an inbound message: when the first of its jobs is due."""


def outgoing(dead_letter: DeadLetter, inbound_queue: str, seal: Seal, own_queues: Container[str]) -> Outgoing:
    """What to send for a dead letter.

    Raises `ValueError` when this deployment did not sign it, when it cannot be read, or when it is a job for one of
    ``own_queues``.
    """
    if dead_letter.kind != KIND_JOB:
        arrivals, unreadable = unpack(dead_letter.body, seal)
        for entry in unreadable:  # the ingester could not read it either, and it would only come back
            raise ValueError(entry.reason)
        earliest_ms = min((arrival.key.due_at_ms for arrival in arrivals), default=None)
        return Outgoing(inbound_queue, OutgoingMessage(dead_letter.body, {}), earliest_ms)
    if dead_letter.token is None or dead_letter.due_at_ms is None:
        raise ValueError("the dead letter has no token or no due time")
    if not dead_letter.is_ours(seal):
        raise ValueError(
            "its signature is not this deployment's: another program wrote or changed it, "
            "or a process with other DYNEIN_TOKEN_SECRETS"
        )
    job = decode_job(dead_letter.body.encode())
    if name_of(job.queue) in own_queues:
        raise ValueError("the job is for one of Dynein's own queues")
    wanted_at_ms = dead_letter.due_at_ms + job.lead_ms
    return Outgoing(job.queue, outgoing_message(job, dead_letter.token, wanted_at_ms, fifo=is_fifo(job.queue)))


def may_be_forgotten(to_send: Outgoing, now_ms: int) -> bool:
    """Could the tombstone or the claim of one of its jobs have been deleted, or be before it is ingested?

    Only of an inbound message, which goes back to an ingester. A dead-lettered job could not be cancelled any more.
    """
    due_min_ms = now_ms - (MARKER_TTL_S - INGEST_WITHIN_S) * 1000
    return to_send.earliest_ms is not None and to_send.earliest_ms < due_min_ms


def batches(dead_letters: Sequence[Redrivable], message_bytes_max: int) -> Iterator[list[Redrivable]]:
    """By destination, each within the payload limit of a call."""
    by_queue = sorted(dead_letters, key=lambda dead_letter: dead_letter.queue)
    for _, group in itertools.groupby(by_queue, lambda dead_letter: dead_letter.queue):
        batch: list[Redrivable] = []
        batch_bytes = 0
        for dead_letter in group:
            size = message_bytes(dead_letter.message.body, dead_letter.message.attributes)
            if batch and batch_bytes + size > message_bytes_max:
                yield batch
                batch, batch_bytes = [], 0
            batch.append(dead_letter)
            batch_bytes += size
        yield batch
