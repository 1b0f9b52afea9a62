"""Log lines about each job of a message. They cost nothing while their level is off."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dynein.core.trigger import Trigger
from dynein.observability.events.delivery import JOB_STOPPED
from dynein.observability.events.event import Event
from dynein.observability.events.ingest import ROLE


def log_each(event: Event, triggers: Iterable[Trigger]) -> None:
    """Log ``event`` for each of ``triggers``."""
    if event.enabled:
        for key, token, _ in triggers:
            event.log(token=token, shard=key.shard, due_at_ms=key.due_at_ms)


def log_stopped(triggers: Sequence[Trigger], stopped: Sequence[bool]) -> None:
    """Log those that were cancelled or moved: ``stopped`` says which, in the order of ``triggers``."""
    if JOB_STOPPED.enabled:
        for (key, token, _), is_stopped in zip(triggers, stopped, strict=True):
            if is_stopped:
                JOB_STOPPED.log(role=ROLE, token=token, shard=key.shard, due_at_ms=key.due_at_ms)
