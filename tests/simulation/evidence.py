"""What was done at the engines, by which process and when: what the checker excuses, it excuses by this."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeVar

from dynein.core.inbound_message import Arrival
from dynein.core.keys import TriggerKey
from dynein.core.ledger import Posting
from dynein.testing.queue_message import Message
from tests.simulation.facts import Facts
from tests.simulation.flight import Flight

NameT = TypeVar("NameT", bound=Hashable)


class Attempt:
    """One call, as far as it is about one trigger or one message."""

    __slots__ = ("at", "done", "flight")

    def __init__(self, flight: Flight) -> None:
        self.flight = flight
        self.at = math.inf
        """When it took effect."""
        self.done = False
        """Whether it did what was asked for: the batch may have gone through without this entry."""

    def took_effect(self, at: float, *, done: bool = True) -> None:
        """At the engine."""
        self.at = at
        self.done = done

    def troubled(self, until: float) -> bool:
        """Was it under way before ``until``, and not known then to have done what was asked for?"""
        return self.flight.began_at <= until and not (self.done and self.at <= until and self.flight.answered)


class PostAttempt:
    """One call that posts counts to the ledger."""

    __slots__ = ("acknowledged", "flight", "posting")

    def __init__(self, flight: Flight, posting: Posting) -> None:
        self.flight = flight
        self.posting = posting
        self.acknowledged = False
        """The process got the response that it was done."""


class Stop(NamedTuple):
    """A cancel or a move that took effect."""

    flight: Flight
    to: TriggerKey | None
    """Where the job was moved."""


class Handover(NamedTuple):
    """A shard taken (``owner`` is the new one) or released (``owner`` is ``None``)."""

    at: float
    shard: int
    previous: str | None
    owner: str | None


class Retirement(NamedTuple):
    """A shard's buckets before ``bucket`` were retired."""

    at: float
    shard: int
    bucket: int
    process: str


class Disturbance(NamedTuple):
    """A fault that struck a process."""

    since: float
    until: float
    what: str


class Evidence:
    """Of one run."""

    def __init__(self, note: Callable[[str, str], None]) -> None:
        self.note = note
        self.handovers: list[Handover] = []
        self.retirements: list[Retirement] = []
        self.disturbances: dict[str, list[Disturbance]] = {}
        """By process."""
        self.sends: dict[str, list[Attempt]] = {}
        """By token: sends of the job to its destination, or to the dead-letter queue."""
        self.adds: dict[TriggerKey, list[Attempt]] = {}
        self.reads: dict[TriggerKey, list[Attempt]] = {}
        """Pages that showed a trigger."""
        self.removals: dict[TriggerKey, list[Attempt]] = {}
        self.receipts: dict[str, list[Attempt]] = {}
        """By message id, as are the next two."""
        self.deletes: dict[str, list[Attempt]] = {}
        self.extensions: dict[str, list[Attempt]] = {}
        self.carriers: dict[TriggerKey, dict[str, Flight]] = {}
        """Inbound messages that carried a job, and the calls that sent them."""
        self.inbound: dict[str, Message] = {}
        """Inbound messages, by id, in the order they were sent. Kept when they are deleted."""
        self.prepared: dict[str, list[Arrival]] = {}
        """By inbound message: the creates of prepared tokens in it."""
        self.creates: dict[TriggerKey, dict[str, None]] = {}
        """By job: the ids of its creates that reached the inbound queue."""
        self.claims: dict[bytes, str] = {}
        """By job id: the create that was the first to claim it."""
        self.stops: dict[TriggerKey, list[Stop]] = {}
        self.postings: dict[str, list[PostAttempt]] = {}
        """By process, in order."""
        self.applied: dict[str, Posting] = {}
        """Postings that are in the ledger, by id."""
        self.violations: list[str] = []
        """What was seen to be wrong at once."""
        self.lease_calls: dict[str, list[Flight]] = {}
        """By process: its renewals, takes and releases."""
        self.heartbeats: dict[int, list[float]] = {}
        """By shard: when its record was renewed or taken, by anyone."""
        self.renewals: dict[tuple[str, int], list[Flight]] = {}
        """By process and shard: renewals and takes that were answered with success, in the order they were begun."""
        self.facts = Facts()
        self.troubled_calls: dict[str, list[Flight]] = {}
        """By process: its calls that failed, in whole or in part, or were slow."""
        self.quirks: dict[str, list[tuple[float, str]]] = {}
        """By message, with the time: a duplicate or a forgotten delete, which SQS permits itself."""

    def attempts(self, book: dict[NameT, list[Attempt]], flight: Flight, names: Iterable[NameT]) -> list[Attempt]:
        """Open an attempt for each of ``names``."""
        opened = []
        for name in names:
            opened.append(Attempt(flight))
            book.setdefault(name, []).append(opened[-1])
        return opened

    def trouble(self, flight: Flight) -> None:
        """This call failed, in whole or in part, or was slow."""
        self.troubled_calls.setdefault(flight.process, []).append(flight)

    def disturb(self, process: str, since: float, until: float, what: str) -> None:
        """A fault kept ``process`` from working from ``since`` to ``until``."""
        self.disturbances.setdefault(process, []).append(Disturbance(since, until, what))

    def disturbed_by(self, process: str, since: float, until: float, *whats: str) -> str | None:
        """A fault that struck ``process`` between ``since`` and ``until``; if ``whats`` are given, one of those."""
        for disturbance in self.disturbances.get(process, []):
            if disturbance.since <= until and disturbance.until >= since and (not whats or disturbance.what in whats):
                return disturbance.what
        return None
