"""Around every route: bounded request bodies, request ids, and a problem document for every failure."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dynein.api.caller import caller_of, identify
from dynein.api.problems import RequestTooLarge, UnsupportedMediaType, problem_of, respond
from dynein.api.request_metrics import RequestMetrics
from dynein.errors import Overloaded
from dynein.observability.events.api import REQUEST_ANSWERED, REQUEST_FAILED

BODIES_MAX = 16
"""Request bodies in memory at once, counted in bodies of the largest size allowed. Past it: 503."""
SMALL_BODY_BYTES = 65_536
"""A body up to this size finds room although large ones have taken all that they may: a quarter is kept for these."""
_BODY_COST_MIN_BYTES = 4096
"""What even the smallest request takes while it is being handled."""
_JSON_TYPE = re.compile(r"application/(?:[a-z0-9.+-]+\+)?json(?:\s*;.*)?", re.ASCII | re.IGNORECASE)


class Intake:
    """Reads request bodies: none larger than ``request_bytes_max``, and all together within a bound."""

    def __init__(self, request_bytes_max: int) -> None:
        self._request_bytes_max = request_bytes_max
        self._held_bytes = 0
        self._held_bytes_max = request_bytes_max * BODIES_MAX

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The body, which counts as held until the response is sent.

        Raises `RequestTooLarge`, `UnsupportedMediaType` or `Overloaded`.
        """
        _check_media_type(request)
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > self._request_bytes_max:
            raise self._too_large(f"{declared[:20]} bytes")
        held = self._hold(_BODY_COST_MIN_BYTES, 0)
        chunks: list[bytes] = []
        try:
            size = 0
            # Counted as it is received: a declared length may be missing or wrong.
            async for chunk in request.stream():
                size += len(chunk)
                if size > self._request_bytes_max:
                    raise self._too_large(f"more than {self._request_bytes_max} bytes")
                if size > held:
                    held += self._hold(size - held, size)
                chunks.append(chunk)
            yield b"".join(chunks)
        finally:
            chunks.clear()  # an error's traceback holds this frame, for as long as the error is held
            self._held_bytes -= held

    def _hold(self, more_bytes: int, body_bytes: int) -> int:
        room = self._held_bytes_max if body_bytes <= SMALL_BODY_BYTES else self._held_bytes_max * 3 // 4
        if self._held_bytes + more_bytes > room:
            raise Overloaded(f"{self._held_bytes_max} bytes of requests are being handled already")
        self._held_bytes += more_bytes
        return more_bytes

    def _too_large(self, found: str) -> RequestTooLarge:
        return RequestTooLarge(
            f"The request body has {found}; the limit is {self._request_bytes_max} (setting request_bytes_max)."
        )


def _check_media_type(request: Request) -> None:
    """A program may send any content type (``curl -d`` sends a form's), a web page only JSON.

    Browsers let a page send forms to any address, such as a Dynein on localhost, but JSON only after a preflight
    request, which we do not allow.
    """
    content_type = request.headers.get("content-type", "")
    from_browser = "origin" in request.headers or "sec-fetch-site" in request.headers
    if from_browser and not _JSON_TYPE.fullmatch(content_type.strip()):
        raise UnsupportedMediaType(f"The content type is {content_type[:100]!r}.")


class Envelope:
    """ASGI middleware: request ids (see `identify`), problem documents for unexpected errors, metrics."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = self._metrics.now()
        request_id = identify(scope).request_id
        assert request_id is not None
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
                if REQUEST_ANSWERED.enabled:
                    _log_response(scope, message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            REQUEST_FAILED.log(error, method=scope["method"], path=scope["path"], request_id=request_id)
            if status:
                raise
            await respond(problem_of(error, scope["path"]))(scope, receive, send_with_id)
        finally:
            if status:
                self._metrics.responded(scope, status, began)


def _log_response(scope: Scope, status: int) -> None:
    caller = caller_of(scope)
    REQUEST_ANSWERED.log(
        method=scope["method"],
        path=scope["path"],
        status=status,
        request_id=caller.request_id,
        trace_id=caller.trace_id,
    )
