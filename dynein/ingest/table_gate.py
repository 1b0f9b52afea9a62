"""Lets an ingester receive only while it can reach the table."""

from __future__ import annotations

import asyncio

from dynein.core.keys import JOB_ID_BYTES, TriggerKey
from dynein.core.ports import Ports
from dynein.runtime.context import Context
from dynein.runtime.retry import Backoff, Failed, Retry, RetryEnded
from dynein.runtime.tasks import any_set

_BACKOFF = Backoff(first_s=0.1, max_s=5.0)
_NO_JOB = TriggerKey(0, bytes(JOB_ID_BYTES), 0)
"""The key of no job: removing it changes nothing."""


class TableGate:
    """What an ingester receives it has to store, and each receive counts towards the limit of the inbound queue.

    A process that may not write to the table ends and is started again; if it received something each time, good
    messages would end in the dead-letter queue. One that is cut off from the table would keep from the others what
    only they can store. So before the first receive a heartbeat and one harmless call of each other kind that storing
    takes have to succeed, and these calls again when no heartbeat has for ``ttl_s``.

    Nothing is waited for once ``ended`` is set.
    """

    def __init__(self, ports: Ports, context: Context, *, failed: Failed, ended: asyncio.Event, ttl_s: float) -> None:
        self._ports = ports
        self._clock = context.clock
        self._retry = Retry(context.clock, context.rng, _BACKOFF, failed=failed, ended=ended)
        self._ended = ended
        self._ttl_s = ttl_s
        self._heard = asyncio.Event()
        self._checking = asyncio.Lock()
        self._checked = False
        self._open_until = float("-inf")

    def reached(self) -> None:
        """A heartbeat has been written."""
        self._heard.set()
        self._open_until = self._clock.monotonic() + self._ttl_s

    async def passed(self) -> bool:
        """Wait until the table can be reached. False if ``ended`` was set before. Raises `FatalError`."""
        async with self._checking:
            if not self._heard.is_set():
                await any_set(self._heard, self._ended)
            if self._ended.is_set():
                return False
            if self._checked and self._clock.monotonic() < self._open_until:
                return True
            try:
                await self._retry.call("reach the table before receiving", self._check)
            except RetryEnded:
                return False
            self._checked = True
            self._open_until = self._clock.monotonic() + self._ttl_s
            return True

    async def _check(self) -> None:
        await self._ports.shards.get([_NO_JOB.shard])
        await self._ports.triggers.find(_NO_JOB)
        await self._ports.triggers.remove([_NO_JOB])
        await self._ports.shards.raise_hold_mark(_NO_JOB.shard, 0)
