"""The conservation ledger of a fleet under fault: it closes to zero, but for two things that are known from the calls.

A process that is killed takes its last counts with it (docs/decisions/0005-the-ledger.md): which jobs it had counted
since its last posting bounds what may be missing in a window. And a posting whose response was lost is repeated under
its id, which DynamoDB recognises; the engine here does not, and counts it again (docs/reference/engines.md): that is
taken back.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dynein.core.job_token import parse
from tests.acceptance.fleet import Fleet
from tests.chaos.evidence import Evidence, Posting
from tests.chaos.wire import OK

WINDOW_S = 30
INTERVAL_S = 2
GRACE_S = 60
SETTINGS = {
    "DYNEIN_LEDGER_WINDOW_S": str(WINDOW_S),
    "DYNEIN_LEDGER_INTERVAL_S": str(INTERVAL_S),
    "DYNEIN_LEDGER_GRACE_S": str(GRACE_S),
}


class Death(NamedTuple):
    """A process ended then without posting its last counts."""

    process: str
    at_ms: int


class Window(NamedTuple):
    """A closed window of the ledger."""

    start_ms: int
    missing: int
    """Jobs that came in and did not go out; negative: too many."""


def closed_at_ms(due_at_ms: int) -> int:
    """When the window is closed in which a job is due."""
    return (due_at_ms // (WINDOW_S * 1000) + 1) * WINDOW_S * 1000 + GRACE_S * 1000


async def closed_windows(fleet: Fleet) -> list[Window]:
    """Those of the run so far, as ``dynein ledger`` shows them."""
    shown = await fleet.run("ledger", "--json", "--hours", "24", **SETTINGS)
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert rows, shown
    return [Window(row["start_ms"], row["pending"]) for row in rows if row["closed"]]


def lost_counts(evidence: Evidence, deaths: Iterable[Death]) -> Counter[int]:
    """How many jobs of each window, by its start, may have been counted on their way out by those alone."""
    lost: Counter[int] = Counter()
    for process, at_ms in deaths:
        posted = [p.call for p in evidence.postings if p.call.process == process and p.call.known]
        posted_ms = max((call.asked_at_ms for call in posted if call.passed_at_ms <= at_ms), default=0)
        for due_at_ms in _ended_by(evidence, process, posted_ms, at_ms):
            lost[due_at_ms // (WINDOW_S * 1000) * WINDOW_S * 1000] += 1
    return lost


def counted_again(postings: Iterable[Posting]) -> tuple[Counter[int], Counter[int]]:
    """By window: what came in and did not go out by postings that were done before; and by those that may have been.

    What an engine that was killed had in its hands it may have done.
    """
    certain: Counter[int] = Counter()
    possible: Counter[int] = Counter()
    done: set[str] = set()
    for call, posting_id, windows in postings:
        for start_ms, counts in windows.items():
            if call.status == OK and posting_id in done:
                certain[start_ms] += counts.pending
            elif not call.answered_at_ms:
                possible[start_ms] += max(0, counts.pending)
        if call.status == OK:
            done.add(posting_id)
    return certain, possible


def _ended_by(evidence: Evidence, process: str, from_ms: int, until_ms: int) -> Iterator[int]:
    """The due times of the jobs that a process delivered, dead-lettered, cancelled or moved away."""
    for trail in evidence.trails.values():
        done = [(sent.call, parse(sent.token).key.due_at_ms) for sent in trail.sends] + list(trail.ends)
        for call, due_at_ms in done:
            # What was answered after the posting was asked for cannot be in it.
            if call.process == process and call.known and from_ms <= call.passed_at_ms <= until_ms:
                yield due_at_ms


def unexplained(windows: Iterable[Window], evidence: Evidence, deaths: Iterable[Death]) -> list[str]:
    """The windows in which more is missing than those who died can have taken with them."""
    lost = lost_counts(evidence, deaths)
    certain, possible = counted_again(evidence.postings)
    return [
        f"{missing} missing in the window of {start_ms}: {certain[start_ms]} by postings counted again, perhaps"
        f" {possible[start_ms]} more, and perhaps {lost[start_ms]} that were counted by processes that were killed"
        for start_ms, missing in windows
        if missing - certain[start_ms] > lost[start_ms] + possible[start_ms]
    ]
