"""Calls that must get through sooner or later, for as long as the ingester runs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from dynein.errors import FatalError, Retryable
from dynein.observability.events.ingest import CALL_RETRIED
from dynein.runtime.backoff import pause_s
from dynein.runtime.clock import Clock, sleep_unless

ResultT = TypeVar("ResultT")

_BACKOFF_FIRST_S = 0.05
_BACKOFF_MAX_S = 5.0


class RunEnded(Exception):
    """The run is over; the inbound message is still there, and another ingester takes it up."""


class Retrying:
    """Backs off, and gives up only when ``ended`` is set."""

    def __init__(self, clock: Clock, rng: random.Random, ended: asyncio.Event) -> None:
        self._clock = clock
        self._rng = rng
        self._ended = ended

    async def call(
        self,
        what: str,
        attempt: Callable[[], Awaitable[ResultT]],
        *,
        retry_on: tuple[type[Exception], ...] = (Retryable,),
    ) -> ResultT:
        """Call ``attempt`` until it succeeds. Raises what is not in ``retry_on``, and `RunEnded`."""
        failures = 0
        while True:
            try:
                return await attempt()
            except retry_on as error:
                failures += 1
                CALL_RETRIED.log(error, what=what, failures=failures)
            await self.pause(failures)

    async def pause(self, failures: int) -> None:
        """Pause after the n-th failure in a row. Raises `RunEnded`."""
        wait_s = pause_s(failures, first_s=_BACKOFF_FIRST_S, max_s=_BACKOFF_MAX_S, rng=self._rng)
        if await sleep_unless(self._ended, self._clock, wait_s):
            raise RunEnded


async def all_of(coroutines: list[Coroutine[Any, Any, ResultT]]) -> list[ResultT]:
    """Run them concurrently to the end, every one, then return their results or raise an error (a `FatalError` first).

    Unlike a bare `asyncio.gather`, no sibling is left running behind an error: a message is let go only when nobody
    works on its jobs any more.
    """
    if len(coroutines) == 1:
        return [await coroutines[0]]
    ended = await asyncio.gather(*coroutines, return_exceptions=True)
    errors = [end for end in ended if isinstance(end, BaseException)]
    if errors:
        raise next((error for error in errors if isinstance(error, FatalError)), errors[0])
    return [end for end in ended if not isinstance(end, BaseException)]
