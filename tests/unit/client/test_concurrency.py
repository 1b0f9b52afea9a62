"""More callers than connections."""

from __future__ import annotations

import asyncio

from dynein.client import AsyncClient
from dynein.client.options import CONNECTIONS_MAX
from tests.unit.client.serving import serving

RESPONSE_TAKES_S = 0.2


async def test_waiting_for_a_connection_is_no_doubt_about_a_response() -> None:
    """The timeout is for a response, not for the requests that are ahead in the queue."""
    rounds = 10
    async with (
        serving(takes_s=RESPONSE_TAKES_S) as url,
        AsyncClient(url, timeout_s=rounds * RESPONSE_TAKES_S / 2, patience_s=0) as client,
    ):
        found = await asyncio.gather(*(client.get("T") for _ in range(rounds * CONNECTIONS_MAX)))
    assert len(found) == rounds * CONNECTIONS_MAX
