"""A span around each request that submits jobs, where there is a tracer."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dynein.api.caller import caller_of, set_caller
from dynein.observability.tracing import Tracing

SUBMITS = frozenset({"/v1/jobs", "/v1/jobs/batch"})


class Traced:
    """ASGI middleware behind the `Envelope`. The span is a child of the caller's context, and takes its place."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["path"] not in SUBMITS:
            await self._app(scope, receive, send)
            return
        caller = caller_of(scope)
        span = self._tracing.submitting(scope["path"], caller.request_id or "", caller.traceparent)
        set_caller(scope, caller._replace(traceparent=span.traceparent, span=span))
        status = 500

        async def send_and_keep_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_keep_status)
        finally:
            span.end(status)
