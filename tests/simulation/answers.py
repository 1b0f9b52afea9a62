"""What callers are answered: each answer was true at some moment between the request and the answer.

The facts are the engines': when a key had a trigger or a tombstone, where the marks of its shard were. A cancel or a
move takes a moment to be committed; a look-up in that moment may show either side of it. The answers are those of the
tables in the documentation of the API: state, DELETE and PATCH.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from msgspec import UNSET

from dynein.api.schemas import Accepted, CancelledJob, JobRequest, JobStatus, MovedJob, MoveRequest
from dynein.core.job import Policy
from dynein.core.job_token import TokenKind, parse
from dynein.errors import Conflict, DyneinError, InvalidField, Rejected, Retryable
from tests.simulation.facts import Fact
from tests.simulation.world import EPOCH_MS, World

if TYPE_CHECKING:
    from tests.simulation.auditor import Auditor

_IN_STORE = (TokenKind.SCHEDULED, TokenKind.PREPARED)
_POLICY_OF = {TokenKind.IMMEDIATE: Policy.IMMEDIATE, TokenKind.SQS_DELAYED: Policy.SQS_DELAYED}
_KEYS_TRIED = 8
"""Milliseconds that a move may be put off, since the job must not return to a due time that it had."""


class Asked(NamedTuple):
    """One request and its answer."""

    verb: str
    what: JobRequest | MoveRequest | str
    """What was submitted; where it was to be moved; the token, of the other verbs."""
    token: str
    process: str
    since: float
    until: float
    answer: Accepted | JobStatus | CancelledJob | MovedJob | DyneinError


class AnswerCheck:
    """The check of one run. `violations` are all there were."""

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor
        self._world: World = auditor.world
        self._facts = auditor.world.evidence.facts
        self.violations = [
            f"a job due at {(key.due_at_ms - EPOCH_MS) / 1000:.3f} was cancelled or moved at {at:.3f}, behind the mark"
            for key, at in self._facts.stopped_behind_the_mark()
        ]
        for asked in auditor.asked:
            for wrong in self._wrong(asked):
                who = asked.token[12:24] or "a job"
                self.violations.append(
                    f"{who}: {asked.process} answered {asked.verb} from {asked.since:.3f} to {asked.until:.3f} "
                    f"with {_said(asked.answer)}: {wrong}"
                )

    def _wrong(self, asked: Asked) -> Iterator[str]:
        answer = asked.answer
        if isinstance(answer, Retryable):
            if not self._in_trouble(asked):
                yield "no call of that process failed or was slow meanwhile"
        elif isinstance(answer, Accepted):
            yield from self._accepted(asked, answer)
        elif isinstance(answer, JobStatus):
            yield from self._status(asked, answer)
        elif isinstance(answer, CancelledJob):
            yield from self._needs(asked, stopped="")
        elif isinstance(answer, MovedJob):
            yield from self._moved(asked, answer)
        elif isinstance(answer, Conflict):
            yield from self._conflict(asked, answer)
        else:
            yield from self._rejected(asked, answer)

    # --- what was done ------------------------------------------------------------------------------------------------

    def _accepted(self, asked: Asked, answer: Accepted) -> Iterator[str]:
        kind, key = parse(answer.token)
        request = asked.what
        assert isinstance(request, JobRequest)
        if answer.due_at_ms != key.due_at_ms:
            yield "due time and token differ"
        if answer.policy is not _POLICY_OF.get(kind, Policy.SCHEDULED):
            yield "policy and token differ"
        if request.policy not in (None, Policy.AUTO, answer.policy):
            yield f"{request.policy} was asked for"
        if request.token not in (None, answer.token):
            yield "another token was given"
        if request.cancellable and kind not in _IN_STORE:
            yield "it was to be cancellable"
        if request.token is None:
            yield from self._due(asked, request.run_at, request.delay, key.due_at_ms, put_off_ms=0)

    def _due(
        self, asked: Asked, run_at: float | str | None, delay: float | str | None, due_ms: int, *, put_off_ms: int
    ) -> Iterator[str]:
        """Is it due when it was asked for, by the clock of the process that was asked?"""
        clock = next(process for process in self._world.processes if process.name == asked.process).clock
        earliest_ms = EPOCH_MS + asked.since * 1000 + clock.offset_ms_min - 1
        latest_ms = EPOCH_MS + asked.until * 1000 + clock.offset_ms_max + 1
        if isinstance(delay, (int, float)):
            earliest_ms, latest_ms = earliest_ms + delay * 1000, latest_ms + delay * 1000 + 1
        elif isinstance(run_at, (int, float)):
            earliest_ms, latest_ms = max(run_at, min(earliest_ms, run_at)), max(run_at, latest_ms)
            if run_at > EPOCH_MS + asked.until * 1000 + clock.offset_ms_max:
                latest_ms = run_at
        if not earliest_ms <= due_ms <= latest_ms + put_off_ms:
            asked_for = f"{earliest_ms - EPOCH_MS:.0f} to {latest_ms - EPOCH_MS:.0f} ms"
            yield f"it is due at {due_ms - EPOCH_MS} ms, and {asked_for} was asked for"

    def _moved(self, asked: Asked, answer: MovedJob) -> Iterator[str]:
        key = parse(answer.token).key
        request = asked.what
        assert isinstance(request, MoveRequest)
        if answer.due_at_ms != key.due_at_ms:
            yield "due time and token differ"
        if answer.previous_token != asked.token:
            yield "it names another token as the previous one"
        yield from self._due(asked, request.run_at, request.delay, key.due_at_ms, put_off_ms=_KEYS_TRIED - 1)
        if answer.token != asked.token:
            yield from self._needs(asked, stopped=answer.token)
            if not any(fact.stored for fact in self._facts.of_key.get(key, []) if fact.at <= asked.until):
                yield "nothing was stored under the new token"

    # --- what is the case ---------------------------------------------------------------------------------------------

    def _status(self, asked: Asked, answer: JobStatus) -> Iterator[str]:
        kind, key = parse(asked.token)
        record = self._auditor.record_of(asked.token)
        if (answer.token, answer.due_at_ms) != (asked.token, key.due_at_ms):
            yield "it names another job"
        if kind not in _IN_STORE:
            if answer.state not in ("held_by_sqs", "handed_to_sqs") or answer.cancellable:
                yield "it is not in the store"
            return
        if answer.cancellable != (answer.state in ("accepted", "scheduled")):
            yield f"cancellable is {answer.cancellable}"
        if answer.state in ("cancelled", "moved"):
            yield from self._needs(asked, stopped="" if answer.moved_to is UNSET else str(answer.moved_to))
            return
        facts = self._possible(asked)
        stored = answer.state in ("scheduled", "dispatching")
        # While a change is being committed, a look-up may show the trigger of one side and the tombstone of the other.
        torn = any(asked.since <= fact.sure_at and fact.at < fact.sure_at for fact in facts)
        if not torn and not any(fact.stored == stored for fact in facts if fact.stopped is None):
            yield f"it was {'not ' if stored else ''}stored all that time, or stopped"
        yield from self._against_the_mark(asked, ahead=answer.cancellable)
        if stored and record is not None:
            asked_for = record.request
            name = None if answer.name is UNSET else answer.name
            if (answer.queue, name) != (asked_for.queue, asked_for.name):
                yield f"queue {answer.queue!r} and name {name!r}"

    def _conflict(self, asked: Asked, answer: Conflict) -> Iterator[str]:
        kind, _ = parse(asked.token)
        if (answer.code == "already-handed-to-sqs") == (kind in _IN_STORE):
            yield "it is in the store" if kind in _IN_STORE else "SQS has it"
        elif answer.code in ("moved", "cancelled"):
            if (asked.verb, answer.code) == ("cancel", "cancelled"):
                yield "to cancel it again is no conflict"
            yield from self._needs(asked, stopped=answer.moved_to or "")
        elif answer.code == "not-stored-yet":
            if not any(not fact.stored and fact.stopped is None for fact in self._possible(asked)):
                yield "it was stored all that time, or stopped"
        elif answer.code == "too-late":
            if all(fact.stopped is not None for fact in self._possible(asked)):
                yield "it was cancelled or moved before"
            yield from self._against_the_mark(asked, ahead=False)
        elif answer.code not in ("already-handed-to-sqs", "due-time-passed"):
            yield "there is no such conflict"

    def _needs(self, asked: Asked, *, stopped: str) -> Iterator[str]:
        """It must have been stopped by the time of the answer, in this way."""
        ways = {fact.stopped for fact in self._facts.of_key.get(parse(asked.token).key, []) if fact.at <= asked.until}
        if stopped not in ways:
            yield "it was not" if not ways - {None} else "it was not so, but otherwise"

    def _against_the_mark(self, asked: Asked, *, ahead: bool) -> Iterator[str]:
        key = parse(asked.token).key
        lowest_ms = self._facts.mark_ms(key.shard, asked.since)
        highest_ms = self._facts.mark_ms(key.shard, asked.until)
        if ahead and key.due_at_ms <= lowest_ms:
            yield f"it was due {lowest_ms - key.due_at_ms} ms behind the mark"
        if not ahead and key.due_at_ms > highest_ms:
            yield f"it was due {key.due_at_ms - highest_ms} ms ahead of the mark"

    def _possible(self, asked: Asked) -> list[Fact]:
        return self._facts.possible(parse(asked.token).key, asked.since, asked.until)

    # --- refusals ----------------------------------------------------------------------------------------------------

    def _rejected(self, asked: Asked, answer: DyneinError) -> Iterator[str]:
        """What users of a simulation ask for is well-formed. Only a destination that fails explains a refusal."""
        assert isinstance(answer, Rejected)
        if asked.verb == "move" and isinstance(answer, InvalidField) and "too often" in str(answer):
            return
        if asked.verb == "submit":
            assert isinstance(asked.what, JobRequest)
            episodes = self._auditor.fault_injector.bad_queues.get(asked.what.queue.rpartition("/")[2], [])
            process = next(p for p in self._world.processes if p.name == asked.process)
            known_s = _DESTINATIONS_KNOWN_S + process.clock.suspended_s
            if any(e.since <= asked.until and e.until + known_s >= asked.since for e in episodes):
                return
        yield "nothing was wrong with it"

    def _in_trouble(self, asked: Asked) -> bool:
        evidence, process = self._world.evidence, asked.process
        if evidence.disturbed_by(process, asked.since, asked.until) is not None:
            return True
        if next(p for p in self._world.processes if p.name == process).stopping.is_set():
            return True
        since = asked.since - self._world.settings.call_timeout_s
        troubled = evidence.troubled_calls.get(process, [])
        if any(since <= call.began_at <= asked.until for call in troubled):
            return True
        episodes = [e for of_queue in self._auditor.fault_injector.bad_queues.values() for e in of_queue]
        return any(e.since <= asked.until and e.until >= asked.since for e in episodes)


_DESTINATIONS_KNOWN_S = 10.0
"""How long an API may go on taking a queue for missing."""


def _said(answer: object) -> str:
    if isinstance(answer, Conflict):
        return f"409 {answer.code}"
    if isinstance(answer, JobStatus):
        return answer.state
    return f"{type(answer).__name__}: {answer}" if isinstance(answer, DyneinError) else type(answer).__name__


def check_answers(auditor: Auditor) -> Iterator[str]:
    """Every violation."""
    yield from AnswerCheck(auditor).violations
