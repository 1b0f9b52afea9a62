"""A due job on its last leg, how its delivery may end, and what the log says about that."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple

from dynein.core.delivered_message import outgoing_bytes, outgoing_message
from dynein.core.job import Job
from dynein.core.queues import OutgoingMessage
from dynein.core.trace_context import trace_id_of
from dynein.core.trigger import Trigger
from dynein.observability.events.delivery import JOB_DEAD_LETTERED, JOB_DELIVERED


class Outcome(Enum):
    """How a delivery ended."""

    SENT = "sent"
    DEAD_LETTERED = "dead_lettered"
    ABANDONED = "abandoned"
    """Not sent by us: the lease ran out, or we are shutting down. It is still where it was stored."""


class Parcel(NamedTuple):
    """A due job on its last leg. ``may_send`` is asked right before each try (is the shard still ours?)."""

    trigger: Trigger
    job: Job
    may_send: Callable[[], bool]

    def message(self, *, fifo: bool) -> OutgoingMessage:
        """What the destination gets."""
        return outgoing_message(self.job, self.trigger.token, self.trigger.key.due_at_ms, fifo=fifo)

    def size(self) -> int:
        """The size of that in bytes, as SQS counts."""
        return outgoing_bytes(self.job, self.trigger.key.due_at_ms)


def log_delivered(role: str, parcels: Iterable[Parcel], sent_at_ms: int) -> None:
    """SQS has acknowledged these. Ask first whether `JOB_DELIVERED` is logged at all."""
    for parcel in parcels:
        due_at_ms = parcel.trigger.key.due_at_ms
        JOB_DELIVERED.log(
            role=role,
            token=parcel.trigger.token,
            queue=parcel.job.queue,
            due_at_ms=due_at_ms,
            lateness_ms=sent_at_ms - due_at_ms,
            trace_id=trace_id_of(parcel.job.traceparent),
        )


def log_dead_lettered(role: str, parcel: Parcel, code: str, reason: str) -> None:
    """The dead-letter queue has acknowledged this one."""
    JOB_DEAD_LETTERED.log(
        role=role,
        token=parcel.trigger.token,
        queue=parcel.job.queue,
        code=code,
        reason=reason,
        due_at_ms=parcel.trigger.key.due_at_ms,
        trace_id=trace_id_of(parcel.job.traceparent),
    )
