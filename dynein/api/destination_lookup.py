"""Looks up the destination queues of a request, several at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from dynein.api import checks
from dynein.core.queues import Destination
from dynein.delivery.destinations import Destinations
from dynein.errors import AccessDenied, DyneinError, UnknownQueue

LOOKUPS_MAX = 16
"""Destination look-ups of one batch that are under way at once."""


async def look_up_all(queues: Sequence[str], destinations: Destinations) -> dict[str, Destination | DyneinError]:
    """The destination of each queue, or the error that its jobs get."""
    found: dict[str, Destination | DyneinError] = {}
    unknown = []
    for queue in dict.fromkeys(queues):
        known = destinations.known(queue)
        if known is None:
            unknown.append(queue)
        else:
            found[queue] = known
    for start in range(0, len(unknown), LOOKUPS_MAX):
        some = unknown[start : start + LOOKUPS_MAX]
        looked_up = await asyncio.gather(*(_look_up(queue, destinations) for queue in some))
        found.update(zip(some, looked_up, strict=True))
    return found


async def _look_up(queue: str, destinations: Destinations) -> Destination | DyneinError:
    try:
        checks.queue(queue)
        return await destinations.resolve(queue)
    except AccessDenied as error:
        # For the caller it is a queue like one that does not exist: another queue, or a permission, would help.
        return UnknownQueue(queue, str(error))
    except DyneinError as error:
        return error
