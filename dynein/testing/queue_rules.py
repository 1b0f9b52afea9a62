"""What SQS refuses in one message. Pure. Codes and wording follow the SQS API reference."""

from __future__ import annotations

import base64
import binascii
import re

from dynein.core.job import Attribute
from dynein.core.queues import ATTRIBUTES_MAX, DELAY_MAX_S, OutgoingMessage, SendFailure
from dynein.errors import Remedy

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""SQS takes #x9 | #xA | #xD | #x20-#xD7FF | #xE000-#xFFFD | #x10000-#x10FFFF and nothing else."""
_ATTRIBUTE_NAME = re.compile(r"(?!\.)(?!.*\.\.)(?!.*\.$)[A-Za-z0-9_.-]{1,256}", re.ASCII)
_ATTRIBUTE_TYPE = re.compile(r"(String|Number|Binary)(\.[^\x00-\x1f]+)?")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_FIFO_ID = re.compile(r"[A-Za-z0-9!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}", re.ASCII)


def refusal(message: OutgoingMessage, *, fifo: bool) -> SendFailure | None:
    """Why SQS would refuse ``message`` in an otherwise accepted batch, or ``None``."""
    return _body_refusal(message) or _attributes_refusal(message) or _options_refusal(message, fifo=fifo)


def _body_refusal(message: OutgoingMessage) -> SendFailure | None:
    if not message.body:
        return _refused("MissingParameter", "The request must contain the parameter MessageBody.")
    if _ILLEGAL.search(message.body):
        return _refused("InvalidMessageContents", "Invalid characters found. Valid unicode characters are #x9 | ...")
    return None


def _attributes_refusal(message: OutgoingMessage) -> SendFailure | None:
    if len(message.attributes) > ATTRIBUTES_MAX:
        count = len(message.attributes)
        return _invalid(f"Number of message attributes [{count}] exceeds the allowed maximum [{ATTRIBUTES_MAX}].")
    for name, attribute in message.attributes.items():
        reserved = name.lower().startswith(("aws.", "amazon."))
        if reserved or _ATTRIBUTE_NAME.fullmatch(name) is None:
            return _invalid(f"The message attribute name '{name}' is invalid.")
        if _ATTRIBUTE_TYPE.fullmatch(attribute.type) is None or len(attribute.type) > 256:  # noqa: PLR2004
            return _invalid(f"The type of message attribute '{name}' is invalid.")
        if not _value_is_legal(attribute):
            return _invalid(f"The value of message attribute '{name}' is invalid.")
    return None


def _value_is_legal(attribute: Attribute) -> bool:
    if not attribute.value:
        return False
    if attribute.type.startswith("Binary"):
        try:
            return bool(base64.b64decode(attribute.value, validate=True))
        except binascii.Error:
            return False
    if attribute.type.startswith("Number"):
        return _NUMBER.fullmatch(attribute.value) is not None
    return _ILLEGAL.search(attribute.value) is None


def _options_refusal(message: OutgoingMessage, *, fifo: bool) -> SendFailure | None:
    if not 0 <= message.delay_s <= DELAY_MAX_S:
        return _invalid(f"Value {message.delay_s} for parameter DelaySeconds is invalid. Reason: must be 0 to 900.")
    for value in (message.message_group_id, message.deduplication_id):
        if value is not None and _FIFO_ID.fullmatch(value) is None:
            return _invalid("MessageGroupId and MessageDeduplicationId take 1 to 128 printable ASCII characters.")
    return _fifo_refusal(message) if fifo else _standard_refusal(message)


def _standard_refusal(message: OutgoingMessage) -> SendFailure | None:
    if message.deduplication_id is not None:
        return _invalid("The parameter MessageDeduplicationId is not valid for this queue type.")
    return None


def _fifo_refusal(message: OutgoingMessage) -> SendFailure | None:
    if message.delay_s:
        return _invalid("Value for parameter DelaySeconds is invalid. Reason: not valid for this queue type.")
    if message.message_group_id is None:
        return _refused("MissingParameter", "The request must contain the parameter MessageGroupId.")
    if message.deduplication_id is None:
        return _invalid("The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId.")
    return None


def _invalid(message: str) -> SendFailure:
    return _refused("InvalidParameterValue", message)


def _refused(code: str, message: str) -> SendFailure:
    return SendFailure(code, message, Remedy.REJECT)
