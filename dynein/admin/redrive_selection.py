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


def outgoing(
    dead_letter: DeadLetter, inbound_queue: str, seal: Seal, own_queues: Container[str]
) -> tuple[str, OutgoingMessage]:
    """The queue that a dead letter goes to, and the message.

    Raises `ValueError` when this deployment did not sign it, when it cannot be read, or when it is a job for one of
    ``own_queues``.
    """
    if dead_letter.kind != KIND_JOB:
        # One that the ingester cannot read would only come back.
        for entry in unpack(dead_letter.body, seal).unreadable:
            raise ValueError(entry.reason)
        return inbound_queue, OutgoingMessage(dead_letter.body, {})
    if dead_letter.token is None or dead_letter.due_at_ms is None:
        raise ValueError("the dead letter has no token or no due time")
    if not dead_letter.is_ours(seal):
        raise ValueError(
            "its signature is not this deployment's: another program wrote or changed it, "
            "or a process with other DYNEIN_TOKEN_SECRETS"
        )
    job = decode_job(dead_letter.body)
    if name_of(job.queue) in own_queues:
        raise ValueError("the job is for one of Dynein's own queues")
    fifo = is_fifo(job.queue)
    return job.queue, outgoing_message(job, dead_letter.token, dead_letter.due_at_ms + job.lead_ms, fifo=fifo)


def may_be_forgotten(dead_letter: DeadLetter, seal: Seal, now_ms: int) -> bool:
    """Could the tombstone or the claim of one of its jobs have been deleted, or be before it is ingested?

    Only of an inbound message, which goes back to an ingester. A dead-lettered job could not be cancelled any more.
    """
    if dead_letter.kind == KIND_JOB:
        return False
    due_min_ms = now_ms - (MARKER_TTL_S - INGEST_WITHIN_S) * 1000
    return any(arrival.key.due_at_ms < due_min_ms for arrival in unpack(dead_letter.body, seal).arrivals)


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
