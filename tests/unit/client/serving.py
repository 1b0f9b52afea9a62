"""A server that knows one job."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

STATUS = {"token": "T", "due_at_ms": 5, "state": "scheduled", "policy": "SCHEDULED", "cancellable": True}


@asynccontextmanager
async def serving(*, takes_s: float = 0.0, ssl_context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Its URL while it runs. ``takes_s``: until each response."""

    async def get(_: web.BaseRequest) -> web.Response:
        await asyncio.sleep(takes_s)  # noqa: TID251 - a server that takes its time
        return web.json_response(STATUS)

    runner = web.ServerRunner(web.Server(get))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context).start()
    try:
        yield f"{'http' if ssl_context is None else 'https'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
