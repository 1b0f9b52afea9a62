"""``dynein restore``: sends chosen jobs of an export through the inbound queue again, as `dynein audit --repair` does.

For a table that was lost or damaged. Each job keeps its token and its due time, and each is looked up first, so that a
restore may be repeated: what is in the table already is left alone, and what was cancelled or moved since the export
stays so. What was *delivered* since the export cannot be told from what was lost: by default only jobs that are still
to come are restored, and those that were due in between only if that is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from dynein.admin.audit import send_inbound
from dynein.admin.export_audit import Marks, queue_of
from dynein.core.inbound_message import Entry
from dynein.core.job_token import TokenSigner
from dynein.core.queue_address import name_of
from dynein.core.queues import Queues
from dynein.core.seal import Seal
from dynein.core.stored_record import StoredRecord, StoredTrigger
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import TriggerStore
from dynein.errors import InvalidToken

SENT, THERE, STOPPED = "restored", "in the table already", "cancelled or moved since"
NOT_OURS, NO_SHARD = "not signed by this deployment", "of a shard that the table does not have"
BATCH_JOBS = 100
"""Jobs looked up and sent together."""


Send = Callable[[Sequence[Trigger]], Awaitable[None]]


class Chosen(NamedTuple):
    """Which jobs to restore: all that it says must hold. Times are epoch milliseconds."""

    from_ms: int
    until_ms: int | None = None
    queue: str | None = None
    tokens: frozenset[str] | None = None

    def has(self, trigger: Trigger) -> bool:
        """Is it one of them?"""
        due_at_ms = trigger.key.due_at_ms
        return (
            self.from_ms <= due_at_ms
            and (self.until_ms is None or due_at_ms < self.until_ms)
            and (self.tokens is None or trigger.token in self.tokens)
            and (self.queue is None or name_of(self.queue) == queue_of(trigger))
        )


class RestoreReport(NamedTuple):
    """How many jobs of the export were chosen, and what became of them."""

    chosen: int
    outcomes: dict[str, int]
    dry_run: bool

    @property
    def complete(self) -> bool:
        """Every chosen job is in the table, or on its way there, or was stopped on purpose."""
        return not self.outcomes.get(NOT_OURS) and not self.outcomes.get(NO_SHARD)


class Restorer:
    """Restores into one table. ``send``: to the inbound queue; returns once that is acknowledged."""

    def __init__(
        self,
        store: TriggerStore,
        signer: TokenSigner,
        shards: frozenset[int],
        send: Send,
    ) -> None:
        self._store = store
        self._signer = signer
        self._shards = shards
        self._send = send

    async def restore(
        self, records: Iterable[StoredRecord], marks: Marks, chosen: Chosen, *, jobs_max: int, dry_run: bool
    ) -> RestoreReport:
        """``marks`` are the export's own: what it shows as cancelled is not restored. Raises `Retryable` errors."""
        outcomes: Counter[str] = Counter()
        jobs = 0
        for batch in _batches(records, marks, chosen, jobs_max):
            jobs += len(batch)
            missing: list[Trigger] = []
            for trigger in batch:
                outcome = await self._outcome(trigger)
                if outcome is None:
                    missing.append(trigger)
                else:
                    outcomes[outcome] += 1
            if missing and not dry_run:
                await self._send(missing)
            outcomes.update([SENT] * len(missing))
        return RestoreReport(jobs, dict(outcomes), dry_run)

    async def _outcome(self, trigger: Trigger) -> str | None:
        """Why it is not restored; ``None`` if it is to be."""
        try:
            self._signer.verify(trigger.token)
        except InvalidToken:
            return NOT_OURS
        if trigger.key.shard not in self._shards:
            return NO_SHARD
        found = await self._store.find(trigger.key)
        if found.tombstone is not None:
            return STOPPED
        return None if found.trigger is None else THERE


def _batches(records: Iterable[StoredRecord], marks: Marks, chosen: Chosen, jobs_max: int) -> Iterator[list[Trigger]]:
    batch: list[Trigger] = []
    jobs = 0
    for record in records:
        if jobs == jobs_max:
            break
        if not isinstance(record, StoredTrigger) or record.trigger.key in marks.tombstones:
            continue
        if chosen.has(record.trigger):
            batch.append(record.trigger)
            jobs += 1
        if len(batch) == BATCH_JOBS:
            yield batch
            batch = []
    if batch:
        yield batch


def send_by(queues: Queues, inbound_url: str, seal: Seal, bytes_max: int) -> Send:
    """Sends through the inbound queue, in messages of up to ``bytes_max`` bytes."""

    async def send(triggers: Sequence[Trigger]) -> None:
        entries = [Entry(trigger.token, "", trigger.record) for trigger in triggers]
        while entries:
            some, size = [entries[0]], entries[0].size
            while len(some) < len(entries) and size + entries[len(some)].size <= bytes_max:
                size += entries[len(some)].size
                some.append(entries[len(some)])
            await send_inbound(queues, inbound_url, some, seal)
            entries = entries[len(some) :]

    return send
