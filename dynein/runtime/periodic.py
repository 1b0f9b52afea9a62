"""One loop for every agent: run a pass, pause as it says, back off when AWS is unwell, end when told to."""

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

    A `Retryable` error, or an unexpected one, is logged and backed off from. A `FatalError` ends the loop: an operator
    has to act, and the process should exit saying so.
    """
    failures = 0
    while not stopping.is_set():
        try:
            wait_s = await run_once()
            failures = 0
        except FatalError:
            raise
        except Exception as error:  # noqa: BLE001 - a loop goes on, whatever a pass meets
            failures += 1
            wait_s = pause_s(failures, first_s=_BACKOFF_FIRST_S, max_s=_BACKOFF_MAX_S, rng=rng)
            PASS_FAILED.log(error, what=name, retry_in_s=round(wait_s, 3))
        await sleep_unless(stopping, clock, wait_s)
