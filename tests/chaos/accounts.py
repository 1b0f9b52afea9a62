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
from enum import Enum
from typing import NamedTuple

from dynein.core.job_token import parse
from tests.acceptance.fleet import now_ms
from tests.chaos.evidence import Evidence
from tests.chaos.excuses import STARVED, Fault, clock_offsets_ms, excuses_again, latest_ms
from tests.chaos.trails import Trail, havings

FIFO_QUEUE = "ordered.fifo"
GONE_QUEUE = "gone"
"""Deleted as soon as its jobs are accepted: they are dead-lettered, and nothing else is."""


class Standing(Enum):
    """What a client knows of its submission."""

    ASKED = "asked"
    """No answer yet."""
    ACCEPTED = "accepted"
    REFUSED = "refused"
    """For certain: it must not be anywhere."""
    DOUBTFUL = "doubtful"
    """No clear answer: it may be somewhere, once."""


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
    moved_at_ms: int = 0
    """When its client was answered, or gave up, a move."""
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

    def wrong(self, faults: list[Fault], evidence: Evidence) -> list[str]:
        """What is not as promised."""
        seen = self.sightings
        tokens = {sighting.token for sighting in seen}
        said = self.standing is Standing.ACCEPTED
        trail = evidence.of(next(iter(tokens))) if tokens else Trail()
        behind_ms, ahead_ms = clock_offsets_ms(faults, trail.processes)
        checks: list[tuple[bool, str]] = [
            (said and not self.cancelled and not seen, "LOST"),
            (self.cancelled and bool(seen), "CANCELLED, and yet there"),
            (self.standing is Standing.REFUSED and bool(seen), "REFUSED, and yet there"),
            (self.standing is Standing.ASKED, "its client never came to an end with it"),
            (len(tokens) > 1, "made twice: there under two tokens"),
            (said and not tokens <= {self.token} and not self._moved_in_doubt(tokens), "there under a foreign token"),
            (any(at < parse(token).key.due_at_ms - ahead_ms for token, at in self.deliveries), "EARLY"),
            (bool(self.dead_letters) != (self.queue == GONE_QUEUE and bool(seen)), "wrongly dead-lettered or not"),
            (len(self.deliveries) > len(trail.sends), "SENT by none of those who were watched"),
            (len(seen) > 1 and not self._excused(faults, trail), "DUPLICATE that no fault explains"),
            (
                said and bool(self.deliveries) and self._late_ms(faults, evidence, trail) > behind_ms,
                "LATE although nothing kept it",
            ),
        ]
        return [f"{sentence}: {self} {trail}" for broken, sentence in checks if broken]

    def _excused(self, faults: list[Fault], trail: Trail) -> bool:
        """The API never repeats a direct send; others may, if something happened to them while they had the job."""
        before_ms = math.inf if self.stored else max(sent.call.asked_at_ms for sent in trail.sends)
        having = havings(trail, self.asked_at_ms, self.answered_at_ms)
        return self.policy == "SCHEDULED" and excuses_again(faults, trail, having, before_ms)

    def _late_ms(self, faults: list[Fault], evidence: Evidence, trail: Trail) -> int:
        """How much later it arrived than it had to; negative if it did not."""
        token, arrived_ms = min(self.deliveries, key=lambda sighting: sighting.at_ms)
        key = parse(token).key
        # Once its client has the answer, no API process has to do with it any more.
        had = {process for process in trail.processes if not process.startswith("api")}

        def concerned(fault: Fault) -> bool:
            owners = evidence.owners(key.shard, fault.from_ms, arrived_ms)
            return fault.processes is None or any(map(fault.concerns, had | owners))

        return arrived_ms - latest_ms(faults, concerned, max(key.due_at_ms, self.answered_at_ms, self.moved_at_ms))

    def _moved_in_doubt(self, tokens: set[str]) -> bool:
        job_id = parse(self.token).key.job_id
        return self.move_in_doubt and all(parse(token).key.job_id == job_id for token in tokens)


class Accounts:
    """All jobs of a run."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
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
        return max((fault.overcome_ms for fault in self.faults if fault.what != STARVED), default=0)

    def waiting_for(self) -> list[Account]:
        """Accepted, and not seen anywhere yet."""
        return [account for account in self.by_body.values() if not account.accounted]

    @property
    def progress(self) -> str:
        """How far it is, in a line."""
        accounts = self.by_body.values()
        return (
            f"{len(accounts)} jobs submitted, {sum(bool(a.deliveries) for a in accounts)} delivered,"
            f" {sum(a.cancelled for a in accounts)} cancelled; {len(self.faults)} faults"
        )

    def latest(self, jobs: int) -> str:
        """The jobs that came latest, each with the calls that it was in: what to look at, though it may be excused."""
        came = [account for account in self.by_body.values() if account.deliveries and account.token]
        came.sort(key=lambda account: account.late_ms, reverse=True)
        return "\n".join(f"{a.late_ms} ms late: {a} {self.evidence.of(a.token)}" for a in came[:jobs])

    def check(self) -> str:
        """Fail unless everything is accounted for, as promised; else the sum, for people to read."""
        self.evidence.check()
        accounts = list(self.by_body.values())
        self.faults.sort(key=lambda fault: fault.from_ms)
        wrong = [sentence for account in accounts for sentence in account.wrong(self.faults, self.evidence)]
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
