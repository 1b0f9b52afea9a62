"""Text from outside, made fit for one log line whatever it contains. Pure."""

from __future__ import annotations

import re

import msgspec

CHARS_MAX = 1024
"""Longest value in a log line. A queue name that has not been checked yet may be as long as a request."""

# Line readers and terminals act on more than the controls below U+0020, which are all that JSON escapes.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_BARE = re.compile("[^\\s\"'=\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def clipped(text: str) -> str:
    """``text``, cut to `CHARS_MAX`, `encodable`."""
    return encodable(f"{text[:CHARS_MAX]}..." if len(text) > CHARS_MAX else text)


def encodable(text: str) -> str:
    """``text`` with lone surrogates, which have no UTF-8 form, replaced by escapes."""
    return text if text.isascii() else text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def flattened(text: str) -> str:
    """Text of libraries and tracebacks: control characters and line breaks replaced by escapes."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", encodable(text))


def as_json(value: object) -> str:
    """JSON on one line."""
    return flattened(msgspec.json.encode(value, enc_hook=str).decode("utf-8"))


def quoted(value: object) -> str:
    """A value for people: bare if it reads as one word, else as a JSON string."""
    text = clipped(str(value))
    return text if _BARE.fullmatch(text) else as_json(text)
