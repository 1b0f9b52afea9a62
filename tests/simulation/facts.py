"""What was at each key of the trigger store, and where each shard's cancel mark stood, at every moment of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from dynein.core.keys import TriggerKey


class Fact(NamedTuple):
    """What was at a key from some moment on."""

    at: float
    """A read may show it from then on."""
    sure_at: float
    """A read begun then shows it."""
    stored: bool
    stopped: str | None
    """``""``: cancelled; a token: where it was moved."""


class Mark(NamedTuple):
    """A shard's cancel mark from some moment on."""

    at: float
    cancel_mark_ms: int


class Facts:
    """The history of every key and every mark."""

    def __init__(self) -> None:
        self.of_key: dict[TriggerKey, list[Fact]] = {}
        self.of_shard: dict[int, list[Mark]] = {}

    def key_is(self, key: TriggerKey, fact: Fact) -> None:
        """From now on."""
        self.of_key.setdefault(key, []).append(fact)

    def mark_is(self, shard: int, at: float, cancel_mark_ms: int) -> None:
        """From now on."""
        marks = self.of_shard.setdefault(shard, [])
        if not marks or marks[-1].cancel_mark_ms != cancel_mark_ms:
            marks.append(Mark(at, cancel_mark_ms))

    def stopped_behind_the_mark(self) -> Iterator[tuple[TriggerKey, float]]:
        """Jobs that were cancelled or moved when a mark had reached their due time, and when."""
        for key, facts in self.of_key.items():
            first = next((fact for fact in facts if fact.stopped is not None), None)
            if first is None:
                continue
            marks = [mark.cancel_mark_ms for mark in self.of_shard.get(key.shard, []) if mark.at < first.at]
            if marks and key.due_at_ms <= max(marks):
                yield key, first.at

    def possible(self, key: TriggerKey, since: float, until: float) -> list[Fact]:
        """What reads of a key between two moments may show."""
        facts = [Fact(-math.inf, -math.inf, stored=False, stopped=None), *self.of_key.get(key, [])]
        ends = [fact.sure_at for fact in facts[1:]] + [math.inf]
        return [fact for fact, ends_at in zip(facts, ends, strict=True) if fact.at <= until and ends_at >= since]

    def mark_ms(self, shard: int, at: float) -> int:
        """A shard's cancel mark at a moment."""
        return max((mark.cancel_mark_ms for mark in self.of_shard.get(shard, []) if mark.at <= at), default=0)
