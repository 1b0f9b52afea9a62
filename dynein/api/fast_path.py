"""Handles the most frequent requests without the framework.

Middleware stack, router and request wrapper take a third of the CPU that a single POST costs (docs/performance.md), and
decide nothing for a path without parameters. These requests go from the envelope straight to their endpoint. All other
requests go through the framework, and every response is the same either way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from dynein.api.envelope import Envelope
from dynein.api.hosts import AllowedHosts
from dynein.api.request_metrics import RequestMetrics
from dynein.api.traced import Traced
from dynein.errors import DyneinError
from dynein.observability.tracing import Tracing

Endpoint = Callable[[Request], Awaitable[Response]]
Handler = Callable[[Request, Exception], Awaitable[Response]]


class FastPath:
    """Handles POST requests to those of ``routes`` that have no path parameters.

    ``on_error`` and ``on_disconnect`` are the application's exception handlers. ``tracing`` makes a span for each
    request that submits jobs.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        metrics: RequestMetrics,
        hosts: AllowedHosts,
        *,
        on_error: Handler,
        on_disconnect: Handler,
        tracing: Tracing | None = None,
    ) -> None:
        self._endpoints: Mapping[str, Endpoint] = {
            route.path: route.endpoint for route in routes if route.methods == {"POST"} and not route.param_convertors
        }
        self._on_error = on_error
        self._on_disconnect = on_disconnect
        handler: ASGIApp = self._handle if tracing is None else Traced(self._handle, tracing)
        self.handle: ASGIApp = Envelope(handler, metrics, hosts)

    def handles(self, scope: Scope) -> bool:
        """Is this one of those requests?"""
        return scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self._endpoints

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._endpoints[scope["path"]](request)
        except DyneinError as error:
            response = await self._on_error(request, error)
        except ClientDisconnect as error:
            response = await self._on_disconnect(request, error)
        await response(scope, receive, send)
