"""Request bodies: read, unpacked, and bounded, each and all together."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from dynein.api.body_limits import BodyLimit
from dynein.api.content_coding import GZIP, Gunzip
from dynein.api.problems import (
    UnsupportedEncoding,
    UnsupportedMediaType,
)
from dynein.errors import Overloaded
from dynein.runtime.clock import Clock
from dynein.runtime.memory import Trimmer
from dynein.runtime.time_slices import TimeSlices

BODIES_MAX = 16
"""Request bodies in memory at once, counted in bodies of the largest size allowed. Past it: 503."""
SMALL_BODY_BYTES = 65_536
"""A body up to this size finds room although large ones have taken all that they may: a quarter is kept for these."""
_BODY_COST_MIN_BYTES = 4096
"""What even the smallest request takes while it is being handled."""
_JSON_TYPE = re.compile(r"application/(?:[a-z0-9.+-]+\+)?json(?:\s*;.*)?", re.ASCII | re.IGNORECASE)


class Intake:
    """Reads request bodies: none larger than it may be, and all together within a bound."""

    def __init__(self, request_bytes_max: int, clock: Clock) -> None:
        self._clock = clock
        self._trimmer = Trimmer()
        self._held_bytes = 0
        self._held_bytes_max = request_bytes_max * BODIES_MAX

    @asynccontextmanager
    async def body(self, request: Request, limit: BodyLimit) -> AsyncIterator[bytes]:
        """The body, unpacked, which counts as held until the response is sent.

        Raises `RequestTooLarge`, `UnsupportedMediaType`, `UnsupportedEncoding`, `MalformedEncoding` or `Overloaded`.
        """
        _check_media_type(request)
        declared = request.headers.get("content-length", "")
        if declared.isdecimal():
            limit.check(int(declared[:20]))
        held = self._hold(_BODY_COST_MIN_BYTES, 0)
        chunks: list[bytes] = []
        try:
            size = 0
            # Counted as it is received and unpacked: a declared length may be missing, wrong, or the packed body's.
            async for chunk in self._unpacked(request):
                size += len(chunk)
                if size > limit.bytes_max:
                    raise limit.exceeded(f"more than {limit.bytes_max} bytes")
                if size > held:
                    held += self._hold(size - held, size)
                chunks.append(chunk)
            whole = b"".join(chunks)
            chunks.clear()
            yield whole
        finally:
            chunks.clear()  # an error's traceback holds this frame, for as long as the error is held
            self._held_bytes -= held
            if held > SMALL_BODY_BYTES:
                self._trimmer.released(held)

    async def _unpacked(self, request: Request) -> AsyncIterator[bytes]:
        coding = request.headers.get("content-encoding", "").strip().lower()
        if coding in {"", "identity"}:
            async for chunk in request.stream():
                yield chunk
            return
        if coding not in GZIP:
            raise UnsupportedEncoding("The body's Content-Encoding is not gzip.")
        slices = TimeSlices(self._clock)
        gunzip = Gunzip()
        async for chunk in request.stream():
            for piece in gunzip.unpack(chunk):
                yield piece
                await slices.give_way()
        gunzip.end()

    def _hold(self, more_bytes: int, body_bytes: int) -> int:
        room = self._held_bytes_max if body_bytes <= SMALL_BODY_BYTES else self._held_bytes_max * 3 // 4
        if self._held_bytes + more_bytes > room:
            raise Overloaded(f"{self._held_bytes_max} bytes of requests are being handled already")
        self._held_bytes += more_bytes
        return more_bytes


def _check_media_type(request: Request) -> None:
    """A program may send any content type (``curl -d`` sends a form's), a web page only JSON.

    Browsers let a page send forms to any address, such as a Dynein on localhost, but JSON only after a preflight
    request, which we do not allow.
    """
    content_type = request.headers.get("content-type", "")
    from_browser = "origin" in request.headers or "sec-fetch-site" in request.headers
    if from_browser and not _JSON_TYPE.fullmatch(content_type.strip()):
        raise UnsupportedMediaType(f"The content type is {content_type[:100]!r}.")
