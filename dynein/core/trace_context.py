"""W3C Trace Context: which request a job came from, carried to its consumer. Pure.

Only ``traceparent`` travels: 55 bytes that name the trace and the span that submitted the job, which is all that a link
across the delay needs. ``tracestate`` does not. It is what tracing systems exchange about a request under way;
hours later there is no such request, and it would take a second of SQS's ten message attributes and up to 512 bytes of
every stored job.

A job never fails for its trace context: what cannot be read, or has no room, is left out.

Source: https://www.w3.org/TR/trace-context/, sections 3.2 (format) and 4.3 (processing).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

TRACEPARENT = "traceparent"
"""Name of the header, of the field of a job, and of the delivered message's attribute."""
TRACEPARENT_CHARS = 55

_HEADER = TRACEPARENT.encode("ascii")
_VERSION = "00"
# Version ff is forbidden; ids of zeros only are invalid. A later version may have more after a further dash.
_TRACEPARENT = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<ids>(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?P<more>-.*)?",
    re.ASCII | re.DOTALL,
)
_KNOWN_FLAGS = 0x03
"""Sampled, and (since level 2) random. What other bits of a later version mean is not known, so they are cleared."""


def parse_traceparent(text: str) -> str | None:
    """The context in the form of version 00, or ``None`` for what is not one.

    Of a later version the parts that version 00 has are kept, as the specification asks.
    """
    found = _TRACEPARENT.fullmatch(text)
    if found is None:
        return None
    if found["version"] == _VERSION:
        return None if found["more"] is not None else text
    return f"{_VERSION}-{found['ids']}-{int(found['flags'], 16) & _KNOWN_FLAGS:02x}"


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace id in what `parse_traceparent` returned."""
    return None if traceparent is None else traceparent[3:35]


def traceparent_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The context of a request, from its headers in ASGI's form. Sent twice, it counts as not sent."""
    given: bytes | None = None
    for name, value in headers:
        if name == _HEADER:
            if given is not None:
                return None
            given = value
    return None if given is None else parse_traceparent(given.decode("latin-1").strip(" \t"))
