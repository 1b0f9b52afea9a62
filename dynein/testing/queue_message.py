"""One message of an in-memory queue, and where it is in its life."""

from __future__ import annotations

from enum import Enum

from dynein.core.queues import OutgoingMessage, Received


class Place(Enum):
    """Where a message is in its life."""

    DELAYED = "delayed"
    VISIBLE = "visible"
    IN_FLIGHT = "in_flight"
    GONE = "gone"


class Message:
    """One message at rest."""

    def __init__(
        self,
        message_id: str,
        sent: OutgoingMessage,
        *,
        sequence: int,
        sent_at: float,
        sent_at_ms: int,
        visible_at: float,
    ) -> None:
        self.message_id = message_id
        self.body = sent.body
        self.attributes = dict(sent.attributes)
        self.group = sent.message_group_id
        self.sequence = sequence
        self.sent_at = sent_at
        self.sent_at_ms = sent_at_ms
        self.visible_at = visible_at
        self.place = Place.DELAYED
        self.receive_count = 0

    def __lt__(self, other: Message) -> bool:
        return self.sequence < other.sequence

    @property
    def receipt(self) -> str:
        """The receipt of the latest receive: each receive makes a new one, and the older go stale."""
        return f"{self.message_id}.{self.receive_count}"

    def as_received(self) -> Received:
        """As a consumer sees it."""
        return Received(
            self.message_id, self.receipt, self.body, self.receive_count, dict(self.attributes), self.sent_at_ms
        )
