"""The checker's own books: which jobs came in and went out, by the process that learned of it.

They are kept from what users and processes were answered (`dynein`'s tallies are not asked), by the rules of
``docs/decisions/0005-the-ledger.md``:

===============  ======================================================================================================
accepted         a user was answered that the job was accepted; taken back once for each message that an ingester
                 finished, for each create in it that repeats another's (`take_back`)
delivered        the destination acknowledged the job to a dispatcher or an ingester; for jobs that never reach the
                 trigger store, accepted and delivered are one
dead-lettered    the dead-letter queue acknowledged it
cancelled        the table answered that this call cancelled it, or did not answer
moved out        the same for a move
moved in         the table answered that this call moved it
===============  ======================================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from dynein.core.job_token import JobRef, TokenKind
from dynein.core.keys import TriggerKey
from dynein.core.ledger import Counts, Flow
from tests.simulation.evidence import Evidence

IN_STORE = (TokenKind.SCHEDULED, TokenKind.PREPARED)
"""Kinds of jobs that go through the trigger store."""


class Books:
    """Of one run, by process and by the trigger key that the job had at the time."""

    def __init__(self) -> None:
        self.by_process: dict[str, dict[TriggerKey, list[int]]] = {}
        self.doubts: Counter[TriggerKey] = Counter()
        """Cancels and moves that were not answered, and count as done."""
        self.taken_back: Counter[TriggerKey] = Counter()

    def count(self, process: str, flow: Flow, key: TriggerKey, jobs: int = 1) -> None:
        """``process`` has learned of it just now."""
        of_process = self.by_process.setdefault(process, {})
        if key not in of_process:
            of_process[key] = [0] * len(Flow)
        of_process[key][flow] += jobs

    def accepted(self, process: str, ref: JobRef) -> None:
        """A user was answered so."""
        self.count(process, Flow.ACCEPTED, ref.key)
        if ref.kind not in IN_STORE:
            self.count(process, Flow.DELIVERED, ref.key)

    def doubt(self, process: str, flow: Flow, key: TriggerKey) -> None:
        """A cancel or move was not answered."""
        self.count(process, flow, key)
        self.doubts[key] += 1

    def take_back(self, evidence: Evidence) -> None:
        """Enter what ingesters have taken back: each began to delete a message once it had finished it."""
        for message, deletes in evidence.deletes.items():
            for process in dict.fromkeys(attempt.flight.process for attempt in deletes):
                for key in repeats(evidence, message):
                    self.count(process, Flow.ACCEPTED, key, -1)
                    self.taken_back[key] += 1

    def of_key(self) -> dict[TriggerKey, Counts]:
        """Over all processes."""
        sums: dict[TriggerKey, Counts] = {}
        for of_process in self.by_process.values():
            for key, counts in of_process.items():
                sums[key] = sums.get(key, Counts()).plus(Counts(*counts))
        return sums

    def of_process(self, process: str, window_ms: int) -> dict[int, Counts]:
        """By window, as `dynein.core.ledger.Posting` has them."""
        counts = self.by_process.get(process, {}).items()
        return by_window((key.due_at_ms // window_ms * window_ms, Counts(*flows)) for key, flows in counts)


def repeats(evidence: Evidence, message: str) -> Iterator[TriggerKey]:
    """The creates in an inbound message that came after another of the same prepared token, by their jobs' keys."""
    for arrival in evidence.prepared.get(message, []):
        if evidence.claims.get(arrival.key.job_id, arrival.create_id) != arrival.create_id:
            yield arrival.key


def by_window(counts: Iterable[tuple[int, Counts]]) -> dict[int, Counts]:
    """Sums by window's start; windows without counts are left out."""
    sums: dict[int, Counts] = {}
    for start_ms, some in counts:
        sums[start_ms] = sums.get(start_ms, Counts()).plus(some)
    return {start_ms: sums[start_ms] for start_ms in sorted(sums) if any(sums[start_ms])}
