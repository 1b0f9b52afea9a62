"""The conservation ledger: every job that comes in must go out. Pure: counts, windows and their balance.

A *flow* is one of the things that happen to a job (`Flow`). Every process counts the flows of the jobs it handles, by
*window* of their due time, which it knows of every job. Once a window is over, none of its jobs should be pending, so
its counts must balance::

    accepted + moved in = moved out + delivered + cancelled + dead-lettered

What is missing on the right is the *gap*: jobs that were accepted and never went out. What is too much there is the
*surplus*: jobs delivered twice, or accepted without being counted. Why it is done like this, and where each flow is
counted: ``docs/decisions/0005-the-ledger.md``.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

WINDOWS_MAX = 10_000
"""Windows with counts in one process's memory: more than a year of hours."""
_FORGOTTEN_AT_ONCE = WINDOWS_MAX // 10


class Flow(IntEnum):
    """What happens to a job; also its place in `Counts`."""

    ACCEPTED = 0
    MOVED_IN = 1
    MOVED_OUT = 2
    DELIVERED = 3
    CANCELLED = 4
    DEAD_LETTERED = 5


FLOWS = tuple(flow.name.lower() for flow in Flow)
"""The flows' names, as fields, attributes and labels have them."""


class Counts(NamedTuple):
    """Jobs, by `Flow`."""

    accepted: int = 0
    moved_in: int = 0
    moved_out: int = 0
    delivered: int = 0
    cancelled: int = 0
    dead_lettered: int = 0

    @property
    def pending(self) -> int:
        """Jobs that came in and have not gone out; negative when more went out than came in."""
        out = self.moved_out + self.delivered + self.cancelled + self.dead_lettered
        return self.accepted + self.moved_in - out

    def plus(self, other: Counts) -> Counts:
        """The sum, flow by flow."""
        return Counts(*map(int.__add__, self, other))


class Tally:
    """What one process has counted and not yet posted, by window. Bounded by `WINDOWS_MAX`.

    Past that bound the farthest windows are dropped: they hold accepted jobs, above all, so that the error shows as a
    surplus once they are over, and not as a gap.
    """

    def __init__(self, window_ms: int) -> None:
        assert window_ms > 0
        self._window_ms = window_ms
        # In the order of their first counts: the longest waiting first.
        self._windows: dict[int, list[int]] = {}
        self.forgotten_jobs = 0
        """Counts lost to the bound."""

    def __len__(self) -> int:
        return len(self._windows)

    def add(self, flow: Flow, due_at_ms: int, jobs: int = 1) -> None:
        """Count ``jobs`` due at that time; a negative number takes back what was counted before."""
        self._add(flow, due_at_ms // self._window_ms, jobs)

    def add_all(self, flow: Flow, due_ats_ms: Sequence[int]) -> None:
        """Count a batch of jobs by their due times."""
        width = self._window_ms
        if len(due_ats_ms) > 1:
            # Most batches lie within one window: two comparisons a job, in C.
            first = min(due_ats_ms) // width
            if first == max(due_ats_ms) // width:
                self._add(flow, first, len(due_ats_ms))
            else:
                for window, jobs in Counter([due_at_ms // width for due_at_ms in due_ats_ms]).items():
                    self._add(flow, window, jobs)
        elif due_ats_ms:
            self._add(flow, due_ats_ms[0] // width, 1)

    def take(self, now_ms: int, windows_max: int) -> dict[int, Counts]:
        """Take out the counts of up to ``windows_max`` windows, by the window's start, ms.

        Windows that are over, or soon will be, go first; then those that have waited longest, at least one each time.
        """
        assert windows_max > 1
        soon = now_ms // self._window_ms + 1
        near = [window for window in self._windows if window <= soon][: windows_max - 1]
        far = (window for window in self._windows if window > soon)
        chosen = [*near, *itertools.islice(far, windows_max - len(near))]
        taken = {window * self._window_ms: Counts(*self._windows.pop(window)) for window in chosen}
        return {start_ms: counts for start_ms, counts in taken.items() if any(counts)}

    def _add(self, flow: Flow, window: int, jobs: int) -> None:
        counts = self._windows.get(window)
        if counts is None:
            if len(self._windows) >= WINDOWS_MAX:
                self._forget_farthest()
            counts = self._windows[window] = [0] * len(Flow)
        counts[flow] += jobs

    def _forget_farthest(self) -> None:
        for window in sorted(self._windows)[-_FORGOTTEN_AT_ONCE:]:
            self.forgotten_jobs += sum(map(abs, self._windows.pop(window)))


class _NotKept(Tally):
    def add(self, flow: Flow, due_at_ms: int, jobs: int = 1) -> None:
        pass

    def add_all(self, flow: Flow, due_ats_ms: Sequence[int]) -> None:
        pass


NOT_KEPT = _NotKept(1)
"""Counts nothing: for where no ledger is kept."""


class Posting(NamedTuple):
    """Counts to be added to the ledger."""

    posting_id: str
    """Identifies it, so that posting it again changes nothing."""
    windows: Mapping[int, Counts]
    """By the window's start, ms."""


class LedgerStore(Protocol):
    """The fleet's ledger of one window width. Every verb may raise what those of `dynein.core.trigger_store` may."""

    async def post(self, posting: Posting) -> None:
        """Add all of it, or nothing. After `dynein.errors.Unavailable` it may have been done: post it again, as it was.

        A repeat is recognised for ten minutes.
        """

    async def read(self, from_ms: int, until_ms: int) -> dict[int, Counts]:
        """Windows that start in ``[from_ms, until_ms)`` and have counts, by start, ms, in order."""


class Closing(NamedTuple):
    """When a window is over: ``grace_ms`` after its end."""

    window_ms: int
    grace_ms: int

    def closed(self, now_ms: int, look_back_ms: int) -> tuple[int, int]:
        """The range of starts of the windows that have closed within the last ``look_back_ms`` (rounded up)."""
        until_ms = (now_ms - self.grace_ms) // self.window_ms * self.window_ms
        windows = -(-look_back_ms // self.window_ms)
        return max(0, until_ms - windows * self.window_ms), max(0, until_ms)


def windows_within(from_ms: int, until_ms: int, window_ms: int) -> range:
    """The starts of the windows that a span of time touches, ms."""
    return range(from_ms // window_ms * window_ms, until_ms + 1, window_ms)


class Row(NamedTuple):
    """One window, to show. Its balance counts once it is ``closed``."""

    start_ms: int
    end_ms: int
    closed: bool
    counts: Counts


def rows(windows: Mapping[int, Counts], closing: Closing, now_ms: int) -> list[Row]:
    """``windows`` as `LedgerStore.read` returns them, and which of them are closed."""
    _, closed_until_ms = closing.closed(now_ms, 0)
    return [
        Row(start_ms, start_ms + closing.window_ms, start_ms < closed_until_ms, counts)
        for start_ms, counts in windows.items()
    ]


class Balance(NamedTuple):
    """The sum of closed windows."""

    flows: Counts
    gap_jobs: int
    """Accepted and never out: the sum over the windows where jobs are missing."""
    surplus_jobs: int
    """Out more often than accepted: the sum over the windows where that is so."""


def balance_of(windows: Iterable[Counts]) -> Balance:
    """Gaps and surpluses are summed apart: one window's duplicate must not hide another's loss."""
    flows, gap_jobs, surplus_jobs = Counts(), 0, 0
    for counts in windows:
        flows = flows.plus(counts)
        gap_jobs += max(0, counts.pending)
        surplus_jobs += max(0, -counts.pending)
    return Balance(flows, gap_jobs, surplus_jobs)
