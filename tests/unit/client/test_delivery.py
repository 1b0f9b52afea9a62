"""Messages that are not what a consumer expects; real ones are in ``tests/acceptance/test_client.py``."""

from __future__ import annotations

from typing import Any

import pytest

from dynein.client import Delivery

ATTRIBUTES = {
    "dynein-token": {"DataType": "String", "StringValue": "T"},
    "dynein-due-at": {"DataType": "Number", "StringValue": "5"},
}


@pytest.mark.parametrize("attributes", [{}, {"mine": {"DataType": "String", "StringValue": "x"}}])
def test_a_message_without_our_attributes_says_how_to_receive_them(attributes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"m-1 has no attribute dynein-token.*MessageAttributeNames"):
        Delivery.of({"MessageId": "m-1", "Body": "x", "MessageAttributes": attributes})
    with pytest.raises(ValueError, match="MessageAttributeNames"):
        Delivery.of({"MessageId": "m-1", "Body": "x"})


@pytest.mark.parametrize("body", ["{", "\ud800"])
def test_a_body_that_is_no_json(body: str) -> None:
    delivery = Delivery.of({"Body": body, "MessageAttributes": ATTRIBUTES})
    with pytest.raises(ValueError):  # noqa: PT011 - of whatever kind
        delivery.json()
