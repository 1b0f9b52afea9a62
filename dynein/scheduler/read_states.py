"""The states of a `read plan <dynein.scheduler.read_plan>`, and the one table of how they may change. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto


class IllegalTransition(Exception):
    """A bug of ours: what happened cannot happen in this state. Nothing has been changed."""


class State(Enum):
    """Four machines, which share one table. Each begins in the first of its states here."""

    CAUGHT_UP = auto()
    """Forward: everything that may be read has been read once."""
    FORWARD = auto()
    """Forward: reads what is due up to where the read mark stood a tick ago."""

    NO_REREAD = auto()
    """Reread: there is no reason to read anything again."""
    LATE_WRITES = auto()
    """Reread: all open buckets, because triggers were stored behind the read mark."""
    EVICTED = auto()
    """Reread: from the earliest evicted trigger of those destinations that have room again."""
    OLDEST_BUCKET = auto()
    """Reread: the oldest bucket, to see whether it is empty and can be retired."""

    ROOM_ASKED = auto()
    """Room: which destinations have room for what was evicted is known."""
    ROOM_UNKNOWN = auto()
    """Room: it may have changed, so that destinations have to be asked."""

    RETIRED = auto()
    """Retirement: the last renewal retired all that it was asked to."""
    REFUSED = auto()
    """Retirement: it did not, for a late write was counted meanwhile."""
    AT_ONCE = auto()
    """Retirement: a renewal is asked for without waiting for the tick. Its result is accepted, whatever it is."""


class Event(Enum):
    """What happens to a plan."""

    MARK_RISEN = auto()
    """More may be read than has been."""
    LATE_WRITES_SEEN = auto()
    """The count of late writes has changed, or the count that has settled for a tick has."""
    ROOM_FOUND = auto()
    """A destination with evicted triggers has room."""
    GRACE_OVER = auto()
    """The oldest bucket not known to be empty could be retired if it were."""
    PAGE_READ = auto()
    """A page was taken in, and there is more of the scan to read."""
    END_READ = auto()
    """The last page of the scan was taken in."""
    FULL_AGAIN = auto()
    """All destinations that the scan is for have had triggers evicted since it began."""

    ROOM_MAY_HAVE_COME = auto()
    """A tick has passed, or a destination with evicted triggers has little left to send."""
    ASKED_FOR_ROOM = auto()
    """Each destination with evicted triggers was asked."""

    RENEWED = auto()
    """The lease was renewed, and all was retired that was asked."""
    RENEWED_ONLY = auto()
    """The lease was renewed, and less was retired than was asked."""
    RETIRABLE = auto()
    """A page was read, and something can be retired now."""
    NOT_RETIRABLE = auto()
    """A page was read, and nothing can be retired now."""


TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.CAUGHT_UP: {Event.MARK_RISEN: State.FORWARD},
    State.FORWARD: {Event.PAGE_READ: State.FORWARD, Event.END_READ: State.CAUGHT_UP},
    State.NO_REREAD: {
        Event.LATE_WRITES_SEEN: State.LATE_WRITES,
        Event.ROOM_FOUND: State.EVICTED,
        Event.GRACE_OVER: State.OLDEST_BUCKET,
    },
    State.LATE_WRITES: {Event.PAGE_READ: State.LATE_WRITES, Event.END_READ: State.NO_REREAD},
    State.EVICTED: {
        Event.PAGE_READ: State.EVICTED,
        Event.END_READ: State.NO_REREAD,
        Event.FULL_AGAIN: State.NO_REREAD,
    },
    State.OLDEST_BUCKET: {Event.PAGE_READ: State.OLDEST_BUCKET, Event.END_READ: State.NO_REREAD},
    State.ROOM_ASKED: {Event.ROOM_MAY_HAVE_COME: State.ROOM_UNKNOWN},
    State.ROOM_UNKNOWN: {Event.ROOM_MAY_HAVE_COME: State.ROOM_UNKNOWN, Event.ASKED_FOR_ROOM: State.ROOM_ASKED},
    State.RETIRED: {Event.RENEWED: State.RETIRED, Event.RENEWED_ONLY: State.REFUSED},
    State.REFUSED: {
        Event.RENEWED: State.RETIRED,
        Event.RENEWED_ONLY: State.REFUSED,
        Event.RETIRABLE: State.AT_ONCE,
        Event.NOT_RETIRABLE: State.REFUSED,
    },
    State.AT_ONCE: {
        Event.RENEWED: State.RETIRED,
        Event.RENEWED_ONLY: State.RETIRED,
        Event.RETIRABLE: State.AT_ONCE,
        Event.NOT_RETIRABLE: State.REFUSED,
    },
}


def after(state: State, event: Event) -> State:
    """The state that follows. Raises `IllegalTransition` if the table has none."""
    following = TRANSITIONS[state].get(event)
    if following is None:
        raise IllegalTransition(f"{event.name} cannot happen in state {state.name}")
    return following
