"""A process's first calls. AWS may be slow or throttle just then, and one that gave up would only be started again."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dynein.errors import Retryable
from dynein.observability.events.process import START_DELAYED
from dynein.runtime.backoff import pause_s
from dynein.runtime.clock import Clock

TRIES_MAX = 5
"""Few enough to say soon that an address or a region is wrong: after some 5 s where the connection is refused."""
_PAUSE_FIRST_S = 0.5
_PAUSE_MAX_S = 4.0

ResultT = TypeVar("ResultT")


async def insist(what: str, call: Callable[[], Awaitable[ResultT]], clock: Clock, rng: random.Random) -> ResultT:
    """The answer of ``call``, tried up to `TRIES_MAX` times. Raises what the last try does, and any `Stop` at once."""
    for failures in range(1, TRIES_MAX):
        try:
            return await call()
        except Retryable as error:
            retry_in_s = pause_s(failures, first_s=_PAUSE_FIRST_S, max_s=_PAUSE_MAX_S, rng=rng)
            START_DELAYED.log(error, what=what, retry_in_s=round(retry_in_s, 1))
            await clock.sleep(retry_in_s)
    return await call()
