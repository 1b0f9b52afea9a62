"""A due job, ready for delivery, and how its delivery may end."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from dynein.core.delivered_message import outgoing_bytes, outgoing_message
from dynein.core.job import Job
from dynein.core.queues import OutgoingMessage
from dynein.core.trigger import Trigger


class Outcome(Enum):
    """How a delivery ended."""

    SENT = "sent"
    DEAD_LETTERED = "dead_lettered"
    ABANDONED = "abandoned"
    """Not sent: the lease ran out, or the process is shutting down. The job is still stored."""


class DueJob(NamedTuple):
    """A due job. ``may_send`` is called right before each try (is the shard still ours?)."""

    trigger: Trigger
    job: Job
    may_send: Callable[[], bool]

    @property
    def wanted_at_ms(self) -> int:
        """When the caller wants it on its queue. It is sent earlier if that queue delays every message."""
        return self.trigger.key.due_at_ms + self.job.lead_ms

    def message(self, *, fifo: bool) -> OutgoingMessage:
        """What the destination gets."""
        return outgoing_message(self.job, self.trigger.token, self.wanted_at_ms, fifo=fifo)

    def size(self) -> int:
        """The size of that in bytes, as SQS counts."""
        return outgoing_bytes(self.job, self.wanted_at_ms)
