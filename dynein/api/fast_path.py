"""The way past the framework for the requests that come by the thousand.

Middleware stack, router and request wrapper take a third of the CPU that a single POST costs (docs/performance.md), and
decide nothing for a path without parameters. These requests go from the envelope straight to their endpoint; whatever
else comes, and every answer, is the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from dynein.api.intake import Envelope
from dynein.api.request_metrics import RequestMeter
from dynein.api.traced import Traced
from dynein.errors import DyneinError
from dynein.observability.tracing import Tracing

Endpoint = Callable[[Request], Awaitable[Response]]
Handler = Callable[[Request, Exception], Awaitable[Response]]


class Shortcut:
    """Answers POST requests to those of ``routes`` that have no path parameters.

    ``on_error`` and ``on_disconnect`` are what the application does with these exceptions. ``tracing`` makes a span of
    each that submits jobs.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        meter: RequestMeter,
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
        self.answer: ASGIApp = Envelope(self._answer if tracing is None else Traced(self._answer, tracing), meter)

    def takes(self, scope: Scope) -> bool:
        """Is this one of those requests?"""
        return scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self._endpoints

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            answer = await self._endpoints[scope["path"]](request)
        except DyneinError as error:
            answer = await self._on_error(request, error)
        except ClientDisconnect as error:
            answer = await self._on_disconnect(request, error)
        await answer(scope, receive, send)
