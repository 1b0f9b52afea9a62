"""The one way to retry a call: pauses that double, with jitter, until it succeeds or no retry is left.

The caller knows whether a retry is safe; this module knows only how long to wait in between. (`dynein.runtime.periodic`
is for agents, whose passes are repeated anyway; a lane of `dynein.delivery` has one backoff for many calls.)
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from dynein.errors import FatalError, Retryable
from dynein.runtime.backoff import pause_s
from dynein.runtime.clock import Clock, sleep_unless

ResultT = TypeVar("ResultT")

Failed = Callable[[str, Exception, int, float], None]
"""Called at each failure that will be retried: what failed, the error, how many in a row, seconds until the retry."""


class RetryEnded(Exception):
    """Retries have ended because the run is over. The call has not succeeded."""


class Backoff(NamedTuple):
    """Pauses between attempts, seconds: the first, and the longest; see `dynein.runtime.backoff`."""

    first_s: float
    max_s: float


def unlogged(what: str, error: Exception, failures: int, pause_s: float) -> None:
    """A `Failed` for failures that are counted and logged elsewhere."""


class Retry:
    """Retries calls, until ``ended`` is set, and at most until ``tries_max`` attempts have failed."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        backoff: Backoff,
        *,
        failed: Failed = unlogged,
        ended: asyncio.Event | None = None,
        tries_max: int | None = None,
    ) -> None:
        assert tries_max is None or tries_max >= 1
        self._clock = clock
        self._rng = rng
        self._backoff = backoff
        self._failed = failed
        self._ended = ended or asyncio.Event()
        self._tries_max = tries_max

    async def call(
        self,
        what: str,
        attempt: Callable[[], Awaitable[ResultT]],
        *,
        retry_on: tuple[type[Exception], ...] = (Retryable,),
    ) -> ResultT:
        """Call ``attempt`` until it succeeds. ``what`` describes it in the log.

        Raises errors not in ``retry_on``, any `FatalError`, the error of the last of ``tries_max`` attempts, and
        `RetryEnded`.
        """
        failures = 0
        while True:
            try:
                return await attempt()
            except FatalError:
                raise
            except retry_on as error:
                failures += 1
                if failures == self._tries_max:
                    raise
                pause_s = self._pause_s(failures)
                self._failed(what, error, failures, pause_s)
            await self._sleep(pause_s)

    async def pause(self, failures: int) -> None:
        """Pause as after the n-th failure in a row. Raises `RetryEnded`."""
        await self._sleep(self._pause_s(failures))

    def report(self, what: str, error: Exception, failures: int) -> None:
        """Note a failure, the n-th in a row, as `call` does. For those who cannot leave the retrying to this class."""
        self._failed(what, error, failures, 0.0)

    def _pause_s(self, failures: int) -> float:
        return pause_s(failures, first_s=self._backoff.first_s, max_s=self._backoff.max_s, rng=self._rng)

    async def _sleep(self, seconds: float) -> None:
        if await sleep_unless(self._ended, self._clock, seconds):
            raise RetryEnded
