"""Jobs that were taken in before: where they are, cancelling them, moving them.

The token says where to look. What a job's state is, follows from three facts, read in this order (the marks last, since
they only rise):

=============  =======  =============================  ==============  =============================================
tombstone      trigger  due, against the shard's mark  state           DELETE
=============  =======  =============================  ==============  =============================================
cancelled      any      any                            ``cancelled``   200, again
moved          any      any                            ``moved``       409 moved
none           there    later                          ``scheduled``   200
none           there    not later                      ``dispatching`` 409 too-late
none           not      later                          ``accepted``    200: its tombstone stops it when it comes
none           not      not later                      ``released``    409 too-late
=============  =======  =============================  ==============  =============================================

A job that was not given to the trigger store is in SQS's hands, and SQS takes nothing back.
"""

from __future__ import annotations

import contextlib

from msgspec import UNSET, UnsetType

from dynein.api import job_log
from dynein.api.caller import NOBODY, Caller
from dynein.api.due_time import format_rfc3339
from dynein.api.policy import POLICY_OF, When, due_at_ms
from dynein.api.schemas import CancelledJob, JobStatus, MovedJob, MoveRequest
from dynein.core.job import decode_job
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import TriggerKey
from dynein.core.ledger import NOT_KEPT, Flow, Tally
from dynein.core.shard_records import ShardRecords
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import Cancelled, Moved, Tombstone, TriggerStore
from dynein.errors import Conflict, DyneinError, InvalidField, InvalidToken, Unavailable
from dynein.observability.telemetry import Telemetry
from dynein.runtime.clock import Clock

_IN_STORE = (TokenKind.SCHEDULED, TokenKind.PREPARED)
_PLACES = 8
"""Due times, one millisecond apart, that are looked at for a moved job."""


