"""Looks up the destination queues of a request, several at once."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Sequence

from dynein.api import checks
from dynein.core.queue_address import name_of
from dynein.core.queues import Destination
from dynein.delivery.destinations import Destinations
from dynein.errors import AccessDenied, DyneinError, InvalidField, UnknownQueue, as_result

LOOKUPS_MAX = 16
"""Destination look-ups of one batch that are under way at once."""


async def look_up_all(
    queues: Sequence[str], destinations: Destinations, own_queues: Container[str]
) -> dict[str, Destination | DyneinError]:
    """The destination of each queue, or the error that its jobs get.

    ``own_queues``: names that nobody may send to. What is written to the inbound queue by hand would be taken for jobs
    that the API has accepted.
    """
    found: dict[str, Destination | DyneinError] = {}
    unknown = []
    for queue in dict.fromkeys(queues):
        known = destinations.known(queue)
        if name_of(queue) in own_queues:
            found[queue] = _reserved()
        elif known is None:
            unknown.append(queue)
        else:
            found[queue] = known
    for start in range(0, len(unknown), LOOKUPS_MAX):
        some = unknown[start : start + LOOKUPS_MAX]
        looked_up = await asyncio.gather(*(_look_up(queue, destinations) for queue in some))
        for queue, result in zip(some, looked_up, strict=True):
            # By what it resolved to as well: a name is not all that a queue may be called by.
            is_own = isinstance(result, Destination) and name_of(result.url) in own_queues
            found[queue] = _reserved() if is_own else result
    return found


def _reserved() -> InvalidField:
    return InvalidField(
        "queue", "is one of Dynein's own queues, which take no jobs.", "Name the queue that your consumer reads."
    )


async def _look_up(queue: str, destinations: Destinations) -> Destination | DyneinError:
    try:
        checks.queue(queue)
        return await destinations.resolve(queue)
    except AccessDenied as error:
        # For the caller it is a queue like one that does not exist: another queue, or a permission, would help.
        return UnknownQueue(queue, str(error))
    except DyneinError as error:
        return as_result(error)
