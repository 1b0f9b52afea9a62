"""The ingester's decisions. Pure: what is known comes in, what to do comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dynein.core.inbound_message import Arrival
from dynein.core.job import is_for_fifo_queue

HOLD_MARK_EXTRA_MS = 1000
"""A hold mark is raised this much further than necessary, so that a stream of near jobs raises it once a second."""


class Triage(NamedTuple):
    """Arrivals by what is done with them, in the order they came."""

    near: list[Arrival]
    """Due within the hold window, or already: held in memory until due, then sent."""
    far: list[Arrival]
    """Stored."""


class KnownMarks(NamedTuple):
    """What is known of one shard's marks, and since when (monotonic seconds, before the read was begun).

    Marks only rise, so each is a lower bound for good.
    """

    read_mark_ms: int
    hold_mark_ms: int
    as_of: float

    @property
    def cancel_mark_ms(self) -> int:
        """Jobs due at or before this can no longer be cancelled."""
        return max(self.read_mark_ms, self.hold_mark_ms)


class HoldWindows(NamedTuple):
    """What is due within how long of now, milliseconds, is held and not stored."""

    hold_ms: int
    fifo_ms: int
    """For FIFO queues. Jobs of a message group that are stored have one sender, the dispatcher of their shard; of those
    that are held, each ingester sends its own. So a job is stored if its dispatcher will most likely read it in time,
    though it is written behind the read mark."""


def triage(arrivals: Sequence[Arrival], now_ms: int, windows: HoldWindows) -> Triage:
    """Separate what is due within the window, or already, from the rest.

    Marks play no part: if a dispatcher's clock has been hours ahead, so is its read mark, and holding everything up to
    it would fill the memory for near jobs. Such a trigger is stored and reported late.
    """
    result = Triage([], [])
    for arrival in arrivals:
        due_in_ms = arrival.key.due_at_ms - now_ms
        held = due_in_ms <= windows.fifo_ms or (
            due_in_ms <= windows.hold_ms and not is_for_fifo_queue(arrival.trigger.record)
        )
        (result.near if held else result.far).append(arrival)
    return result


def hold_mark_ms(due_at_ms: int, now_ms: int, hold_window_ms: int) -> int:
    """What to raise a hold mark to, to hold a job due at ``due_at_ms``."""
    return max(now_ms + hold_window_ms + HOLD_MARK_EXTRA_MS, due_at_ms)


def may_be_read(
    due_at_ms: int, known: KnownMarks, *, now_ms: int, now: float, read_ahead_ms: int, skew_max_ms: int
) -> bool:
    """Could the read mark have reached ``due_at_ms``? If not, there is no need to read it again.

    A read mark follows its owner's wall clock, ``read_ahead_ms`` ahead of it. So it is about where it was, plus the
    time since; or, if the shard had no owner for a while, near our own clock. ``skew_max_ms`` covers what two wall
    clocks may differ by.
    """
    kept_pace_ms = known.read_mark_ms + int((now - known.as_of) * 1000)
    return due_at_ms <= max(kept_pace_ms, now_ms + read_ahead_ms) + skew_max_ms
