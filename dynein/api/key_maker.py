"""Makes the keys of new jobs: an id, and the shard that follows from it, or from the message group on a FIFO queue."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable

from dynein.core.keys import RANDOM_BYTES, FifoGroup, TriggerKey, fifo_shard_of, make_job_id, shard_of
from dynein.core.shard_records import Layout, ShardRecords
from dynein.errors import NotBootstrapped
from dynein.runtime.context import Context
from dynein.runtime.periodic import run_periodically

LAYOUT_INTERVAL_S = 10.0
"""How soon a raised shard count is noticed."""
_CREATE_ID_BYTES = 8


class KeyMaker:
    """An agent: it reads the table's layout periodically, since the shard count may be raised while we run.

    ``random_bytes`` makes the ids (a simulation passes a seeded source).
    """

    def __init__(
        self, shards: ShardRecords, layout: Layout, context: Context, random_bytes: Callable[[int], bytes]
    ) -> None:
        self._shards = shards
        self._layout = layout
        self._context = context
        self._random_bytes = random_bytes
        self._last_us = 0

    def new_key(self, group: FifoGroup | None = None) -> TriggerKey:
        """The id and shard of a new job. Its due time is still to be filled in.

        Each id is larger than the one before, though the wall clock may be set back: jobs that are due at the same
        time are read, and sent, in the order of their ids. Microseconds, since a caller on a fast network may submit
        two jobs within a millisecond, one after the other, to two processes.
        """
        self._last_us = max(self._last_us + 1, self._context.clock.now_us())
        job_id = make_job_id(self._last_us, self._random_bytes(RANDOM_BYTES))
        if group is None:
            return TriggerKey(0, job_id, shard_of(job_id, self._layout.shard_count))
        return TriggerKey(0, job_id, fifo_shard_of(group, self._layout.fifo_shard_count))

    def create_id(self) -> str:
        """Tells apart the creates of one prepared token, of which the ingester lets the first go ahead."""
        return base64.urlsafe_b64encode(self._random_bytes(_CREATE_ID_BYTES)).rstrip(b"=").decode("ascii")

    async def run(self, stopping: asyncio.Event) -> None:
        """Read the layout periodically until ``stopping`` is set. Keys are made until the process ends."""
        await run_periodically("layout", self.run_once, self._context.clock, stopping, self._context.rng)

    async def run_once(self) -> float:
        """Read the layout; returns seconds until the next time. Raises `NotBootstrapped` if the table has none."""
        layout = await self._shards.layout()
        if layout is None:
            raise NotBootstrapped("the table has no layout; run `dynein bootstrap`")
        self._layout = layout
        return LAYOUT_INTERVAL_S
