"""``dynein redrive``, when a run is over: what processes dead-lettered is sent, what was forged is not."""

from __future__ import annotations

from collections.abc import Iterator

from dynein.admin.redrive import redrive
from dynein.core.delivered_message import DUE_AT_ATTRIBUTE, TOKEN_ATTRIBUTE
from dynein.core.job import decode_job
from dynein.core.job_token import parse
from dynein.core.queue_address import name_of
from dynein.delivery.dead_letter_queue import read_dead_letter
from dynein.delivery.destinations import Destinations
from dynein.testing.queues import Sent
from tests.simulation.auditor import Auditor, short

_DEAD_LETTERS_MAX = 100_000


async def redrive_all(auditor: Auditor) -> None:
    """Once no process is left and no fault."""
    world, settings = auditor.world, auditor.world.settings
    destinations = Destinations(world.queues, world.clock, ttl_s=settings.destination_cache_s)
    world.queues.on_sent.append(auditor.redriven.append)
    report = await redrive(world.queues, destinations, world.clock, settings, dead_letters_max=_DEAD_LETTERS_MAX)
    world.trace.note("operator", f"redrives {report.redriven} dead letters; what stays: {report.failed}")


def check_redriven(auditor: Auditor) -> Iterator[str]:
    """Every violation: each message that was sent is a dead letter that a process made, and none of these is left."""
    world, forger = auditor.world, auditor.forger
    for sent in auditor.redriven:
        yield from _check_sent(auditor, sent)
    left = [read_dead_letter(message) for message in world.queues.everything(world.settings.dead_letter_queue)]
    for dead_letter in left:
        if dead_letter.token is not None and (dead_letter.body, dead_letter.token) not in forger.dead_letters:
            yield f"{short(dead_letter.token)}: its dead letter was not redriven"


def _check_sent(auditor: Auditor, sent: Sent) -> Iterator[str]:
    attributes = sent.message.attributes
    if TOKEN_ATTRIBUTE not in attributes:
        yield f"an inbound message was redriven that no API had sent: {sent.message.body}"
        return
    token = attributes[TOKEN_ATTRIBUTE].value
    dead_letters = [delivery for delivery in auditor.deliveries.get(token, []) if delivery.dead_letter]
    jobs = [decode_job(dead_letter.body.encode()) for dead_letter in dead_letters]
    if (sent.queue, sent.message.body) not in [(name_of(job.queue), job.body) for job in jobs]:
        yield f"{short(token)}: redriven to {sent.queue} as {sent.message.body!r}, and was not dead-lettered as that"
    if int(attributes[DUE_AT_ATTRIBUTE].value) != parse(token).key.due_at_ms:
        yield f"{short(token)}: redriven with another due time than its token"
