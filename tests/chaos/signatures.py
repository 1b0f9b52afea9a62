"""What AWS does and no engine here: requests that were signed minutes ago, or minutes ahead, are refused.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html: "the timestamp must be within five
minutes of the AWS system time".
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

from tests.acceptance.fleet import now_ms

OFF_MAX_S = 300


@contextlib.asynccontextmanager
async def checked_signatures(upstream: str) -> AsyncIterator[str]:
    """The URL of a server that passes on to ``upstream`` what was signed within five minutes of now."""

    async def handle(request: web.Request) -> web.Response:
        signed = dt.datetime.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
        if abs(signed.timestamp() - now_ms() / 1000) > OFF_MAX_S:
            problem = {"__type": "InvalidSignatureException", "message": f"Signature not yet current: {signed}"}
            return web.json_response(problem, status=400)
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        async with http.post(upstream, data=await request.read(), headers=headers) as answer:
            return web.Response(
                status=answer.status, body=await answer.read(), headers={"Content-Type": answer.content_type}
            )

    app = web.Application(client_max_size=16 * 1024 * 1024)
    app.router.add_post("/{path:.*}", handle)
    runner = web.AppRunner(app)
    async with aiohttp.ClientSession() as http:
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()
