"""From bytes to requests. An error names the field and, for a misspelt one, the right spelling."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from dynein.api.checks import attribute_field
from dynein.api.decoding_messages import why_malformed, wrong_value
from dynein.api.problems import MalformedJson
from dynein.api.schemas import AttributeRequest, JobRequest, MoveRequest, PrepareRequest
from dynein.core.job import Attribute
from dynein.core.queues import ATTRIBUTES_MAX
from dynein.errors import InvalidField


class _Batch(Struct, forbid_unknown_fields=True, frozen=True):
    jobs: Raw


_JOB = msgspec.json.Decoder(JobRequest)
_MOVE = msgspec.json.Decoder(MoveRequest)
_PREPARE = msgspec.json.Decoder(PrepareRequest)
_BATCH = msgspec.json.Decoder(_Batch)
_ATTRIBUTE = msgspec.json.Decoder(str | int | float | AttributeRequest)
_ATTRIBUTES = msgspec.json.Decoder(dict[str, Raw] | None)
_QUOTES_MAX = 1_000
"""Quotation marks in the attributes of one job. Ten attributes with types have a hundred."""
_LOCATED = re.compile(r"(?P<problem>.*) - at `\$\.?(?P<path>.*?)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`(?: - at .*)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*?)`.*", re.DOTALL)
_TOO_LONG = "Expected `array` of at most length"
_BETWEEN_ITEMS = re.compile(rb"[\s,]*")
_ECHO_CHARS_MAX = 100
_MESSAGE_CHARS_MAX = 1_000
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


def decode_batch(raw: bytes, items_max: int) -> Sequence[bytes | Raw]:
    """The jobs of a batch, each still to be decoded separately, so that a bad one does not fail the others.

    Decoding stops at the first item too many: a batch of 16 MiB has room for eight million.
    """
    try:
        return _items(_decode(_BATCH, raw, _Batch.__struct_fields__).jobs, items_max)
    except MalformedJson:
        readable = raw.replace(b"\\ud", b"\\uc").replace(b"\\uD", b"\\uc")
        if readable == raw:
            raise
    # One job has a lone surrogate ("\ud800"): the JSON grammar allows it, but it is no valid text. With every surrogate
    # replaced by a character of the same length, the batch can be split; each item is then taken from the original.
    jobs = _decode(_BATCH, readable, _Batch.__struct_fields__).jobs
    end = len(readable.rstrip()[:-1].rstrip())  # "jobs" is the only field: of several, the last one, which is read
    original = raw[end - _size_of(jobs) : end]
    items: list[bytes | Raw] = []
    at = 1
    for item in _items(jobs, items_max):
        between = _BETWEEN_ITEMS.match(original, at)
        assert between is not None
        at = between.end() + _size_of(item)
        items.append(original[between.end() : at])
    return items


def _items(jobs: Raw, items_max: int) -> list[bytes | Raw]:
    try:
        found = _items_decoder(items_max).decode(jobs)
    except msgspec.ValidationError as error:
        if not str(error).startswith(_TOO_LONG):
            raise _invalid(str(error), (), "jobs") from error
        fix = f"Send at most {items_max} in one request (setting batch_jobs_max)."
        raise InvalidField("jobs", f"has more than {items_max} entries.", fix) from error
    return [item for item in msgspec.structs.astuple(found) if item is not UNSET]


@functools.lru_cache(maxsize=8)
def _items_decoder(items_max: int) -> msgspec.json.Decoder[Struct]:
    """Of an array with ``items_max`` items at the most. A list's length is checked at its end, a struct's at once."""
    fields = [(f"item_{n}", Raw | UnsetType, UNSET) for n in range(items_max)]
    return msgspec.json.Decoder(
        msgspec.defstruct("Items", fields, array_like=True, forbid_unknown_fields=True, frozen=True)
    )


def _size_of(raw: bytes | Raw) -> int:
    return memoryview(raw).nbytes


def decode_attributes(raw: Raw | UnsetType) -> dict[str, Attribute]:
    """A job's attributes. Raises `InvalidField`; their number is the caller's to check, but they are not millions."""
    if raw is UNSET:
        return {}
    text = bytes(raw)
    # Counted before they are decoded: the mark that opens a string is never escaped, so there are no more strings.
    if text.count(b'"') - text.count(b'\\"') > _QUOTES_MAX:
        raise InvalidField("attributes", "has too many entries.", f"SQS allows {ATTRIBUTES_MAX} a message.")
    found = _decode(_ATTRIBUTES, text, (), "attributes") or {}
    return {name: _attribute(name, value) for name, value in found.items()}


def _attribute(name: str, raw: Raw) -> Attribute:
    """One user attribute, from any of its three forms. A number keeps the digits it was written with."""
    value = _decode(_ATTRIBUTE, raw, AttributeRequest.__struct_fields__, attribute_field(name))
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
    """``message`` is msgspec's. Of what was sent, only the beginnings of fields' names are repeated."""
    if len(message) > _MESSAGE_CHARS_MAX:
        message = message[: _MESSAGE_CHARS_MAX // 2] + message[-_MESSAGE_CHARS_MAX // 2 :]
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
