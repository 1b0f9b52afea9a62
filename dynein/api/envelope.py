"""Around every route: the host that was asked for, request ids, and a problem document for every failure."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dynein.api.caller import caller_of, identify, shown_path
from dynein.api.hosts import AllowedHosts
from dynein.api.problems import Misdirected, problem_of, respond
from dynein.api.request_metrics import RequestMetrics
from dynein.observability.events.api import REQUEST_ANSWERED, REQUEST_FAILED

_ALWAYS_SENT = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
"""A response may have a token, which is for its caller alone, and is never to be taken for another type than it has."""


class Envelope:
    """ASGI middleware: who may be addressed how, request ids (see `identify`), problem documents for unexpected errors,
    metrics, and headers that every response has.
    """

    def __init__(self, app: ASGIApp, metrics: RequestMetrics, hosts: AllowedHosts) -> None:
        self._app = app
        self._metrics = metrics
        self._hosts = hosts

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
                message["headers"] = [*message["headers"], *_ALWAYS_SENT]
                if REQUEST_ANSWERED.enabled:
                    _log_response(scope, message["status"])
            await send(message)

        try:
            self._hosts.check(scope)
            await self._app(scope, receive, send_with_id)
        except Misdirected as error:
            await respond(problem_of(error, shown_path(scope["path"])))(scope, receive, send_with_id)
        except Exception as error:
            REQUEST_FAILED.log(error, method=scope["method"], path=shown_path(scope["path"]), request_id=request_id)
            if status:
                raise
            await respond(problem_of(error, shown_path(scope["path"])))(scope, receive, send_with_id)
        finally:
            if status:
                self._metrics.responded(scope, status, began)


def _log_response(scope: Scope, status: int) -> None:
    caller = caller_of(scope)
    REQUEST_ANSWERED.log(
        method=scope["method"],
        path=shown_path(scope["path"]),
        status=status,
        request_id=caller.request_id,
        trace_id=caller.trace_id,
    )
