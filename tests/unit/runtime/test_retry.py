"""`dynein.runtime.retry`, sentence by sentence."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from dynein.errors import NotBootstrapped, Unavailable
from dynein.runtime.retry import Backoff, Retry, RetryEnded
from dynein.testing import ManualClock

TRIES_MAX = 5


class Aws:
    """Answers after so many failures."""

    def __init__(self, error: Exception, failures: int) -> None:
        self._error = error
        self._failures = failures
        self.called_at: list[float] = []

    async def ask(self, clock: ManualClock) -> str:
        self.called_at.append(clock.monotonic())
        if len(self.called_at) <= self._failures:
            raise self._error
        return "answer"


class Retrying:
    """A `Retry` on a clock that stands still, and what it was told of failures."""

    def __init__(self, *, tries_max: int | None = TRIES_MAX) -> None:
        self.clock = ManualClock()
        self.ended = asyncio.Event()
        self.failed: list[tuple[str, str, int]] = []
        self.retry = Retry(
            self.clock,
            random.Random(1),
            Backoff(first_s=0.5, max_s=4.0),
            failed=lambda what, error, failures, _: self.failed.append((what, str(error), failures)),
            ended=self.ended,
            tries_max=tries_max,
        )

    async def ask(self, aws: Aws) -> str:
        return await self.clock.result_of(self.retry.call("asking", lambda: aws.ask(self.clock)))


async def test_it_waits_for_an_answer_with_pauses_that_double_to_the_longest() -> None:
    retrying, aws = Retrying(tries_max=None), Aws(Unavailable("no answer"), 8)
    assert await retrying.ask(aws) == "answer"
    pauses = [later - earlier for earlier, later in itertools.pairwise(aws.called_at)]
    assert 0.25 <= pauses[0] <= 0.5
    assert all(2.0 <= pause <= 4.0 for pause in pauses[4:])


async def test_each_failure_that_is_repeated_is_reported_and_no_other() -> None:
    retrying = Retrying()
    await retrying.ask(Aws(Unavailable("no answer"), 2))
    assert retrying.failed == [("asking", "no answer", 1), ("asking", "no answer", 2)]


async def test_the_last_try_raises_what_it_met() -> None:
    retrying, aws = Retrying(), Aws(Unavailable("no answer"), TRIES_MAX)
    with pytest.raises(Unavailable, match="no answer"):
        await retrying.ask(aws)
    assert len(aws.called_at) == TRIES_MAX
    assert len(retrying.failed) == TRIES_MAX - 1


async def test_what_an_operator_has_to_mend_is_raised_at_once_even_where_all_errors_are_repeated() -> None:
    retrying, aws = Retrying(), Aws(NotBootstrapped("run `dynein bootstrap`"), 1)
    with pytest.raises(NotBootstrapped):
        await retrying.retry.call("asking", lambda: aws.ask(retrying.clock), retry_on=(Exception,))
    assert len(aws.called_at) == 1


async def test_what_was_not_to_be_repeated_is_raised_at_once() -> None:
    aws = Aws(KeyError("a bug"), 1)
    with pytest.raises(KeyError):
        await Retrying().ask(aws)
    assert len(aws.called_at) == 1


async def test_nothing_is_repeated_once_the_run_has_ended() -> None:
    retrying, aws = Retrying(tries_max=None), Aws(Unavailable("no answer"), 1000)
    asking = asyncio.ensure_future(retrying.retry.call("asking", lambda: aws.ask(retrying.clock)))
    await retrying.clock.advance(10)
    assert not asking.done()
    retrying.ended.set()
    with pytest.raises(RetryEnded):
        await asking
