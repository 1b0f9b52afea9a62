"""More callers than connections."""

from __future__ import annotations

import asyncio

from dynein.client import AsyncClient
from dynein.client.options import CONNECTIONS_MAX
from tests.unit.client.serving import serving

RESPONSE_TAKES_S = 0.1
TIMEOUT_S = 20 * RESPONSE_TAKES_S
"""Only a machine that has much else to do makes a response take so long."""


async def test_waiting_for_a_connection_is_no_doubt_about_a_response() -> None:
    """The timeout is for an answer, not for the others that are before one in the queue."""
    rounds = 30
    assert rounds * RESPONSE_TAKES_S > TIMEOUT_S, "the last ones wait longer than that for a connection"
    async with (
        serving(takes_s=RESPONSE_TAKES_S) as url,
        AsyncClient(url, timeout_s=TIMEOUT_S, patience_s=0) as client,
    ):
        found = await asyncio.gather(*(client.get("T") for _ in range(rounds * CONNECTIONS_MAX)))
    assert len(found) == rounds * CONNECTIONS_MAX
