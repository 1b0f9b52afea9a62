"""``dynein audit``: reads the whole trigger store and reports what should not be there.

============ ==========================================================================================================
finding      meaning, and what ``--repair`` does about it
============ ==========================================================================================================
stranded     a trigger in a bucket that its shard has retired, or of a shard that has no record: no dispatcher will
             read it. Repair: sends it to the inbound queue with its own token, and removes the trigger once SQS has
             acknowledged that. An ingester then sends the job, unless it was cancelled; if its shard has no record,
             it dead-letters the job with that reason, and `dynein redrive` sends it when it is due.
overdue      a trigger due longer ago than the threshold in a bucket that is still read: dispatchers are stopped, slow,
             or its destination fails. Repair: none needed, it will be sent.
undecodable  a record under a trigger's key that cannot be decoded. Repair: none; an operator has to look at it.
============ ==========================================================================================================

The audit scans the table (read units for all of it) and is the only thing that does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple, Protocol

from dynein.core.inbound_message import Entry, pack
from dynein.core.keys import DUE_MAX_MS, TriggerKey
from dynein.core.queues import OutgoingMessage, Queues
from dynein.core.seal import Seal
from dynein.core.shard_records import ShardRecord, ShardRecords
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import Page, TriggerStore
from dynein.delivery.destinations import Destinations
from dynein.errors import Unavailable
from dynein.runtime.clock import Clock

STRANDED = "stranded"
OVERDUE = "overdue"
UNDECODABLE = "undecodable"


class Finding(NamedTuple):
    """One thing found. ``token`` is empty for an undecodable record."""

    kind: str
    bucket: int
    shard: int
    due_at_ms: int
    token: str
    repaired: bool = False


class Report(NamedTuple):
    """The result of an audit. ``findings`` holds at most `FINDINGS_MAX`; ``counts`` counts all."""

    buckets: int
    triggers: int
    tombstones: int
    counts: dict[str, int]
    repaired: int
    findings: list[Finding]

    @property
    def clean(self) -> bool:
        """Nothing stranded or undecodable that was not repaired. Overdue triggers are a symptom, not damage."""
        return self.counts[STRANDED] + self.counts[UNDECODABLE] == self.repaired


FINDINGS_MAX = 1000
SETTLE_S = 10.0
REPAIR_S = 600
"""For so long a trigger that one audit repairs is left alone by the others."""
_PAGE = 250


class Requeue(Protocol):
    """Sends a stranded trigger to the inbound queue; returns once that is acknowledged."""

    async def __call__(self, trigger: Trigger) -> None: ...


async def audit(
    store: TriggerStore,
    shards: ShardRecords,
    clock: Clock,
    *,
    overdue_s: float,
    requeue: Requeue | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Read every bucket. With ``requeue``, repair what can be. ``progress`` gets buckets done, and of how many.

    A repair checks twice, `SETTLE_S` apart: a late write that its ingester is about to correct is stranded for a
    moment. At most `FINDINGS_MAX` are repaired in one run; run it again for more. Of several repairs at a time one has
    each trigger; the others report it as found. So does the next one for `REPAIR_S`, if a repair was cut short.
    """
    records = {record.shard: record for record in await shards.all()}
    places = await store.buckets()
    counts = {STRANDED: 0, OVERDUE: 0, UNDECODABLE: 0}
    triggers = tombstones = 0
    findings: list[Finding] = []
    stranded: list[Trigger] = []
    overdue_before_ms = clock.now_ms() - int(overdue_s * 1000)
    for done, (bucket, shard) in enumerate(places, start=1):
        async for page in _pages(store, bucket, shard):
            triggers += len(page.triggers)
            tombstones += len(page.tombstones)
            for finding, trigger in _findings(page, bucket, records.get(shard), overdue_before_ms):
                counts[finding.kind] += 1
                if len(findings) < FINDINGS_MAX:
                    findings.append(finding)
                    stranded += [trigger] if finding.kind == STRANDED and trigger is not None else []
        if progress is not None:
            progress(done, len(places))
    repaired: set[str] = set()
    if requeue is not None and stranded:
        await clock.sleep(SETTLE_S)
        repaired = {trigger.token for trigger in stranded if await _repair(store, requeue, trigger)}
    findings = [finding._replace(repaired=finding.token in repaired) for finding in findings]
    return Report(len(places), triggers, tombstones, counts, len(repaired), findings)


async def _repair(store: TriggerStore, requeue: Requeue, trigger: Trigger) -> bool:
    """True if the trigger is not stranded any more: requeued, or gone already."""
    found = await store.find(trigger.key)
    if found.trigger is None or found.tombstone is not None:
        return True
    if not await store.reserve(trigger.key, REPAIR_S):
        return (await store.find(trigger.key)).trigger is None
    await requeue(trigger)
    return not await store.remove([trigger.key])


def requeue_by(queues: Queues, destinations: Destinations, inbound_queue: str, seal: Seal) -> Requeue:
    """A `Requeue` that goes through the inbound queue."""

    async def requeue(trigger: Trigger) -> None:
        destination = await destinations.resolve(inbound_queue)
        await send_inbound(queues, destination.url, [Entry(trigger.token, "", trigger.record)], seal)

    return requeue


async def send_inbound(queues: Queues, url: str, entries: Sequence[Entry], seal: Seal) -> None:
    """Send one inbound message. Raises `Unavailable`, or what `Queues.send` does, unless it is acknowledged."""
    (failure,) = await queues.send(url, [OutgoingMessage(pack(entries, seal), {})])
    if failure is not None:
        raise Unavailable(f"the inbound queue refused a message: {failure.code} {failure.message}")


async def _pages(store: TriggerStore, bucket: int, shard: int) -> AsyncIterator[Page]:
    resume: bytes | None = None
    while True:
        page = await store.read(bucket, shard, from_ms=0, until_ms=DUE_MAX_MS - 1, limit=_PAGE, resume=resume)
        yield page
        resume = page.resume
        if resume is None:
            return


def _findings(
    page: Page, bucket: int, record: ShardRecord | None, overdue_before_ms: int
) -> list[tuple[Finding, Trigger | None]]:
    cancelled = {tombstone.key for tombstone in page.tombstones}
    found: list[tuple[Finding, Trigger | None]] = []
    for trigger in page.triggers:
        if trigger.key in cancelled:
            continue
        finding = finding_of(trigger, bucket, record, overdue_before_ms)
        found += [(finding, trigger)] if finding is not None else []
    found += [(undecodable(bucket, key), None) for key in page.undecodable]
    return found


def finding_of(trigger: Trigger, bucket: int, record: ShardRecord | None, overdue_before_ms: int) -> Finding | None:
    """What is wrong with a trigger that has no tombstone, if anything. ``record``: its shard's, if that has one."""
    key = trigger.key
    if record is None or bucket < record.retired_before:
        return Finding(STRANDED, bucket, key.shard, key.due_at_ms, trigger.token)
    if key.due_at_ms < overdue_before_ms:
        return Finding(OVERDUE, bucket, key.shard, key.due_at_ms, trigger.token)
    return None


def undecodable(bucket: int, key: TriggerKey) -> Finding:
    """There is a record at ``key`` that is no trigger."""
    return Finding(UNDECODABLE, bucket, key.shard, key.due_at_ms, token="")
