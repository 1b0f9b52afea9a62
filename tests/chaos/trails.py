"""Who had which job, and when: worked out from the calls that passed, without asking the product.

A process *has* a job from when it was given it until it is known to it that it need not care any more; only then may
whatever happens to that process make it, or another in its place, send the job once more (docs/decisions/0003):

========== ============================================= ======================================================
role       has a job from                                until it is answered
========== ============================================= ======================================================
api        its submission                                that the inbound queue has it
ingester   the receive of an inbound message with it     that this message is deleted
dispatcher its due time, if it sends it                  that its trigger is removed
========== ============================================= ======================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from dynein.core.job_token import parse
from tests.chaos.settings import CALL_TIMEOUT_MS
from tests.chaos.wire import Call


class Sent(NamedTuple):
    """A job was in a call that sends it to where it goes."""

    call: Call
    token: str


class End(NamedTuple):
    """A job was in a call that cancels it, or moves it from this due time."""

    call: Call
    due_at_ms: int


@dataclass(slots=True)
class Receipt:
    """An inbound message was handed out."""

    received: Call
    message_id: str
    deletes: list[Call] = field(default_factory=list)

    @property
    def until_ms(self) -> float:
        """When it was known to be deleted; never, if it was not."""
        return min((call.passed_at_ms for call in self.deletes if call.known), default=math.inf)


@dataclass(slots=True)
class Trail:
    """The calls that one job was in."""

    submissions: list[Call] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    sends: list[Sent] = field(default_factory=list)
    stores: list[Call] = field(default_factory=list)
    removals: list[Call] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    """Cancels and moves, which end a job under this token."""

    @property
    def calls(self) -> Iterator[Call]:
        """All of them."""
        yield from self.submissions
        for receipt in self.receipts:
            yield receipt.received
            yield from receipt.deletes
        yield from (sent.call for sent in self.sends)
        yield from self.stores
        yield from self.removals

    @property
    def processes(self) -> set[str]:
        """Who had to do with it."""
        return {call.process for call in self.calls}

    def removed_by(self, process: str) -> float:
        """When it was known to a dispatcher that the trigger is removed."""
        return min((c.passed_at_ms for c in self.removals if c.process == process and c.known), default=math.inf)

    @property
    def received_again(self) -> bool:
        """Was one inbound message with it handed out more than once?"""
        ids = [receipt.message_id for receipt in self.receipts]
        return len(set(ids)) < len(ids)

    def left_waiting(self, before_ms: float) -> bool:
        """Was a call with it, before then, given up for want of a response? Part of its time is spent on the way."""
        return any(
            call.hung_up_at_ms - call.asked_at_ms >= CALL_TIMEOUT_MS / 2 and not call.passed_at_ms
            for call in self.calls
            if call.asked_at_ms < before_ms
        )


class Having(NamedTuple):
    """A process had the job from then until then."""

    process: str
    from_ms: float
    until_ms: float


def havings(trail: Trail, asked_at_ms: int, answered_at_ms: int) -> list[Having]:
    """Of a job that was submitted then."""
    found = [Having(call.process, asked_at_ms, answered_at_ms) for call in trail.submissions]
    found += [Having(r.received.process, r.received.answered_at_ms, r.until_ms) for r in trail.receipts]
    for call, token in trail.sends:
        if call.process.startswith("dispatcher"):
            from_ms = min(parse(token).key.due_at_ms, call.asked_at_ms)  # if its clock is ahead, it sends early
            found.append(Having(call.process, from_ms, trail.removed_by(call.process)))
    return found
