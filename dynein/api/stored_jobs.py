"""Jobs that were accepted before: their state, cancelling them, moving them.

A token is the address of its job's trigger. A job's state follows from three facts, read in this order (the marks last,
since they only rise):

=============  =======  =============================  ===============  ============================================
tombstone      trigger  due, against the shard's mark  state            DELETE
=============  =======  =============================  ===============  ============================================
cancelled      any      any                            ``cancelled``    200, again
moved          any      any                            ``moved``        409 moved
none           there    later                          ``scheduled``    200
none           there    not later                      ``dispatching``  409 too-late
none           not      later                          ``accepted``     200: its tombstone stops it when it is ingested
none           not      not later                      ``released``     409 too-late
=============  =======  =============================  ===============  ============================================

A job that did not go to the trigger store is held by SQS, and SQS takes nothing back.

A job never returns to a key it has left
----------------------------------------
A move to a due time that the job has had before goes to the next millisecond that it has not had. The tombstone that a
move leaves at the old key cannot be the reason: a move back would remove it, in the same transaction. But behind the
read mark a dispatcher may already have read that tombstone, as the last record of a page. It keeps it in memory, since
the trigger that it cancels may be the first record of the next page (they are neighbours). If the job returned to the
key in between, the dispatcher would find the trigger on that next page, take it for cancelled and remove it: the job
would be lost. The dispatcher cannot tell the two cases apart, therefore the API never creates the second.
"""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from dynein.api import job_log
from dynein.api.caller import ANONYMOUS, Caller
from dynein.api.due_time import format_rfc3339
from dynein.api.policy import POLICY_OF, When, due_at_ms
from dynein.api.schemas import CancelledJob, JobStatus, MovedJob, MoveRequest
from dynein.core.job import Job, decode_job
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import TriggerKey
from dynein.core.ledger import Flow
from dynein.core.ports import Ports
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import Cancelled, Moved, Tombstone
from dynein.errors import Conflict, DyneinError, InvalidField, InvalidToken, NotSent, Unavailable
from dynein.runtime.context import Context
from dynein.settings import Settings

_IN_STORE = (TokenKind.SCHEDULED, TokenKind.PREPARED)
_CANDIDATE_KEYS = 8
"""Due times, one millisecond apart, that are tried for a moved job."""


