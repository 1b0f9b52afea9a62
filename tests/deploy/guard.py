"""Stands between a process and its engine as IAM does: what the process's policy does not allow is refused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

import aiohttp
from aiohttp import web

from tests.deploy.iam import Access, Policy, accesses

BODY_BYTES_MAX = 16 * 1024 * 1024
_NOT_PASSED_ON = {"host", "content-length", "transfer-encoding", "connection", "content-encoding"}


class Seen(NamedTuple):
    """What came by."""

    allowed: set[Access]
    refused: set[Access]
    operations: set[str]
    """Those of DynamoDB, by the names of its metrics."""


class Engine:
    """The engine behind all guards. ``account`` and ``region`` are those of its queues and tables."""

    def __init__(self, url: str, region: str, account: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.region = region
        self.account = account
        self._http = http
        # moto deviates: it checks a condition and then writes, without a lock, so of two calls at a time both may win.
        self._one_table_call_at_a_time = asyncio.Lock()

    async def ask(self, request: web.Request, body: bytes, target: str) -> web.Response:
        """The engine's answer."""
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _NOT_PASSED_ON}
        alone = self._one_table_call_at_a_time if target.startswith("DynamoDB") else contextlib.nullcontext()
        async with alone, self._http.post(self.url + request.path_qs, data=body, headers=headers) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _NOT_PASSED_ON}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)


class Guard:
    """Lets through what ``policy`` allows."""

    def __init__(self, engine: Engine, policy: Policy) -> None:
        self.seen = Seen(set(), set(), set())
        self.policy = policy
        self.url = ""
        self._engine = engine

    @contextlib.asynccontextmanager
    async def standing(self) -> AsyncIterator[Guard]:
        """Listen on a free port; `url` is where."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_post("/{path:.*}", self._pass)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            self.url = f"http://{host}:{port}"
            yield self
        finally:
            await runner.cleanup()

    async def _pass(self, request: web.Request) -> web.Response:
        target = request.headers["X-Amz-Target"]
        body = await request.read()
        wanted = accesses(target, body, self._engine.region, self._engine.account)
        refused = {access for access in wanted if not self.policy.allowing(access)}
        self.seen.refused.update(refused)
        if refused:
            return _denial(min(refused))
        self.seen.allowed.update(wanted)
        if target.startswith("DynamoDB"):
            self.seen.operations.add(target.partition(".")[2])
        return await self._engine.ask(request, body, target)


def _denial(access: Access) -> web.Response:
    """As AWS words it, in the protocol of both services."""
    code = "AccessDenied" if access.action.startswith("sqs:") else "AccessDeniedException"
    sentence = f"User is not authorized to perform: {access.action} on resource: {access.arn}"
    return web.json_response(
        {"__type": f"com.amazon.coral.service#{code}", "message": sentence},
        status=403 if access.action.startswith("sqs:") else 400,
        headers={"x-amzn-query-error": f"{code};Sender"},
        content_type="application/x-amz-json-1.0",
    )
