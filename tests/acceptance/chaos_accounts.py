"""What became of every job, by token, and whether that is what was promised.

A client's view of a job (`Account`) is set against where the job was seen: on its destination queue, in the dead-letter
queue, in the trigger store. Jobs are recognised by their bodies, which the clients number; what was seen must bear the
token that its client was given.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, Flag, auto
from typing import NamedTuple

from dynein.core.job_token import parse
from tests.acceptance.fleet import QUICK, now_ms

FIFO_QUEUE = "ordered.fifo"
GONE_QUEUE = "gone"
"""Deleted as soon as its jobs are accepted: they are dead-lettered, and nothing else is."""
BUSY_MS = 30_000
"""What a machine that has much else to do may add to anything. A job that was submitted, or due, only after a fault was
not met by it, on any machine."""
TAKEN_IN_MS = int(float(QUICK["DYNEIN_HOLD_WINDOW_S"]) * 1000) + BUSY_MS
"""From its response on, how long a job may be in the inbound queue or held by an ingester. An inbound message is
deleted once the last near job in it is sent: within the hold window and the API's margin on it."""
SENT_MS = BUSY_MS
"""From its first arrival on, how long a job's trigger may be there still."""
RECOVERY_S = 9.0
"""After the last fault: the visibility timeout or lease that it left behind."""
LATE_MAX_MS = 60_000
"""How late a job may be that is due after that: it must not be stuck. How late jobs are is measured by ``benchmarks/``
and, after each fault, checked by the simulation, on a clock of its own."""

STALL = "this machine was busy"
"""A fault that no test made: where the test gets no processor for a while, nor does the proxy in it, nor does a fleet;
or a process got none for so long that it lost a lease or an inbound message."""


class Standing(Enum):
    """What a client knows of its submission."""

    ASKED = "asked"
    """No answer yet."""
    ACCEPTED = "accepted"
    REFUSED = "refused"
    """For certain: it must not be anywhere."""
    DOUBTFUL = "doubtful"
    """No clear answer: it may be somewhere, once."""


class Way(Flag):
    """Parts of a job's way on which it may be sent once more than it was known to be (docs/decisions/0003)."""

    NONE = 0
    API = auto()
    """From its submission to the answer."""
    INGESTER = auto()
    """From its submission to the delete of its inbound message."""
    DISPATCHER = auto()
    """From its due time to the removal of its trigger."""
    ANY = API | INGESTER | DISPATCHER


class Fault(NamedTuple):
    """Something was done to the fleet, from then until then, that explains duplicates of jobs which were there."""

    what: str
    way: Way
    from_ms: int
    until_ms: int
    strikes_s: float = math.inf
    """For how long it explains any: a process that is frozen does nothing twice but what it was doing."""

    @property
    def struck_until_ms(self) -> int:
        """What comes to where it struck later than this was not met by it."""
        return int(min(self.until_ms, self.from_ms + self.strikes_s * 1000))


class Sighting(NamedTuple):
    """A job was seen somewhere."""

    token: str
    at_ms: int


@dataclass
class Account:
    """One job: what its client knows, and where it was seen."""

    body: str
    queue: str
    policy: str
    asked_at_ms: int = 0
    answered_at_ms: int = 0
    standing: Standing = Standing.ASKED
    token: str = ""
    """Of an accepted job: the one it has now, after moves."""
    cancelled: bool = False
    move_in_doubt: bool = False
    """A move without a clear answer was given up: it may have happened."""
    deliveries: list[Sighting] = field(default_factory=list)
    dead_letters: list[Sighting] = field(default_factory=list)
    stored: list[Sighting] = field(default_factory=list)

    @property
    def due_at_ms(self) -> int:
        """When it is due, if its client knows."""
        return parse(self.token).key.due_at_ms

    @property
    def sightings(self) -> list[Sighting]:
        """Everywhere it was seen."""
        return self.deliveries + self.dead_letters + self.stored

    @property
    def accounted(self) -> bool:
        """Is there nothing more to wait for?"""
        return self.cancelled or self.standing is not Standing.ACCEPTED or bool(self.sightings)

    @property
    def late_ms(self) -> int:
        """First arrival after due, or after its client knew that it was accepted."""
        first = self.deliveries[0]
        return first.at_ms - max(parse(first.token).key.due_at_ms, self.answered_at_ms)

    def met(self, fault: Fault) -> bool:
        """Was it where the fault struck?"""
        spans = []
        if Way.API in fault.way:
            spans.append((self.asked_at_ms, self.answered_at_ms))
        if Way.INGESTER in fault.way:
            spans.append((self.asked_at_ms, self.answered_at_ms + TAKEN_IN_MS))
        sent = self.deliveries + self.dead_letters
        if Way.DISPATCHER in fault.way and sent:
            first = min(sent, key=lambda sighting: sighting.at_ms)
            spans.append((parse(first.token).key.due_at_ms, first.at_ms + SENT_MS))
        return any(begin <= fault.struck_until_ms and fault.from_ms <= end for begin, end in spans)

    def wrong(self, faults: list[Fault], calm_from_ms: int) -> list[str]:
        """What is not as promised."""
        seen = self.sightings
        tokens = {sighting.token for sighting in seen}
        said = self.standing is Standing.ACCEPTED
        checks: list[tuple[bool, str]] = [
            (said and not self.cancelled and not seen, "LOST"),
            (self.cancelled and bool(seen), "CANCELLED, and yet there"),
            (self.standing is Standing.REFUSED and bool(seen), "REFUSED, and yet there"),
            (self.standing is Standing.ASKED, "its client never came to an end with it"),
            (len(tokens) > 1, "made twice: there under two tokens"),
            (said and not tokens <= {self.token} and not self._moved_in_doubt(tokens), "there under a foreign token"),
            (any(at < parse(token).key.due_at_ms for token, at in self.deliveries), "EARLY"),
            (bool(self.dead_letters) != (self.queue == GONE_QUEUE and bool(seen)), "wrongly dead-lettered or not"),
            (len(seen) > 1 and not self._excused(faults), "DUPLICATE that no fault explains"),
            (
                bool(self.deliveries)
                and parse(self.deliveries[0].token).key.due_at_ms > calm_from_ms
                and self.late_ms > LATE_MAX_MS
                and not any(self.met(fault) for fault in faults if fault.what == STALL),
                "LATE although all was well",
            ),
        ]
        return [f"{sentence}: {self}" for broken, sentence in checks if broken]

    def _excused(self, faults: list[Fault]) -> bool:
        """The API never repeats a direct send; others may, if something happened to them while they had the job."""
        return self.policy == "SCHEDULED" and any(self.met(fault) for fault in faults)

    def _moved_in_doubt(self, tokens: set[str]) -> bool:
        job_id = parse(self.token).key.job_id
        return self.move_in_doubt and all(parse(token).key.job_id == job_id for token in tokens)


