"""Where to begin with a shard of which no bucket was ever retired.

Its record says 0: everything since 1970 is open. To read tens of millions of empty buckets would take days, so one scan
of the table says which is the earliest that holds anything. That costs a read of the whole table, once for a new table
(when there is next to nothing in it) and once for each dispatcher that takes a shard added later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dynein.clock import Clock
from dynein.partition import bucket_of
from dynein.trigger_store import TriggerStore


class _Scan(NamedTuple):
    began: int
    earliest: dict[int, int]
    before: int
    """The bucket to begin with where nothing was found. Whatever is stored since the scan began is due later."""


class FirstBuckets:
    """One process's scans, shared among its shards."""

    def __init__(self, store: TriggerStore, clock: Clock, *, bucket_width_ms: int, retire_grace_ms: int) -> None:
        self._store = store
        self._clock = clock
        self._width_ms = bucket_width_ms
        self._grace_ms = retire_grace_ms
        self._moments = 0
        self._scan: _Scan | None = None
        self._scanning = False
        self._waiting: list[Callable[[], None]] = []

    def moment(self) -> int:
        """Names this moment: later ones are greater."""
        self._moments += 1
        return self._moments

    async def find(self, shard: int, since: int, wake: Callable[[], None]) -> int | None:
        """The first bucket of ``shard`` to read, by a scan begun after the moment ``since``.

        ``None`` while a scan for another shard is under way; ``wake`` is called when it ends.
        """
        if self._scan is None or self._scan.began < since:
            if self._scanning:
                self._waiting.append(wake)
                return None
            self._scanning = True
            try:
                self._scan = await self._run()
            finally:
                self._scanning = False
                waiting, self._waiting = self._waiting, []
                for wake_other in waiting:
                    wake_other()
        return min(self._scan.before, self._scan.earliest.get(shard, self._scan.before))

    async def _run(self) -> _Scan:
        began = self.moment()
        before = bucket_of(max(0, self._clock.now_ms() - self._grace_ms), self._width_ms)
        earliest: dict[int, int] = {}
        for bucket, shard in await self._store.buckets():
            earliest[shard] = min(bucket, earliest.get(shard, bucket))
        return _Scan(began, earliest, before)
