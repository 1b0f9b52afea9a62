"""More callers than connections."""

from __future__ import annotations

import asyncio

from aiohttp import web

from dynein.client import AsyncClient
from dynein.client.options import CONNECTIONS_MAX

STATUS = {"token": "T", "due_at_ms": 5, "state": "scheduled", "policy": "SCHEDULED", "cancellable": True}
ANSWER_TAKES_S = 0.2


async def test_waiting_for_a_connection_is_no_doubt_about_an_answer() -> None:
    """The timeout is for an answer, not for the others that are before one in the queue."""

    async def get(_: web.BaseRequest) -> web.Response:
        await asyncio.sleep(ANSWER_TAKES_S)  # noqa: TID251 - a server that takes its time
        return web.json_response(STATUS)

    runner = web.ServerRunner(web.Server(get))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    rounds = 10
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    client = AsyncClient(url, timeout_s=rounds * ANSWER_TAKES_S / 2, patience_s=0)
    try:
        found = await asyncio.gather(*(client.get("T") for _ in range(rounds * CONNECTIONS_MAX)))
    finally:
        await client.close()
        await runner.cleanup()
    assert len(found) == rounds * CONNECTIONS_MAX
