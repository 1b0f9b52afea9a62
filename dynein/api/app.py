"""The HTTP application, put together from its parts."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse
from starlette.routing import Route, compile_path
from starlette.types import Receive, Scope, Send

from dynein import __version__
from dynein.api.caller import shown_path
from dynein.api.docs_page import CONTENT_SECURITY_POLICY, docs_page
from dynein.api.envelope import Envelope
from dynein.api.fast_path import FastPath
from dynein.api.health import Health, Lifecycle, health_routes
from dynein.api.hosts import AllowedHosts
from dynein.api.openapi import openapi_document
from dynein.api.problems import headers_of, make, problem_of, respond
from dynein.api.request_metrics import RequestMetrics
from dynein.api.routes import job_routes
from dynein.api.submission import Submissions
from dynein.errors import DyneinError
from dynein.observability.telemetry import Telemetry
from dynein.observability.tracing import Tracing
from dynein.settings import Settings


def create_app(
    submissions: Submissions | None,
    readiness: Callable[[], Awaitable[Health]],
    lifecycle: Lifecycle,
    telemetry: Telemetry,
    settings: Settings,
    tracing: Tracing | None = None,
    *,
    serves_ops: bool = True,
) -> FastAPI:
    """The application of one port: the API, if there are ``submissions``; probes and metrics, if it ``serves_ops``."""
    serves_api = submissions is not None
    app = _Application(
        title="Dynein",
        version=__version__,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if serves_api else None,
        # FastAPI's own spans, where a process has a tracer for everything, have the whole path: with the token in it.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    document = openapi_document(settings, serves_ops=serves_ops)
    routes = job_routes(submissions, lifecycle, settings) if submissions is not None else []
    pages = [_docs_route(document)] if serves_api else []
    ops = health_routes(readiness, telemetry) if serves_ops else []
    app.router.routes.extend([*routes, *pages, *ops])
    hosts = AllowedHosts.of(settings)
    metrics = RequestMetrics(app.router.routes, telemetry)
    if submissions is not None:
        app.fast_path = FastPath(
            routes, metrics, hosts, on_error=_on_dynein_error, on_disconnect=_on_disconnect, tracing=tracing
        )
    app.openapi = lambda: document  # type: ignore[method-assign]  # FastAPI's documented way to replace it
    app.add_exception_handler(DyneinError, _on_dynein_error)
    app.add_exception_handler(HTTPException, _framework_errors(document["paths"]))
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_middleware(Envelope, metrics=metrics, hosts=hosts)
    return app


def _docs_route(document: Mapping[str, Any]) -> Route:
    page = functools.cache(lambda: docs_page(document))
    headers = {"content-security-policy": CONTENT_SECURITY_POLICY, "referrer-policy": "no-referrer"}

    async def docs(_: Request) -> Response:
        return HTMLResponse(page(), headers=headers)

    return Route("/docs", docs, methods=["GET"])


class _Application(FastAPI):
    fast_path: FastPath | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.fast_path is not None and self.fast_path.handles(scope):
            await self.fast_path.handle(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


async def _on_dynein_error(request: Request, error: Exception) -> Response:
    return respond(problem_of(error, shown_path(request.url.path)), headers_of(error))


def _framework_errors(paths: Mapping[str, Mapping[str, Any]]) -> Callable[[Request, Exception], Awaitable[Response]]:
    """A handler for unknown paths and methods. ``Allow`` has all methods of a path, not only those of one route."""
    resources = [
        (compile_path(template)[0], ", ".join(sorted(method.upper() for method in item if method != "parameters")))
        for template, item in paths.items()
    ]

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "internal")
        headers = dict(error.headers or {})
        if error.status_code == 405:  # noqa: PLR2004
            headers["Allow"] = next(
                (methods for pattern, methods in resources if pattern.match(request.url.path)), headers.get("Allow", "")
            )
        path = shown_path(request.url.path)
        return respond(make(code, f"{request.method} {path}: {error.detail}", path), headers)

    return on_http_exception


async def _on_disconnect(request: Request, error: Exception) -> Response:  # noqa: ARG001 - the signature is Starlette's
    """The client disconnected while sending: this response is not read."""
    return Response(status_code=400)
