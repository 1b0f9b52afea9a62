"""Checks names, characters and sizes against what SQS and DynamoDB accept. Pure; every function raises `InvalidField`.

A job that passes these can be delivered as far as its content goes. Sizes are UTF-8 bytes of what will really be sent
or stored: with our attributes and our packing added.
"""

from __future__ import annotations

import base64
import binascii
import re
import string
from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from dynein.core.delivered_message import PREFIX, own_attributes_count, user_attributes_max
from dynein.core.inbound_message import ENTRY_OVERHEAD_BYTES, PACK_OVERHEAD_BYTES
from dynein.core.job import Attribute
from dynein.core.queues import ATTRIBUTES_MAX
from dynein.delivery.dead_letter_queue import OVERHEAD_BYTES
from dynein.errors import InvalidField

NAME_CHARS_MAX = 256
ID_CHARS_MAX = 128
"""SQS: MessageGroupId and MessageDeduplicationId."""
QUEUE_CHARS_MAX = 512
"""A queue URL has a host, an account number and a name of at most 80 characters."""
ITEM_BYTES_MAX = 400 * 1024
"""DynamoDB: one item."""
ITEM_OVERHEAD_BYTES = 256
"""Upper bound of what a stored trigger adds to its record: keys, token, attribute names."""

# SQS, SendMessage: the characters of XML 1.0. Lone surrogates, which have no UTF-8 form, are outside of it too.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ATTRIBUTE_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*", re.ASCII)
_ATTRIBUTE_TYPE = re.compile(r"(String|Number|Binary)(\.[A-Za-z0-9_.-]+)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_NUMBER_DIGITS_MAX = 38
_ID_CHARS = frozenset(string.ascii_letters + string.digits + string.punctuation)


def length(field: str, value: str, bytes_max: int) -> None:
    """Not too long by the number of its characters alone: what is checked next takes time in proportion."""
    _fits(field, "the text alone", len(value), bytes_max)


def text(field: str, value: str) -> None:
    """Not empty, and every character legal in an SQS message."""
    if not value:
        raise InvalidField(
            field, "is empty.", "SQS accepts no empty text: send at least one character, or leave it out."
        )
    illegal = _ILLEGAL.search(value)
    if illegal is not None:
        raise InvalidField(
            field,
            f"has the character U+{ord(illegal[0]):04X} at position {illegal.start()}, which SQS does not accept.",
            "Send it as body_base64, or without characters that XML 1.0 excludes.",
        )


def base64_text(field: str, value: str) -> None:
    """Standard base64 with padding, of at least one byte."""
    try:
        decoded = base64.b64decode(value.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidField(field, "is not base64.", "Send standard base64 (A-Z a-z 0-9 + /) with padding.") from error
    if not decoded:
        raise InvalidField(field, "is empty.", "SQS accepts no empty body: send at least one byte.")


def queue(value: str) -> None:
    """A name or URL that can be looked up. Only SQS knows whether there is such a queue."""
    if not 1 <= len(value) <= QUEUE_CHARS_MAX:
        raise InvalidField("queue", f"has {len(value)} characters.", "Send the name or the URL of an SQS queue.")


def job_name(value: str) -> None:
    """A name to recognise a job by."""
    if len(value) > NAME_CHARS_MAX:
        raise InvalidField("name", f"has {len(value)} characters.", f"Send at most {NAME_CHARS_MAX}.")
    text("name", value)


def message_id(field: str, value: str) -> None:
    """A message group id or deduplication id."""
    if not 1 <= len(value) <= ID_CHARS_MAX or not _ID_CHARS.issuperset(value):
        raise InvalidField(
            field,
            "is not one that SQS accepts.",
            f"Send 1 to {ID_CHARS_MAX} of A-Z a-z 0-9 and ASCII punctuation, without spaces.",
        )


def attribute_field(name: str) -> str:
    """How an error names an attribute: a name that is too long is cut."""
    return f"attributes.{name}" if len(name) <= NAME_CHARS_MAX else f"attributes.{name[:NAME_CHARS_MAX]}..."


def attributes(user: Mapping[str, Attribute], *, named: bool, base64_body: bool) -> None:
    """The user's message attributes: number, names, types and values."""
    count_max = user_attributes_max(named=named, base64=base64_body)
    if len(user) > count_max:
        raise InvalidField(
            "attributes",
            f"has {len(user)} entries; SQS allows {ATTRIBUTES_MAX} a message, of which Dynein needs "
            f"{own_attributes_count(named=named, base64=base64_body)} for this job.",
            f"Send at most {count_max}.",
        )
    for name, attribute in user.items():
        field = attribute_field(name)
        _attribute_name(field, name)
        _attribute_value(field, attribute)


class SizeLimits(NamedTuple):
    """What each place takes that a job may have to go to."""

    queue_bytes: int
    """The largest message of its destination queue."""
    own_bytes: int
    """The largest message of the inbound and of the dead-letter queue."""


def sizes(field: str, limits: SizeLimits, *, message_bytes: int, record_bytes: int, scheduled: bool) -> None:
    """The job fits everywhere it may have to go. ``field`` gets the error: the body, as the largest part of a job."""
    _fits(field, "the message with its attributes", message_bytes, limits.queue_bytes)
    if not scheduled:
        return
    inbound_bytes = record_bytes + ENTRY_OVERHEAD_BYTES + PACK_OVERHEAD_BYTES
    _fits(field, "the job as written to the inbound queue", inbound_bytes, limits.own_bytes)
    _fits(field, "the job as a dead letter", record_bytes + OVERHEAD_BYTES, limits.own_bytes)
    _fits(field, "the job as a DynamoDB item", record_bytes + ITEM_OVERHEAD_BYTES, ITEM_BYTES_MAX)


def _fits(field: str, what: str, found_bytes: int, limit_bytes: int) -> None:
    if found_bytes > limit_bytes:
        raise InvalidField(
            field,
            f"is too large: {what} takes {found_bytes} bytes, the limit is {limit_bytes}.",
            f"Make it {found_bytes - limit_bytes} bytes smaller, or store it elsewhere and send a reference.",
        )


def _attribute_name(field: str, name: str) -> None:
    if len(name) > NAME_CHARS_MAX or not _ATTRIBUTE_NAME.fullmatch(name):
        raise InvalidField(
            field,
            "is not an attribute name that SQS accepts.",
            f"Use 1 to {NAME_CHARS_MAX} letters, digits, - and _, with single periods between them.",
        )
    if name.lower().startswith(("aws.", "amazon.")):
        raise InvalidField(field, "begins with a prefix that is reserved for AWS.", "Choose another name.")
    if name.lower().startswith(PREFIX):
        raise InvalidField(field, f"begins with {PREFIX}, which is reserved for Dynein.", "Choose another name.")


def _attribute_value(field: str, attribute: Attribute) -> None:
    kind = _ATTRIBUTE_TYPE.fullmatch(attribute.type)
    if kind is None or len(attribute.type) > NAME_CHARS_MAX:
        raise InvalidField(
            f"{field}.type",
            "is not a type that SQS accepts.",
            'Send "String", "Number" or "Binary", with a label of your own after a period if you like.',
        )
    if kind[1] == "Binary":
        base64_text(field, attribute.value)
        return
    text(field, attribute.value)
    if kind[1] == "Number" and not _is_number(attribute.value):
        raise InvalidField(
            field,
            "is not a Number that SQS accepts.",
            f"Send at most {_NUMBER_DIGITS_MAX} digits, between 1e-128 and 1e+126 in size; or use the type String.",
        )


def _is_number(value: str) -> bool:
    if len(value) > NAME_CHARS_MAX or not _NUMBER.fullmatch(value):
        return False
    number = Decimal(value)
    digits = len(number.as_tuple().digits)
    return digits <= _NUMBER_DIGITS_MAX and (number.is_zero() or -128 <= number.adjusted() < 126)  # noqa: PLR2004
