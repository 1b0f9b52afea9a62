"""The identity of a request: its request id and the trace context it came with."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from starlette.types import Scope

from dynein.core.job_token import NAMING_CHARS, TOKEN_CHARS
from dynein.core.trace_context import trace_id_of, traceparent_of
from dynein.observability.tracing import SubmitSpan

REQUEST_ID_CHARS_MAX = 128
_REQUEST_ID = re.compile(rb"[!-~]{1,%d}" % REQUEST_ID_CHARS_MAX)
PATH_CHARS_MAX = 200
_TOKEN_IN_PATH = re.compile(rf"([A-Za-z0-9_-]{{{NAMING_CHARS}}})[A-Za-z0-9_-]{{{TOKEN_CHARS - NAMING_CHARS},}}")
_KEY = "dynein.caller"


class Caller(NamedTuple):
    """One request's identity. It goes into every log line about the request, and the context into its jobs."""

    request_id: str | None = None
    traceparent: str | None = None
    span: SubmitSpan | None = None
    """Its span, where there is a tracer; the context is then that span's."""
    address: str = ""
    """Of the other end of the connection."""

    @property
    def trace_id(self) -> str | None:
        """For log lines."""
        return trace_id_of(self.traceparent)


ANONYMOUS = Caller()
"""Where there is no request, or nothing is known about it."""


def identify(scope: Scope) -> Caller:
    """Read the identity from the headers of a request, once, and store it in its scope.

    The request id is the caller's ``x-request-id`` if that is 1 to 128 characters of visible ASCII, else a new one.
    """
    headers = scope["headers"]
    client = scope.get("client")
    caller = Caller(_request_id(headers), traceparent_of(headers), address=client[0] if client else "")
    set_caller(scope, caller)
    return caller


def set_caller(scope: Scope, caller: Caller) -> None:
    """Store a request's identity in its scope."""
    scope[_KEY] = caller


def caller_of(scope: Scope) -> Caller:
    """A request's identity, as it was stored."""
    caller: Caller = scope[_KEY]
    return caller


def shown_path(path: str) -> str:
    """A request's path as logs and problem documents may have it: of bounded length, and with no token in full.

    Who knows a token can cancel its job. Its first part still names the job, and is enough to search for.
    """
    return _TOKEN_IN_PATH.sub(r"\1...", path[:PATH_CHARS_MAX])


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode("ascii")
    return os.urandom(8).hex()
