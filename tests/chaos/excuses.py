"""What a fault excuses, and what it does not: by what it did to the processes that had the job, and no more.

A *duplicate* is excused if, before it was sent, something happened to a process that had the job (`trails`) while it
had it. *Lateness* is excused until what happened to a process that had the job, or owned its shard, is over and
overcome, as `settings` says how long that takes. *Early* a job may be by as much as the clock of a process that had it
was ahead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from tests.chaos.settings import LATE_MS, RECOVERY_MAX_MS, RECOVERY_MS
from tests.chaos.trails import Having, Trail


class Fault(NamedTuple):
    """Something was done, from then until then, to these processes; to all of them (``None``) if to what all need."""

    what: str
    processes: frozenset[str] | None
    from_ms: int
    until_ms: int
    repeats: bool = True
    """May a job be sent again because of it? Not if those concerned have only ended in good order, or waited."""
    strikes_ms: float = math.inf
    """For how long a dispatcher may repeat what falls due: one that is frozen repeats only what it was doing."""
    lost: bool = True
    """Others may have to wait until what the processes had is given to them."""
    ahead_ms: int = 0
    """By how much the clocks of these processes were ahead; negative if they were behind."""

    def concerns(self, process: str) -> bool:
        return self.processes is None or process in self.processes

    def overlaps(self, other: Fault) -> bool:
        """Was there a time at which both concerned the same process?"""
        same = self.processes is None or other.processes is None or bool(self.processes & other.processes)
        return same and self.from_ms <= other.until_ms and other.from_ms <= self.until_ms

    @property
    def overcome_ms(self) -> int:
        """When the jobs of those concerned are on their way again."""
        if not self.lost:
            return self.until_ms
        if self.processes is None:
            return self.until_ms + RECOVERY_MAX_MS
        return self.until_ms + max(RECOVERY_MS[process.partition("-")[0]] for process in self.processes)

    def struck(self, having: Having, before_ms: float) -> bool:
        """Did it happen to that process while it had the job, and before then?"""
        strikes_ms = self.strikes_ms if having.process.startswith("dispatcher") else math.inf
        return (
            self.concerns(having.process)
            and having.from_ms <= min(self.until_ms, self.from_ms + strikes_ms)
            and self.from_ms <= min(having.until_ms, before_ms)
        )


STARVED = "starved of a processor"
"""A fault that no test made: this machine was busy."""


def excuses_again(faults: Iterable[Fault], trail: Trail, having: Iterable[Having], before_ms: float) -> bool:
    """May a job with this trail have been sent once more than it had to, before then?"""
    if trail.left_waiting(before_ms):
        return True
    found = list(having)
    return any(
        fault.struck(has, before_ms)
        # Who gets no processor for a while loses nothing by it, unless what it had is given to another meanwhile.
        and (fault.repeats or (fault.what == STARVED and trail.received_again))
        for fault in faults
        for has in found
    )


def latest_ms(faults: Iterable[Fault], concerned: Callable[[Fault], bool], from_ms: int) -> int:
    """When a job must have arrived that could have been there from ``from_ms`` on, but for the faults that concern it.

    ``faults`` in the order of their beginnings: one may fall into the recovery from another.
    """
    latest = from_ms
    for fault in faults:
        if fault.from_ms <= latest + LATE_MS and fault.overcome_ms > latest and concerned(fault):
            latest = fault.overcome_ms
    return latest + LATE_MS


def clock_offsets_ms(faults: Iterable[Fault], processes: Iterable[str]) -> tuple[int, int]:
    """By how much at most the clock of any of these was ever behind, and ahead."""
    offsets = [fault.ahead_ms for fault in faults if fault.ahead_ms and any(map(fault.concerns, processes))]
    return max(0, -min(offsets, default=0)), max(0, max(offsets, default=0))
