"""What this process remembers of messages it has worked on, in case they are received again."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from dynein.core.keys import TriggerKey

MESSAGES_MAX = 10_000


@dataclass
class Progress:
    """How far one message got."""

    finished: bool = False
    """Only its delete was left to do."""
    sent: dict[TriggerKey, None] = field(default_factory=dict)
    """Jobs sent from here, while others of the message were not finished."""


class ReceiveHistory:
    """Progress by message id: of the last `MESSAGES_MAX` messages.

    It only saves duplicates: SQS may deliver a message again whose delete failed, or even was acknowledged. A crash
    loses it, and then jobs may be sent twice, as at-least-once allows.
    """

    def __init__(self, messages_max: int = MESSAGES_MAX) -> None:
        self._messages_max = messages_max
        self._by_id: OrderedDict[str, Progress] = OrderedDict()

    def recall(self, message_id: str) -> Progress:
        """What is known of a message; what is changed in it is remembered."""
        progress = self._by_id.setdefault(message_id, Progress())
        self._by_id.move_to_end(message_id)
        while len(self._by_id) > self._messages_max:
            self._by_id.popitem(last=False)
        return progress

    def finish(self, message_id: str) -> None:
        """Everything but the delete is done."""
        progress = self.recall(message_id)
        progress.finished = True
        progress.sent.clear()
