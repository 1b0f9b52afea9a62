"""What this ingester knows of the shards' marks, and how it learns more with few calls."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from dynein.core.keys import SHARDS_MAX
from dynein.core.shard_records import ShardRecord, ShardRecords
from dynein.ingest.standing import Standing
from dynein.ingest.triage import KnownMarks, hold_mark_ms
from dynein.runtime.clock import Clock
from dynein.runtime.group_commit import GroupCommit
from dynein.runtime.retry import Retry
from dynein.runtime.tasks import all_of
from dynein.settings import Settings


class MarksCache:
    """Cached marks of shard records. Marks only rise, so what was read once stays a lower bound."""

    def __init__(self, shards: ShardRecords, clock: Clock, retry: Retry, settings: Settings) -> None:
        self._shards = shards
        self._clock = clock
        self._retry = retry
        self._hold_window_ms = round(settings.hold_window_s * 1000)
        self._tick_s = settings.tick_s
        self._known: dict[int, KnownMarks] = {}
        self._standing: dict[int, Standing] = {}
        self._raising: dict[int, asyncio.Lock] = {}
        # One read at a time; calls made while it is under way share the next one, which begins after all of them.
        self._reads: GroupCommit[tuple[int, ...], None] = GroupCommit(
            self._read, entries_max=SHARDS_MAX, waiting_max=SHARDS_MAX, in_flight_max=1
        )

    def known(self, shard: int) -> KnownMarks | None:
        """What is known without a call; ``None`` for a shard that has no record, as far as we know."""
        return self._known.get(shard)

    async def refresh(self, shards: Iterable[int]) -> None:
        """Learn the marks of ``shards`` from a strongly consistent read *begun after this call*.

        "After" in the order of events, not by a clock, so it holds whatever the clock's resolution.
        """
        wanted = tuple(sorted(set(shards)))
        if wanted:
            await self._reads.submit(wanted)

    async def ensure_known(self, shards: Iterable[int]) -> None:
        """Read those never seen; what is still unknown afterwards has no record."""
        await self.refresh(shard for shard in shards if shard not in self._known)

    async def cover(self, due_at_ms: Mapping[int, int]) -> None:
        """Make sure that each of these shards has a mark at or past the due time given for it.

        From then on no job due by then can be cancelled or moved. Concurrent callers share one write a shard.
        """
        short = [(shard, due) for shard, due in sorted(due_at_ms.items()) if self._short_of(shard, due)]
        await all_of([self._raise_hold_mark(shard, due) for shard, due in short])

    def has_stood(self, shard: int, due_at_ms: int) -> bool:
        """Has the mark that covers ``due_at_ms`` stood for a tick? If so, all tombstones that it is late for show."""
        return self._wait_s(shard, due_at_ms) <= 0

    async def stood(self, due_at_ms: Mapping[int, int]) -> None:
        """Return once the marks that cover these have stood for a tick.

        That makes no job late while its shard has an owner. The owner's read mark of a tick ago is at least a tick
        ahead of the current time (``read_ahead_s`` is three ticks or more), and the record says that it has stood: so
        what has to wait is not due before the wait is over.
        """
        while waits := [wait_s for shard, due in due_at_ms.items() if (wait_s := self._wait_s(shard, due)) > 0]:
            await self._clock.sleep(max(waits))

    async def _raise_hold_mark(self, shard: int, due_at_ms: int) -> None:
        async with self._raising.setdefault(shard, asyncio.Lock()):
            if self._short_of(shard, due_at_ms):
                mark_ms = hold_mark_ms(due_at_ms, self._clock.now_ms(), self._hold_window_ms)
                as_of = self._clock.monotonic()
                record = await self._retry.call(
                    f"raise the hold mark of shard {shard}", lambda: self._shards.raise_hold_mark(shard, mark_ms)
                )
                self._learn([record], as_of)
                assert not self._short_of(shard, due_at_ms), (shard, due_at_ms, record)

    def _wait_s(self, shard: int, due_at_ms: int) -> float:
        return self._standing[shard].wait_s(due_at_ms, self._clock.monotonic())

    def _short_of(self, shard: int, due_at_ms: int) -> bool:
        known = self._known.get(shard)
        return known is None or known.cancel_mark_ms < due_at_ms

    async def _read(self, wanted: list[tuple[int, ...]]) -> Sequence[None]:
        shards = sorted({shard for some in wanted for shard in some})

        async def attempt() -> None:
            as_of = self._clock.monotonic()
            self._learn(await self._shards.get(shards), as_of)

        await self._retry.call("read shard records", attempt)
        return [None] * len(wanted)

    def _learn(self, records: Iterable[ShardRecord], as_of: float) -> None:
        now = self._clock.monotonic()
        for record in records:
            standing = self._standing.setdefault(record.shard, Standing(self._tick_s))
            standing.see(record.cancel_mark_ms, now, settled_mark_ms=record.settled_mark_ms)
            before = self._known.get(record.shard)
            marks = KnownMarks(record.read_mark_ms, record.hold_mark_ms, as_of)
            if before is not None:
                # Responses may overtake one another.
                marks = KnownMarks(
                    max(before.read_mark_ms, marks.read_mark_ms),
                    max(before.hold_mark_ms, marks.hold_mark_ms),
                    max(before.as_of, marks.as_of),
                )
            self._known[record.shard] = marks
