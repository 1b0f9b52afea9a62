"""Makes the keys of new jobs: a random id, and the shard that follows from it and from the table's shard count."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable

from dynein.core.keys import JOB_ID_BYTES, TriggerKey, shard_of
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

    def new_key(self) -> TriggerKey:
        """The id and shard of a new job. Its due time is still to be filled in."""
        job_id = self._random_bytes(JOB_ID_BYTES)
        return TriggerKey(0, job_id, shard_of(job_id, self._layout.shard_count))

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
