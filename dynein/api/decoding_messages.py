"""What is wrong with a request that cannot be decoded, in the words of JSON and of its fields, and where.

The decoder says what it expected in terms of its own types, and counts bytes for some errors only. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dynein.core.job import Policy

_NAMES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "an array",
    "object": "an object",
    "null": "null",
}
"""The decoder's names of JSON types, as they are expected."""
_FOUND = {**_NAMES, "int": "a number", "bool": "a boolean"}
_FIXES = {
    "text": 'Send text, in double quotes: "like this".',
    "true or false": "Send true or false, without quotes.",
    "an object": 'Send an object: {"name": "value"}.',
    "an array": "Send an array: [...].",
    "a number": "Send a number, without quotes.",
}
_EXPECTED = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")
_AT_BYTE = re.compile(r"JSON is malformed: (.*) \(byte (\d+)\)", re.DOTALL)
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_LONE_SURROGATE = re.compile(
    rb"(?<!\\)(?:\\\\)*("
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)
_CHUNK_BYTES = 65_536
_WORD_BYTES_MAX = 20
_LETTER = re.compile(rb"[A-Za-z_]")
_NO_NUMBER = re.compile(rb"[+-]?(?:NaN|Infinity)")
_CONTROL_BELOW = 0x20
_ASCII_BELOW = 0x80


class Wrong(NamedTuple):
    """``problem`` is the end of a sentence about a field: ``is a number; it must be text.``"""

    problem: str
    fix: str


def wrong_value(message: str) -> Wrong:
    """What the decoder's ``message`` about a value means."""
    types = _EXPECTED.fullmatch(message)
    if types is not None:
        wanted = [name for name in types[1].split(" | ") if name != "null"]
        if "float" in wanted and "int" in wanted:
            wanted.remove("int")
        if wanted == ["object"]:
            return _must_be(types[2], ["an object"])
        return _must_be(types[2], [_NAMES.get(name, name) for name in wanted])
    if message.startswith("Invalid enum value"):
        return Wrong("is none of its values.", f"Send one of {', '.join(Policy)}.")
    if message == "Number out of range":
        return Wrong("is a number too large to be read.", "Send a smaller one.")
    return Wrong("has a value that it cannot have.", "Send a value of the documented type.")


def _must_be(found: str, wanted: Sequence[str]) -> Wrong:
    """Attributes, due times and delays may be of several types."""
    named = " or ".join(sorted(wanted, key=list(_NAMES.values()).index))
    return Wrong(f"is {_FOUND.get(found, found)}; it must be {named}.", _FIXES.get(named, f"Send {named}."))


def why_malformed(message: str, raw: bytes) -> str:  # noqa: PLR0911 - a table
    """Why ``raw`` is no JSON, and at which byte: ``message`` is the decoder's, which gave up on it."""
    if not raw.strip():
        return "the body is empty: send a JSON object"
    if raw.startswith(_BOM):
        return "the body begins with a byte order mark (EF BB BF): send it without one"
    if raw.startswith(_UTF16) or b"\0" in raw[:4]:
        return "the body is UTF-16 or UTF-32: JSON is sent as UTF-8"
    not_utf8 = _first_byte_that_is_not_utf8(raw)
    if not_utf8 is not None:
        return (
            f"the JSON is not UTF-8: byte {not_utf8} is {raw[not_utf8]:02X}. If the text is in another "
            "encoding, such as Latin-1, convert it"
        )
    surrogate = _LONE_SURROGATE.search(raw)
    if surrogate is not None:
        escape = surrogate[1].decode("ascii")
        return (
            f"the escape {escape} at byte {surrogate.start(1)} is half of a character: the other half of the surrogate "
            "pair is missing, as when text is cut in the middle of an emoji"
        )
    if "truncated" in message:
        return f"the JSON ends too early, at byte {len(raw)}: a quote, bracket or brace is not closed"
    located = _AT_BYTE.fullmatch(message)
    if located is None:
        return "the JSON cannot be read"
    return _at(located[1], int(located[2]), raw)


_REASONS: Mapping[str, str] = {
    "expected ':'": "a colon is missing after a field's name",
    "expected ',' or '}'": "a comma is missing between two fields, or the closing brace",
    "expected ',' or ']'": "a comma is missing between two values, or the closing bracket",
    "invalid character in unicode escape": "an escape \\u needs four hexadecimal digits",
    "invalid number": "a number is not written as JSON writes it",
    "trailing comma in array": "JSON has no comma after the last value",
    "trailing comma in object": "JSON has no comma after the last field",
}


def _at(reason: str, byte: int, raw: bytes) -> str:  # noqa: PLR0911 - a table
    if reason == "trailing characters":  # counted from behind the first of them
        byte -= 1
        return f"there is more after the end of the JSON value: {_shown(raw, byte)} at byte {byte}"
    if reason == "object keys must be strings":
        quotes = " JSON has no single quotes." if raw[byte : byte + 1] == b"'" else ""
        return f"a field's name must be in double quotes: {_shown(raw, byte)} at byte {byte} is not.{quotes}".rstrip(
            "."
        )
    if reason == "invalid escape character in string":  # counted from behind it
        return f"the escape {_shown(raw, byte - 2)}{_shown(raw, byte - 1)} at byte {byte - 2} does not exist in JSON"
    if reason in _REASONS:
        return f"{_REASONS[reason]} (byte {byte})"
    if byte == 0 and raw[:1].isalpha() and b"=" in raw[:100]:
        return "the body is a form, not JSON: send a JSON object"
    if byte < len(raw) and raw[byte] < _CONTROL_BELOW:
        return f"a text has the character U+{raw[byte]:04X} at byte {byte}: write it as an escape, such as \\n or \\t"
    if _NO_NUMBER.match(raw, byte):
        return f"JSON has no NaN and no Infinity (byte {byte})"
    start = byte
    while start > 0 and _LETTER.match(raw[start - 1 : start]) and byte - start < _WORD_BYTES_MAX:
        start -= 1
    if _LETTER.match(raw, start):
        return f"what begins at byte {start} is no JSON value: text needs double quotes"
    return f"JSON has no {_shown(raw, byte)} in this place (byte {byte})"


def _shown(raw: bytes, byte: int) -> str:
    """The character at ``byte``, for a sentence."""
    if byte >= len(raw):
        return "end"
    if raw[byte] >= _ASCII_BELOW:
        return raw[byte : byte + 4].decode("utf-8", "ignore")[:1] or f"byte {raw[byte]:02X}"
    character = chr(raw[byte])
    return character if character.isprintable() and character != " " else f"U+{raw[byte]:04X}"


def _first_byte_that_is_not_utf8(raw: bytes) -> int | None:
    """Its position. In pieces, so that a large body is not copied as a whole."""
    at = 0
    while at < len(raw):
        piece = raw[at : at + _CHUNK_BYTES]
        try:
            piece.decode("utf-8")
        except UnicodeDecodeError as error:
            cut = error.reason == "unexpected end of data" and at + len(piece) < len(raw)
            if not cut or error.start == 0:
                return at + error.start
            at += error.start  # a character goes on in the next piece
        else:
            at += len(piece)
    return None