class ExistingJobs:
    """Look-up, cancel and move. Every verb raises `InvalidToken` for a token that is not ours."""

    def __init__(
        self,
        store: TriggerStore,
        shards: ShardRecords,
        signer: TokenSigner,
        clock: Clock,
        telemetry: Telemetry,
        *,
        delay_max_days: int,
        tally: Tally = NOT_KEPT,
    ) -> None:
        self._store = store
        self._shards = shards
        self._signer = signer
        self._clock = clock
        self._telemetry = telemetry
        self._delay_max_days = delay_max_days
        self._tally = tally

    async def get(self, token: str) -> JobStatus:
        """Where the job is."""
        ref = self._signer.verify(token)
        if ref.kind not in _IN_STORE:
            held = ref.kind is TokenKind.SQS_DELAYED and self._clock.now_ms() < ref.key.due_at_ms
            return _status(token, ref, "held_by_sqs" if held else "handed_to_sqs")
        found = await self._store.find(ref.key)
        if found.tombstone is not None:
            if found.tombstone.moved_to is None:
                return _status(token, ref, "cancelled")
            return _status(token, ref, "moved", moved_to=found.tombstone.moved_to)
        ahead = ref.key.due_at_ms > await self._cancel_mark_ms(ref.key.shard)
        if found.trigger is None:
            return _status(token, ref, "accepted" if ahead else "released", cancellable=ahead)
        state = "scheduled" if ahead else "dispatching"
        return _status(token, ref, state, cancellable=ahead, record=found.trigger.record)

    async def cancel(self, token: str, caller: Caller = NOBODY) -> CancelledJob:
        """Make sure that the job is not delivered. Raises `Conflict` when that cannot be promised any more."""
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

    async def move(self, token: str, request: MoveRequest, caller: Caller = NOBODY) -> MovedJob:
        """Give the job another due time. Raises `InvalidField`, or `Conflict` when it is past that."""
        ref = self._signer.verify(token)
        when = When(request.run_at, request.delay)
        if not when.given:
            raise InvalidField("run_at", "is missing.", "Send run_at or delay.")
        due_ms = due_at_ms(when, self._clock.now_ms(), delay_max_days=self._delay_max_days)
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
            # Signed with our secret, and yet not for this table: two deployments share a secret.
            raise InvalidToken("the token names a shard that this deployment does not have")
        return records[0].cancel_mark_ms

    async def _cancel(self, ref: JobRef) -> None:
        try:
            outcome = await self._store.cancel(ref.key)
        except Unavailable:
            # It may have been done, and then no later call will count it: a doubt must not look like a lost job.
            self._tally.add(Flow.CANCELLED, ref.key.due_at_ms)
            raise
        if outcome is Cancelled.CANCELLED:
            self._tally.add(Flow.CANCELLED, ref.key.due_at_ms)
        elif outcome is Cancelled.TOO_LATE:
            # Perhaps an earlier DELETE did it, whose answer was lost: then the promise holds.
            standing = await self._standing(ref.key)
            if standing is None or standing.moved_to is not None:
                raise _conflict(ref, standing)
        elif isinstance(outcome, Tombstone):
            raise _conflict(ref, outcome)

    async def _move(self, token: str, ref: JobRef, due_ms: int) -> MovedJob:
        key = await self._free_key(ref.key, due_ms)
        if key == ref.key:
            await self._check_stays(token)
            return _moved(token, token, key)
        new_token = self._signer.sign(JobRef(ref.kind, key))
        # The stored record moves along; this one only has the form of one.
        try:
            outcome = await self._store.move(ref.key, Trigger(key, new_token, b"{}"))
        except Unavailable:
            self._tally.add(Flow.MOVED_OUT, ref.key.due_at_ms)  # as for a cancel; and not in: it may never come
            raise
        if outcome is Moved.MOVED:
            self._tally.add(Flow.MOVED_OUT, ref.key.due_at_ms)
            self._tally.add(Flow.MOVED_IN, key.due_at_ms)
            return _moved(new_token, token, key)
        standing = outcome if isinstance(outcome, Tombstone) else await self._standing(ref.key)
        if standing is not None and standing.moved_to == new_token and await self._standing(key) is None:
            return _moved(new_token, token, key)  # an earlier call did it, whose answer was lost
        if standing is None and outcome is Moved.NOT_STORED:
            raise Conflict("not-stored-yet", "The job is on its way into the trigger store, or was never created.")
        raise _conflict(ref, standing)

    async def _free_key(self, key: TriggerKey, due_ms: int) -> TriggerKey:
        """Where the job goes: the due time asked for, or some milliseconds later if it has been there before.

        The tombstone it left there would stop it.
        """
        keys = [key._replace(due_at_ms=due_ms + later) for later in range(_PLACES)]
        left = {tombstone.key for tombstone in await self._store.tombstones(keys)} - {key}
        for candidate in keys:
            if candidate not in left:
                return candidate
        raise InvalidField("run_at", "is a time that this job was moved away from often.", "Send another time.")

    async def _check_stays(self, token: str) -> None:
        """Moving a job to where it is changes nothing. Raises `Conflict` if it is not there any more."""
        status = await self.get(token)
        if status.state not in {"scheduled", "accepted"}:
            moved_to = None if status.moved_to is UNSET else status.moved_to
            ref = self._signer.verify(token)
            raise _conflict(ref, Tombstone(ref.key, moved_to) if status.state in {"cancelled", "moved"} else None)

    async def _standing(self, key: TriggerKey) -> Tombstone | None:
        return (await self._store.find(key)).tombstone


def _moved(token: str, previous: str, key: TriggerKey) -> MovedJob:
    return MovedJob(token, format_rfc3339(key.due_at_ms), key.due_at_ms, previous)


def _check_in_store(ref: JobRef, done: str) -> None:
    if ref.kind not in _IN_STORE:
        raise Conflict(
            "already-handed-to-sqs", f"The job is {POLICY_OF[ref.kind]}: SQS has it, and it cannot be {done}."
        )


def _conflict(ref: JobRef, standing: Tombstone | None) -> Conflict:
    if standing is None:
        due_at = format_rfc3339(ref.key.due_at_ms)
        return Conflict("too-late", f"The job is due at {due_at} and may be in somebody's hand: it will be delivered.")
    if standing.moved_to is None:
        return Conflict("cancelled", "The job was cancelled before, and will not be delivered.")
    return Conflict("moved", "The job was moved, and has another token now.", moved_to=standing.moved_to)


def _status(
    token: str,
    ref: JobRef,
    state: str,
    *,
    cancellable: bool = False,
    moved_to: str | UnsetType = UNSET,
    record: bytes | None = None,
) -> JobStatus:
    queue: str | UnsetType = UNSET
    name: str | None = None
    if record is not None:
        with contextlib.suppress(ValueError):  # `dynein audit` reports a record that is not one
            job = decode_job(record)
            queue, name = job.queue, job.name
    return JobStatus(
        token,
        state,
        POLICY_OF[ref.kind],
        format_rfc3339(ref.key.due_at_ms),
        ref.key.due_at_ms,
        cancellable=cancellable,
        queue=queue,
        name=UNSET if name is None else name,
        moved_to=moved_to,
    )