class StoredJobs:
    """Look-up, cancel and move. Every verb raises `InvalidToken` for a token that this deployment did not sign."""

    def __init__(self, ports: Ports, signer: TokenSigner, context: Context, settings: Settings) -> None:
        self._triggers = ports.triggers
        self._shards = ports.shards
        self._signer = signer
        self._clock = context.clock
        self._telemetry = context.telemetry
        self._tally = context.tally
        self._settings = settings

    async def get(self, token: str) -> JobStatus:
        """The job's state."""
        ref = self._signer.verify(token)
        if ref.kind not in _IN_STORE:
            held = ref.kind is TokenKind.SQS_DELAYED and self._clock.now_ms() < ref.key.due_at_ms
            return _status(token, ref, "held_by_sqs" if held else "handed_to_sqs")
        found = await self._triggers.find(ref.key)
        if found.tombstone is not None:
            if found.tombstone.moved_to is None:
                return _status(token, ref, "cancelled")
            return _status(token, ref, "moved", moved_to=found.tombstone.moved_to)
        ahead = ref.key.due_at_ms > await self._cancel_mark_ms(ref.key.shard)
        if found.trigger is None:
            return _status(token, ref, "accepted" if ahead else "released", cancellable=ahead)
        state = "scheduled" if ahead else "dispatching"
        return _status(token, ref, state, cancellable=ahead, record=found.trigger.record)

    async def cancel(self, token: str, caller: Caller = ANONYMOUS) -> CancelledJob:
        """Make sure that the job is not delivered. Raises `Conflict` when that can no longer be promised."""
        ref = self._signer.verify(token)
        try:
            _check_in_store(ref, "cancelled")
            await self._cancel(ref)
        except Conflict as error:
            self._telemetry.cancelled.labels(error.code).inc()
            job_log.not_changed("cancel", token, error, ref.key.due_at_ms, caller)
            raise
        except DyneinError:
            self._telemetry.cancelled.labels("failed").inc()
            raise
        self._telemetry.cancelled.labels("cancelled").inc()
        job_log.cancelled(token, ref.key.due_at_ms, caller)
        return CancelledJob(token)

    async def move(self, token: str, request: MoveRequest, caller: Caller = ANONYMOUS) -> MovedJob:
        """Give the job another due time. Raises `InvalidField`, or `Conflict` when it is too late for that."""
        ref = self._signer.verify(token)
        when = When(request.run_at, request.delay, request.timezone)
        if not when.given:
            raise InvalidField("run_at", "is missing.", "Send run_at or delay.")
        due_ms = due_at_ms(when, self._clock.now_ms(), delay_max_days=self._settings.delay_max_days)
        try:
            _check_in_store(ref, "moved")
            new = await self._move(token, ref, due_ms)
        except Conflict as error:
            self._telemetry.moved.labels(error.code).inc()
            job_log.not_changed("move", token, error, ref.key.due_at_ms, caller)
            raise
        except DyneinError:
            self._telemetry.moved.labels("failed").inc()
            raise
        self._telemetry.moved.labels("moved").inc()
        job_log.moved(new, caller)
        return new

    async def _cancel_mark_ms(self, shard: int) -> int:
        records = await self._shards.get([shard])
        if not records:
            # Signed with our secret, but not for this table: two deployments share a secret.
            raise InvalidToken("the token names a shard that this deployment does not have")
        return records[0].cancel_mark_ms

    async def _cancel(self, ref: JobRef) -> None:
        try:
            outcome = await self._triggers.cancel(ref.key)
        except NotSent:
            raise
        except Unavailable:
            # It may have taken effect, and then no later call will count it: a doubt must not look like a lost job.
            self._tally.add(Flow.CANCELLED, ref.key.due_at_ms)
            raise
        if outcome is Cancelled.CANCELLED:
            self._tally.add(Flow.CANCELLED, ref.key.due_at_ms)
        elif outcome is Cancelled.TOO_LATE:
            # Perhaps an earlier DELETE succeeded, whose response was lost: then the promise holds.
            tombstone = await self._tombstone(ref.key)
            if tombstone is None or tombstone.moved_to is not None:
                raise _conflict(ref, tombstone)
        elif isinstance(outcome, Tombstone):
            raise _conflict(ref, outcome)

    async def _move(self, token: str, ref: JobRef, due_ms: int) -> MovedJob:
        lead_ms = await self._lead_ms(ref.key)
        key = await self._free_key(ref.key, due_ms - lead_ms)
        if key == ref.key:
            await self._check_stays(token)
            return _moved(token, token, key, lead_ms)
        new_token = self._signer.sign(JobRef(ref.kind, key))
        # The stored record moves along; this one is a placeholder.
        try:
            outcome = await self._triggers.move(ref.key, Trigger(key, new_token, b"{}"))
        except NotSent:
            raise
        except Unavailable:
            self._tally.add(Flow.MOVED_OUT, ref.key.due_at_ms)  # as for a cancel; not MOVED_IN: it may never arrive
            raise
        if outcome is Moved.MOVED:
            self._tally.add(Flow.MOVED_OUT, ref.key.due_at_ms)
            self._tally.add(Flow.MOVED_IN, key.due_at_ms)
            return _moved(new_token, token, key, lead_ms)
        tombstone = outcome if isinstance(outcome, Tombstone) else await self._tombstone(ref.key)
        if tombstone is not None and tombstone.moved_to == new_token and await self._tombstone(key) is None:
            return _moved(new_token, token, key, lead_ms)  # an earlier call succeeded, whose response was lost
        if tombstone is None and outcome is Moved.NOT_STORED:
            raise Conflict("not-stored-yet", "The job is on its way into the trigger store, or was never created.")
        raise _conflict(ref, tombstone)

    async def _lead_ms(self, key: TriggerKey) -> int:
        """How long before its caller wants it on its queue the job at ``key`` is sent."""
        found = await self._triggers.find(key)
        job = None if found.trigger is None else _readable(found.trigger.record)
        return 0 if job is None else job.lead_ms

    async def _free_key(self, key: TriggerKey, due_ms: int) -> TriggerKey:
        """The key that a job at ``key`` moves to: due at ``due_ms``, or at the first millisecond after it that is free.

        A key is free if the job has not left it before; the module's docstring says why it must not return to such a
        key. Tombstones tell which ones it has left: every move leaves one, which lasts for days past its due time.
        """
        keys = [key._replace(due_at_ms=due_ms + later) for later in range(_CANDIDATE_KEYS)]
        left = {tombstone.key for tombstone in await self._triggers.tombstones(keys)} - {key}
        for candidate in keys:
            if candidate not in left:
                return candidate
        raise InvalidField("run_at", "is a time that this job was moved away from too often.", "Send another time.")

    async def _check_stays(self, token: str) -> None:
        """Moving a job to the time it has changes nothing. Raises `Conflict` if it could not be moved any more."""
        status = await self.get(token)
        if status.state not in {"scheduled", "accepted"}:
            moved_to = None if status.moved_to is UNSET else status.moved_to
            ref = self._signer.verify(token)
            raise _conflict(ref, Tombstone(ref.key, moved_to) if status.state in {"cancelled", "moved"} else None)

    async def _tombstone(self, key: TriggerKey) -> Tombstone | None:
        return (await self._triggers.find(key)).tombstone


def _moved(token: str, previous: str, key: TriggerKey, lead_ms: int = 0) -> MovedJob:
    due_ms = key.due_at_ms + lead_ms
    return MovedJob(token, format_rfc3339(due_ms), due_ms, previous)


def _readable(record: bytes) -> Job | None:
    """The job, unless its record cannot be decoded: ``dynein audit`` reports such a record."""
    try:
        return decode_job(record)
    except ValueError:
        return None


def _check_in_store(ref: JobRef, done: str) -> None:
    if ref.kind not in _IN_STORE:
        raise Conflict(
            "already-handed-to-sqs", f"The job is {POLICY_OF[ref.kind]}: it was handed to SQS, and cannot be {done}."
        )


def _conflict(ref: JobRef, tombstone: Tombstone | None) -> Conflict:
    if tombstone is None:
        due_at = format_rfc3339(ref.key.due_at_ms)
        return Conflict("too-late", f"The job is due at {due_at}, too soon to be changed: it is or will be delivered.")
    if tombstone.moved_to is None:
        return Conflict("cancelled", "The job was cancelled before, and will not be delivered.")
    return Conflict("moved", "The job was moved, and has another token now.", moved_to=tombstone.moved_to)


def _status(
    token: str,
    ref: JobRef,
    state: str,
    *,
    cancellable: bool = False,
    moved_to: str | UnsetType = UNSET,
    record: bytes | None = None,
) -> JobStatus:
    job = None if record is None else _readable(record)
    due_ms = ref.key.due_at_ms if job is None else ref.key.due_at_ms + job.lead_ms
    return JobStatus(
        token,
        state,
        POLICY_OF[ref.kind],
        format_rfc3339(due_ms),
        due_ms,
        cancellable=cancellable,
        queue=UNSET if job is None else job.queue,
        name=UNSET if job is None or job.name is None else job.name,
        moved_to=moved_to,
    )
