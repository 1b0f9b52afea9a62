"""From bytes to requests. An error names the field and, for a misspelt one, the right spelling."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from dynein.api.decoding_messages import why_malformed, wrong_value
from dynein.api.problems import MalformedJson
from dynein.api.schemas import AttributeRequest, JobRequest, MoveRequest, PrepareRequest
from dynein.core.job import Attribute
from dynein.errors import InvalidField


class _Batch(Struct, forbid_unknown_fields=True, frozen=True):
    jobs: list[Raw]


_JOB = msgspec.json.Decoder(JobRequest)
_MOVE = msgspec.json.Decoder(MoveRequest)
_PREPARE = msgspec.json.Decoder(PrepareRequest)
_BATCH = msgspec.json.Decoder(_Batch)
_ATTRIBUTE = msgspec.json.Decoder(str | int | float | AttributeRequest)
_LOCATED = re.compile(r"(?P<problem>.*) - at `\$\.?(?P<path>.*?)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`(?: - at .*)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*?)`.*", re.DOTALL)
_BATCH_OPENING = re.compile(r'\s*\{\s*"jobs"\s*:\s*\[\s*')
_BATCH_NEXT = re.compile(r"\s*(?:(,)\s*|\]\s*\}\s*$)")
_ECHO_CHARS_MAX = 100
RequestT = TypeVar("RequestT")


def decode_job(raw: bytes | Raw) -> JobRequest:
    """A job request. Raises `MalformedJson`, or `InvalidField` that names the field."""
    return _decode(_JOB, raw, JobRequest.__struct_fields__)


def decode_move(raw: bytes) -> MoveRequest:
    """The same for a move."""
    return _decode(_MOVE, raw, MoveRequest.__struct_fields__)


def decode_prepare(raw: bytes) -> PrepareRequest:
    """The same for a prepare; an empty body means now."""
    return _decode(_PREPARE, raw, PrepareRequest.__struct_fields__) if raw else PrepareRequest()


def decode_batch(raw: bytes) -> Sequence[bytes | Raw]:
    """The jobs of a batch, each still to be decoded separately, so that a bad one does not fail the others."""
    try:
        return _decode(_BATCH, raw, _Batch.__struct_fields__).jobs
    except MalformedJson:
        items = _split_batch(raw)
        if items is None:
            raise
        return items


def decode_attribute(name: str, raw: Raw) -> Attribute:
    """One user attribute, from any of its three forms. A number keeps the digits it was written with."""
    value = _decode(_ATTRIBUTE, raw, AttributeRequest.__struct_fields__, f"attributes.{name}")
    if isinstance(value, AttributeRequest):
        return Attribute(value.type, value.value)
    if isinstance(value, str):
        return Attribute("String", value)
    return Attribute("Number", bytes(raw).decode("ascii").strip())


def _decode(
    decoder: msgspec.json.Decoder[RequestT], raw: bytes | Raw, fields: Sequence[str], prefix: str = ""
) -> RequestT:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), fields, prefix) from error
    except RecursionError as error:
        raise MalformedJson("the JSON is nested too deeply") from error
    except ValueError as error:
        raise MalformedJson(why_malformed(str(error), bytes(raw))) from error


def _invalid(message: str, fields: Sequence[str], prefix: str) -> InvalidField:
    if unknown := _UNKNOWN.fullmatch(message):
        name = unknown[1][:_ECHO_CHARS_MAX]
        close = difflib.get_close_matches(name, fields, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Send only {', '.join(fields)}."
        return InvalidField(_path(prefix, name), "is not a field of this request.", hint)
    if missing := _MISSING.fullmatch(message):
        return InvalidField(_path(prefix, missing[1]), "is missing.", "Add it.")
    located = _LOCATED.fullmatch(message)
    path, problem = (located["path"], located["problem"]) if located else ("", message)
    return InvalidField(_path(prefix, path) or "$", *wrong_value(problem))


def _path(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else prefix or name


def _split_batch(raw: bytes) -> list[bytes] | None:
    r"""The items of a batch that `msgspec` refuses as a whole but a more lenient reader can separate; else ``None``.

    It happens when one job has a lone surrogate (``"\ud800"``): the JSON grammar allows it, but it is no valid text.
    """
    items: list[bytes] = []
    try:
        text = raw.decode("utf-8")
        opening = _BATCH_OPENING.match(text)
        if opening is None:
            return None
        scan = json.JSONDecoder().raw_decode
        at = opening.end()
        while True:
            _, end = scan(text, at)
            items.append(text[at:end].encode("utf-8"))
            following = _BATCH_NEXT.match(text, end)
            if following is None:
                return None
            if following[1] is None:
                return items
            at = following.end()
    except (ValueError, RecursionError):
        return None
