"""Text from outside, made fit for one line of a log or a terminal, whatever it contains. Pure.

A name, a body or an error message may hold characters that do something in place of being shown: start a line, clear
the screen, set a title, turn the direction of writing around so that a line reads as another, or show nothing at all.
All of them are written as escapes.
"""

from __future__ import annotations

import json
import re

import msgspec

CHARS_MAX = 1024
"""Longest value in a log line. A queue name that has not been checked yet may be as long as a request."""

# Unicode's categories Cc (controls, C1 too), Cf (format: directions of writing, zero width, tags), Zl, Zp and Cs (lone
# surrogates). JSON escapes only those below U+0020.
_UNSHOWN = (
    "\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0001\U000e0020-\U000e007f"
)
_BMP_MAX = 0xFFFF
_NOT_SHOWN = re.compile(f"[{_UNSHOWN}]")
_BARE = re.compile(f"[^\\s\"'={_UNSHOWN}]+")


def clipped(text: str) -> str:
    """``text``, cut to `CHARS_MAX`, `encodable`."""
    return encodable(f"{text[:CHARS_MAX]}..." if len(text) > CHARS_MAX else text)


def encodable(text: str) -> str:
    """``text`` with lone surrogates, which have no UTF-8 form, replaced by escapes."""
    return text if text.isascii() else text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def flattened(text: str) -> str:
    """Line breaks and all that is not shown replaced by escapes, as JSON writes them."""
    return _NOT_SHOWN.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code > _BMP_MAX:  # JSON's form, in two halves
        return f"\\u{0xD7C0 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"


def as_json(value: object) -> str:
    """JSON on one line. Its readers get ``value`` unchanged."""
    try:
        encoded = msgspec.json.encode(value, enc_hook=str).decode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate, which has no UTF-8 form; JSON can spell it
        encoded = json.dumps(msgspec.to_builtins(value, enc_hook=str), separators=(",", ":"))
    return flattened(encoded)


def quoted(value: object) -> str:
    """A value for people: bare if it reads as one word, else as a JSON string."""
    text = clipped(str(value))
    return text if _BARE.fullmatch(text) else as_json(text)
