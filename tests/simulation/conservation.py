"""Invariant 1, by its sums: the conservation ledger balances, but for what named causes explain.

Three steps, each exact, by window of due time and by flow:

1. *What each process counted* is what the books say it learned of. Its counts are in its postings and, at the moment it
   ended, in its tally.
2. *What is in the ledger* is each posting once. Counts are lost only with a process that was killed, or that could not
   post its last ones in time at its end.
3. *The books themselves balance*, job for job, but for the causes that `_Cause` names.

So each gap and each surplus of the ledger is the sum of counts lost (step 2) and of these causes (step 3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from dynein.core.keys import TriggerKey
from dynein.core.ledger import FLOWS, Counts, Flow, balance_of
from dynein.ledger.process import CLOSE_S
from tests.simulation.books import by_window, repeats
from tests.simulation.evidence import Stop
from tests.simulation.process import Process
from tests.simulation.world import EPOCH_MS, World

if TYPE_CHECKING:
    from tests.simulation.auditor import Auditor

_NONE = Counts()
_MISSING = "missing in the ledger: "
_TOO_MANY = "too many in the ledger: "


class _Cause(Enum):
    """Why the books of one job may not balance, though each process counted all that it learned of."""

    UNANSWERED_CREATE = "its user was not answered that it was accepted"
    TAKEN_BACK_TWICE = "a repeated create was received more than once, and taken back each time"
    UNANSWERED_MOVE = "a move here was not answered"
    DUPLICATE = "delivered more than once"
    DOUBT = "a cancel or move was not answered, and was not done or done by another call"
    KILLED = "a process was killed before it was answered that its cancel or move was done"
    NEVER_CREATED = "a prepared token was cancelled, and no job was ever created with it"


class Conservation:
    """The check of one run. `violations` are all there were."""

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor
        self._world: World = auditor.world
        self._evidence = auditor.world.evidence
        self._window_ms = auditor.world.settings.ledger_window_s * 1000
        self._lost: Counter[int] = Counter()
        """By window: by how much counts that were lost change its balance."""
        self._moves_in: dict[TriggerKey, list[Stop]] = {}
        """Moves that took effect, by where they went."""
        for stops in self._evidence.stops.values():
            for stop in stops:
                if stop.to is not None:
                    self._moves_in.setdefault(stop.to, []).append(stop)
        self.violations = [*self._evidence.violations]
        auditor.world.books.take_back(self._evidence)
        for process in auditor.world.processes:
            self._check_process(process)
        self._check_balance(self._check_ledger())

    # --- 1. what each process counted -------------------------------------------------------------------------------

    def _check_process(self, process: Process) -> None:
        parts = self._world.parts.get(process.name)
        left = parts.tally.take(self._world.now_ms(), 1 << 30) if parts is not None else {}
        postings = {a.posting.posting_id: a.posting for a in self._evidence.postings.get(process.name, [])}
        taken = [left, *(posting.windows for posting in postings.values())]
        counted = by_window(item for windows in taken for item in windows.items())
        expected = self._world.books.of_process(process.name, self._window_ms)
        may_be_taken_back = self._may_be_taken_back(process)
        for start_ms in sorted({*counted, *expected}):
            for flow, jobs, wanted in zip(
                Flow, counted.get(start_ms, _NONE), expected.get(start_ms, _NONE), strict=True
            ):
                spare = may_be_taken_back[start_ms] if flow is Flow.ACCEPTED else 0
                if not wanted - spare <= jobs <= wanted:
                    what = f"counted {jobs} jobs as {FLOWS[flow]} {self._due(start_ms)}, and learned of {wanted}"
                    self._violated(process.name, what)
                elif jobs < wanted:
                    self._lost[start_ms] += wanted - jobs
                    self._auditor.counts[_TOO_MANY + _Cause.TAKEN_BACK_TWICE.value] += wanted - jobs
        self._check_lost(process, left)

    def _may_be_taken_back(self, process: Process) -> Counter[int]:
        """Repeats in messages that a process had received and not begun to delete when it ended: it may have finished
        some of them."""
        may_be: Counter[int] = Counter()
        for message, receipts in self._evidence.receipts.items():
            received = any(receipt.flight.process == process.name for receipt in receipts)
            deletes = self._evidence.deletes.get(message, [])
            if received and not any(delete.flight.process == process.name for delete in deletes):
                may_be.update(map(self._window_of, repeats(self._evidence, message)))
        return may_be

    # --- 2. what is in the ledger -----------------------------------------------------------------------------------

    def _check_lost(self, process: Process, left: Mapping[int, Counts]) -> None:
        """Note what counts a process took with it, if it may have done so."""
        attempts = self._evidence.postings.get(process.name, [])
        ids = list(dict.fromkeys(attempt.posting.posting_id for attempt in attempts))
        unapplied = [posting_id for posting_id in ids if posting_id not in self._evidence.applied]
        if unapplied not in ([], ids[-1:]):
            self._violated(process.name, "went on to another posting before one was in the ledger")
        lost = [*left.items()]
        if unapplied:
            lost += attempts[-1].posting.windows.items()
        for start_ms, counts in lost:
            self._lost[start_ms] += counts.pending
            self._auditor.counts["counts lost with a process"] += sum(map(abs, counts))
        if lost and process.exited and not self._prevented(process):
            self._violated(process.name, "ended in good order and did not post its last counts")

    def _prevented(self, process: Process) -> bool:
        """Was a process that ended by itself kept from posting its last counts in time?"""
        if process.drained_late(self._world.settings.drain_s):
            return True
        assert process.died_at is not None
        tried_for_s = CLOSE_S + self._world.settings.call_timeout_s + process.paused_s(process.told_to_stop_at)
        since = process.died_at - tried_for_s
        attempts = self._evidence.postings.get(process.name, [])
        return any(not a.acknowledged and a.flight.began_at >= since for a in attempts[-1:])

    def _check_ledger(self) -> dict[int, Counts]:
        """What is in it, by window."""
        applied = by_window(item for posting in self._evidence.applied.values() for item in posting.windows.items())
        found = {start_ms: counts for start_ms, counts in (self._auditor.ledger or {}).items() if any(counts)}
        for start_ms in sorted({*applied, *found}):
            if applied.get(start_ms) != found.get(start_ms):
                self._violated(
                    "the ledger", f"has {found.get(start_ms)} {self._due(start_ms)}, not {applied.get(start_ms)}"
                )
        return found

    # --- 3. the balance ---------------------------------------------------------------------------------------------

    def _check_balance(self, ledger: Mapping[int, Counts]) -> None:
        explained: Counter[int] = Counter()
        for key, counts in self._world.books.of_key().items():
            causes = self._imbalances(key, counts)
            for cause, jobs in causes.items():
                self._auditor.counts[(_MISSING if jobs > 0 else _TOO_MANY) + cause] += abs(jobs)
            explained[self._window_of(key)] += sum(causes.values())
        explained.subtract(self._lost)
        for start_ms in sorted({*explained, *ledger}):
            pending = ledger.get(start_ms, _NONE).pending
            if pending != explained[start_ms] and not self.violations:
                self._violated(
                    "the ledger",
                    f"misses {pending} jobs {self._due(start_ms)}, and {explained[start_ms]} are explained",
                )
        balance = balance_of(ledger.values())
        self._auditor.counts["missing in the ledger"] += balance.gap_jobs
        self._auditor.counts["too many in the ledger"] += balance.surplus_jobs

    def _imbalances(self, key: TriggerKey, counts: Counts) -> dict[str, int]:
        """What unbalances the books of one job at one due time: cause to jobs, positive where one is missing."""
        evidence = self._evidence
        creates = len(evidence.creates.get(key, {}))
        if not creates and counts.accepted:
            if counts != Counts(accepted=counts.accepted, delivered=counts.accepted):
                self._violated(self._name(key), f"was accepted and is not on the inbound queue: {counts}")
            return {}  # it went straight to its destination
        moves_in, stops = self._moves_in.get(key, []), evidence.stops.get(key, [])
        moved_in = len(moves_in)
        came = min(creates, 1) + moved_in
        delivered = counts.delivered + counts.dead_lettered
        went = len(stops) + min(delivered, 1)
        if came != went and (came, went) != (0, 1):
            self._violated(self._name(key), f"came in {came} times and went out {went} times")
        if (came, went) == (0, 1) and delivered:
            self._violated(self._name(key), "was delivered, and never created")
        taken_back = self._world.books.taken_back[key]
        stopped = counts.cancelled + counts.moved_out
        causes = {
            _Cause.UNANSWERED_CREATE: counts.accepted + taken_back - creates,
            _Cause.TAKEN_BACK_TWICE: max(creates - 1, 0) - taken_back,
            _Cause.UNANSWERED_MOVE: counts.moved_in - moved_in,
            _Cause.DUPLICATE: min(0, 1 - delivered),
            _Cause.DOUBT: min(0, len(stops) - stopped),
            _Cause.KILLED: max(0, len(stops) - stopped),
            _Cause.NEVER_CREATED: came - went,
        }
        self._check_causes(key, causes, moves_in, stops)
        return {cause.value: jobs for cause, jobs in causes.items() if jobs}

    def _check_causes(
        self, key: TriggerKey, causes: Mapping[_Cause, int], moves_in: Sequence[Stop], stops: Sequence[Stop]
    ) -> None:
        """Each cause must have happened that often; all but one make jobs too many."""
        at_most = {
            _Cause.UNANSWERED_MOVE: sum(not move.flight.answered for move in moves_in),
            _Cause.DOUBT: self._world.books.doubts[key],
            _Cause.KILLED: sum(not stop.flight.ended for stop in stops),
        }
        for cause, jobs in causes.items():
            signed = jobs if cause is _Cause.KILLED else -jobs
            if not 0 <= signed <= at_most.get(cause, signed):
                self._violated(self._name(key), f"is unbalanced by {jobs}, which is not explained by: {cause.value}")

    # ----------------------------------------------------------------------------------------------------------------

    def _violated(self, who: str, what: str) -> None:
        self.violations.append(f"LEDGER: {who} {what}")

    def _window_of(self, key: TriggerKey) -> int:
        return key.due_at_ms // self._window_ms * self._window_ms

    def _due(self, start_ms: int) -> str:
        start_s = (start_ms - EPOCH_MS) / 1000
        return f"due from {start_s:.0f} to {start_s + self._window_ms / 1000:.0f} s"

    def _name(self, key: TriggerKey) -> str:
        return f"job {key.job_id.hex()[:8]} due at {(key.due_at_ms - EPOCH_MS) / 1000:.3f}"


def check_ledger(auditor: Auditor) -> Iterator[str]:
    """Every violation."""
    yield from Conservation(auditor).violations
