"""`dynein.runtime.retry`: a process starts although AWS is not well at first, and says so when that lasts."""

from __future__ import annotations

import random

import pytest

from dynein.errors import NotBootstrapped, Unavailable
from dynein.runtime.retry import TRIES_MAX, insist
from dynein.testing import ManualClock


class Aws:
    """Answers after so many failures."""

    def __init__(self, error: Exception, failures: int) -> None:
        self._error = error
        self._failures = failures
        self.calls = 0

    async def ask(self) -> str:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error
        return "answer"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def start(aws: Aws, clock: ManualClock) -> str:
    return await clock.result_of(insist("reading the layout", aws.ask, clock, random.Random(1)))


async def test_it_waits_for_aws_to_answer(clock: ManualClock) -> None:
    aws = Aws(Unavailable("no answer"), TRIES_MAX - 1)
    assert await start(aws, clock) == "answer"


async def test_not_for_ever(clock: ManualClock) -> None:
    aws = Aws(Unavailable("no answer"), TRIES_MAX)
    with pytest.raises(Unavailable, match="no answer"):
        await start(aws, clock)
    assert aws.calls == TRIES_MAX


async def test_nor_for_what_a_person_has_to_mend(clock: ManualClock) -> None:
    aws = Aws(NotBootstrapped("run `dynein bootstrap`"), 1)
    with pytest.raises(NotBootstrapped):
        await start(aws, clock)
    assert aws.calls == 1