class Accounts:
    """All jobs of a run."""

    def __init__(self) -> None:
        self.by_body: dict[str, Account] = {}
        self.faults: list[Fault] = []
        self.unknown: list[str] = []
        self._messages: set[str] = set()

    def open(self, queue: str, policy: str) -> Account:
        """A job that is about to be submitted."""
        account = Account(str(len(self.by_body)), queue, policy, asked_at_ms=now_ms())
        self.by_body[account.body] = account
        return account

    def seen(self, where: Callable[[Account], list[Sighting]], body: str, sighting: Sighting, message_id: str) -> None:
        """A job was seen. The same message again is no news: only its consumer has failed to delete it."""
        if message_id in self._messages:
            return
        self._messages.add(message_id)
        account = self.by_body.get(body)
        if account is None:
            self.unknown.append(f"{body!r} {sighting}")
        else:
            where(account).append(sighting)

    @property
    def calm_from_ms(self) -> int:
        """When the last fault that was wanted is over and overcome."""
        return max((fault.until_ms for fault in self.faults if fault.what != STALL), default=0) + int(RECOVERY_S * 1000)

    def waiting_for(self) -> list[Account]:
        """Accepted, and not seen anywhere yet."""
        return [account for account in self.by_body.values() if not account.accounted]

    def check(self) -> str:
        """Fail unless everything is accounted for, as promised; else the sum, for people to read."""
        accounts = list(self.by_body.values())
        wrong = [sentence for account in accounts for sentence in account.wrong(self.faults, self.calm_from_ms)]
        faults = "\n".join(map(str, self.faults))
        assert not wrong, f"{len(wrong)} wrong:\n" + "\n".join(wrong[:20]) + f"\nfaults:\n{faults}"
        assert not self.unknown, self.unknown[:20]
        accepted = {a.token for a in accounts if a.standing is Standing.ACCEPTED and not a.move_in_doubt}
        delivered = {s.token for a in accounts for s in a.deliveries} & accepted
        dead = {s.token for a in accounts for s in a.dead_letters} & accepted
        stored = {s.token for a in accounts for s in a.stored} & accepted
        cancelled = {a.token for a in accounts if a.cancelled} & accepted
        assert accepted == delivered | cancelled | dead | stored
        assert len(accepted) == len(delivered) + len(cancelled) + len(dead) + len(stored)
        for part, name in ((delivered, "delivered"), (cancelled, "cancelled"), (dead, "dead"), (stored, "stored")):
            assert part, f"the run has no job that was {name}: it proves less than it should"
        calm = [a for a in accounts if a.deliveries and a.standing is Standing.ACCEPTED]
        assert any(a.due_at_ms > self.calm_from_ms for a in calm), "no job was due after the last fault"
        return self._sum(accounts, len(accepted), len(delivered), len(cancelled), len(dead), len(stored))

    def _sum(
        self, accounts: list[Account], accepted: int, delivered: int, cancelled: int, dead: int, stored: int
    ) -> str:
        duplicates = [account for account in accounts if len(account.sightings) > 1]
        standing = Counter(account.standing for account in accounts)
        doubtful = [account for account in accounts if account.standing is Standing.DOUBTFUL]
        late = sorted(a.late_ms for a in accounts if a.deliveries and a.standing is Standing.ACCEPTED)
        calm = [
            a.late_ms
            for a in accounts
            if a.deliveries and parse(a.deliveries[0].token).key.due_at_ms > self.calm_from_ms
        ]
        faults = Counter(fault.what for fault in self.faults)
        return (
            f"accepted {accepted} = delivered {delivered} + cancelled {cancelled} + dead-lettered {dead}"
            f" + still stored {stored}\n"
            f"refused {standing[Standing.REFUSED]}, doubtful {len(doubtful)} of which"
            f" {sum(bool(a.sightings) for a in doubtful)} came\n"
            f"duplicates {sum(len(a.sightings) - 1 for a in duplicates)} of {len(duplicates)} jobs\n"
            f"late at most {late[-1]} ms, p50 {late[len(late) // 2]} ms; due after recovery: {len(calm)} jobs, at most"
            f" {max(calm)} ms\n"
            f"faults: {', '.join(f'{count} {what}' for what, count in faults.items())}"
        )
