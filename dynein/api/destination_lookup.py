"""Looks up the destination queues of requests: a few at once, and not as many as somebody cares to make up.

A look-up is a call to SQS, which throttles them for the whole account. A request may name a thousand queues, so it ends
its look-ups once `MISSING_MAX` did not exist; and one caller has no more than `RATE_PER_S` of them in the long run.
Queues that are known cost nothing, and those that have been known are looked up again in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from dynein.api import checks
from dynein.api.caller import Caller
from dynein.core.queue_address import name_of
from dynein.core.queues import Destination
from dynein.delivery.destinations import Destinations
from dynein.errors import AccessDenied, DyneinError, InvalidField, Overloaded, RateLimited, UnknownQueue, as_result
from dynein.runtime.clock import Clock
from dynein.runtime.rate_limits import RateLimits
from dynein.settings import Settings

AT_ONCE_MAX = 32
"""Look-ups of this process under way."""
OF_A_REQUEST_MAX = 8
"""Of these, one request's."""
MISSING_MAX = 32
"""Queues of one request that do not exist. No more are looked up for it."""
RATE_PER_S = 20.0
"""Look-ups a second of queues that do not exist, for one caller."""
BURST_S = 10.0
FOUND_COST = 0.1
"""What a look-up counts that finds the queue. A service may well send to hundreds of queues."""


class DestinationLookup:
    """One process's."""

    def __init__(self, destinations: Destinations, clock: Clock, settings: Settings) -> None:
        self._destinations = destinations
        self._clock = clock
        self._own_queues = settings.own_queues
        """Names that nobody may send to. What is written to the inbound queue by hand would be taken for jobs that the
        API has accepted."""
        self._at_once = asyncio.Semaphore(AT_ONCE_MAX)
        self._rates = RateLimits(RATE_PER_S, BURST_S)

    async def all(self, queues: Sequence[str], caller: Caller) -> dict[str, Destination | DyneinError]:
        """The destination of each queue, or the error that its jobs get."""
        found: dict[str, Destination | DyneinError] = {}
        unknown = []
        for queue in dict.fromkeys(queues):
            known = self._destinations.known(queue)
            if name_of(queue) in self._own_queues:
                found[queue] = _reserved()
            elif known is not None:
                found[queue] = known
            elif self._destinations.is_missing(queue):
                found[queue] = UnknownQueue(queue)
            else:
                unknown.append(queue)
        missing = 0
        for start in range(0, len(unknown), OF_A_REQUEST_MAX):
            some = unknown[start : start + OF_A_REQUEST_MAX]
            if missing > MISSING_MAX - len(some):
                found |= dict.fromkeys(unknown[start:], _too_many())
                break
            results = await asyncio.gather(*(self._look_up(queue, caller) for queue in some))
            found |= zip(some, results, strict=True)
            missing += sum(isinstance(result, UnknownQueue) for result in results)
        return found

    async def _look_up(self, queue: str, caller: Caller) -> Destination | DyneinError:
        try:
            checks.queue(queue)
            if not self._destinations.has_been_known(queue):
                self._check_rate(caller)
            # Whoever shares a call that is under way needs no place of its own.
            async with contextlib.nullcontext() if self._destinations.is_being_looked_up(queue) else self._at_once:
                destination = await self._destinations.resolve(queue)
        except AccessDenied as error:
            self._count(caller, 1.0)
            # For the caller it is a queue like one that does not exist: another queue, or a permission, would help.
            return UnknownQueue(queue, str(error))
        except DyneinError as error:
            if isinstance(error, UnknownQueue):
                self._count(caller, 1.0)
            return as_result(error)
        self._count(caller, FOUND_COST)
        # By what it resolved to as well: a name is not all that a queue may be called by.
        return _reserved() if name_of(destination.url) in self._own_queues else destination

    def _check_rate(self, caller: Caller) -> None:
        wait_s = self._rates.take(caller.address, 0.0, self._clock.monotonic())
        if wait_s > 0:
            raise RateLimited(
                f"Too many queues that do not exist are asked for, more than {RATE_PER_S:g} a second; this one was not "
                "looked up.",
                retry_after_s=wait_s,
            )

    def _count(self, caller: Caller, cost: float) -> None:
        self._rates.take(caller.address, cost, self._clock.monotonic())


def _too_many() -> Overloaded:
    return Overloaded(f"{MISSING_MAX} other queues of this request do not exist; this one was not looked up.")


def _reserved() -> InvalidField:
    return InvalidField(
        "queue", "is one of Dynein's own queues, which take no jobs.", "Name the queue that your consumer reads."
    )
