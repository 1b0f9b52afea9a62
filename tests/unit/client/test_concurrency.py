"""More callers than connections."""

from __future__ import annotations

import asyncio

from dynein.client import AsyncClient
from dynein.client.options import CONNECTIONS_MAX
from tests.unit.client.serving import serving

ANSWER_TAKES_S = 0.2


async def test_waiting_for_a_connection_is_no_doubt_about_an_answer() -> None:
    """The timeout is for an answer, not for the others that are before one in the queue."""
    rounds = 10
    async with (
        serving(takes_s=ANSWER_TAKES_S) as url,
        AsyncClient(url, timeout_s=rounds * ANSWER_TAKES_S / 2, patience_s=0) as client,
    ):
        found = await asyncio.gather(*(client.get("T") for _ in range(rounds * CONNECTIONS_MAX)))
    assert len(found) == rounds * CONNECTIONS_MAX
