"""A delivered message, for consumers in Python. Pure: the consumer receives it with the SDK of its choice."""

from __future__ import annotations

import datetime as dt
import json
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from dynein.client.jobs import moment
from dynein.core.delivered_message import DUE_AT_ATTRIBUTE, ENCODING_ATTRIBUTE, NAME_ATTRIBUTE, PREFIX, TOKEN_ATTRIBUTE
from dynein.core.trace_context import TRACEPARENT


class Delivery(NamedTuple):
    """A job that has arrived. The body is bytes if it was submitted as bytes, and else text."""

    token: str
    """The same for every delivery of a job: a consumer that must not process a job twice stores it."""
    due_at_ms: int
    body: str | bytes
    name: str | None
    attributes: dict[str, str | bytes]
    """The submitter's own. Numbers are text, as SQS has them."""
    traceparent: str | None

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Self:
        """From a message as boto3 or aiobotocore received it, with ``MessageAttributeNames=["All"]``.

        Raises `ValueError` for one that Dynein did not send, or that was received without its attributes.
        """
        attributes: dict[str, str | bytes] = {
            name: value["BinaryValue"] if "BinaryValue" in value else value["StringValue"]
            for name, value in message.get("MessageAttributes", {}).items()
        }
        if TOKEN_ATTRIBUTE not in attributes or DUE_AT_ATTRIBUTE not in attributes:
            raise ValueError(
                f"message {message.get('MessageId')} has no attribute {TOKEN_ATTRIBUTE}: receive it with "
                'MessageAttributeNames=["All"], or Dynein did not send it'
            )
        name, traceparent = attributes.get(NAME_ATTRIBUTE), attributes.get(TRACEPARENT)
        body = message["Body"]
        return cls(
            token=str(attributes[TOKEN_ATTRIBUTE]),
            due_at_ms=int(attributes[DUE_AT_ATTRIBUTE]),
            body=b64decode(body) if attributes.get(ENCODING_ATTRIBUTE) == "base64" else body,
            name=None if name is None else str(name),
            attributes={
                name: value for name, value in attributes.items() if not name.startswith(PREFIX) and name != TRACEPARENT
            },
            traceparent=None if traceparent is None else str(traceparent),
        )

    @property
    def due_at(self) -> dt.datetime:
        """UTC, exact to the millisecond."""
        return moment(self.due_at_ms)

    def json(self) -> Any:  # noqa: ANN401 - whatever was submitted
        """The body as a JSON value. Raises `ValueError` if it is none."""
        return json.loads(self.body)
