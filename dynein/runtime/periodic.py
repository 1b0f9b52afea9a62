"""The loop of every agent: run a pass, pause for as long as it asks, back off after an error, end when stopped."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from dynein.errors import FatalError
from dynein.observability.events.process import PASS_FAILED
from dynein.runtime.backoff import pause_s
from dynein.runtime.clock import Clock, sleep_unless

_BACKOFF_FIRST_S = 0.1
_BACKOFF_MAX_S = 5.0


async def run_periodically(
    name: str, run_once: Callable[[], Awaitable[float]], clock: Clock, stopping: asyncio.Event, rng: random.Random
) -> None:
    """Call ``run_once`` until ``stopping`` is set; it returns how many seconds to pause before the next pass.

    After a `Retryable` or an unexpected error, which is logged, the next pass waits for a backoff. A `FatalError` ends
    the loop: operator action is required, and the process should exit with that error.
    """
    failures = 0
    while not stopping.is_set():
        try:
            wait_s = await run_once()
            failures = 0
        except FatalError:
            raise
        except Exception as error:  # noqa: BLE001 - the loop continues whatever a pass raises
            failures += 1
            wait_s = pause_s(failures, first_s=_BACKOFF_FIRST_S, max_s=_BACKOFF_MAX_S, rng=rng)
            PASS_FAILED.log(error, what=name, retry_in_s=round(wait_s, 3))
        await sleep_unless(stopping, clock, wait_s)
