"""Queues that do not exist, in numbers."""

from __future__ import annotations

import asyncio

import pytest

from dynein.api.caller import Caller
from dynein.api.destination_lookup import (
    AT_ONCE_MAX,
    BURST_S,
    FOUND_COST,
    MISSING_MAX,
    OF_A_REQUEST_MAX,
    RATE_PER_S,
    DestinationLookup,
)
from dynein.core.queues import Destination
from dynein.delivery.destinations import MISSING_TTL_S
from dynein.errors import DyneinError, Overloaded, RateLimited, Unavailable, UnknownQueue
from tests.unit.api.setting import Api

MALLORY = Caller(address="192.0.2.66")
ALICE = Caller(address="192.0.2.1")
BURST = int(RATE_PER_S * BURST_S)


class Setting:
    def __init__(self) -> None:
        self.api = Api()
        self.lookup = DestinationLookup(self.api.destinations, self.api.clock, self.api.settings)

    @property
    def asked(self) -> list[str]:
        return [call.target for call in self.api.queues.faults.calls if call.verb == "resolve"]

    async def all(self, *queues: str, caller: Caller = MALLORY) -> list[Destination | DyneinError]:
        found = await self.lookup.all(queues, caller)
        assert list(found) == [*dict.fromkeys(found)]
        return [found[queue] for queue in queues]


def made_up(count: int, prefix: str = "made-up") -> list[str]:
    return [f"{prefix}-{n}" for n in range(count)]


async def test_a_request_ends_its_look_ups_once_many_queues_did_not_exist() -> None:
    s = Setting()
    found = await s.all(*made_up(1000), "demo")
    assert len(s.asked) == MISSING_MAX
    assert [type(result) for result in found[:MISSING_MAX]] == [UnknownQueue] * MISSING_MAX
    assert {type(result) for result in found[MISSING_MAX:]} == {Overloaded}, "they may exist: ask again"


async def test_what_is_known_is_found_all_the_same() -> None:
    s = Setting()
    (before,) = await s.all("demo", caller=ALICE)
    found = await s.all(*made_up(1000), "demo")
    assert found[-1] == before


async def test_queues_that_exist_are_all_looked_up() -> None:
    s = Setting()
    names = [f"q{n}" for n in range(1000)]
    for name in names:
        s.api.queues.create(name)
    assert {type(result) for result in await s.all(*names, *made_up(10))} == {Destination, UnknownQueue}
    assert BURST >= 1000 * FOUND_COST + 10


async def test_a_flood_of_made_up_queues_makes_few_calls_and_keeps_the_others_known() -> None:
    s = Setting()
    (before,) = await s.all("demo", caller=ALICE)
    for batch in range(11):
        await s.all(*made_up(1000, f"batch-{batch}"))
    for n in range(11_000):
        await s.all(f"single-{n}")
    assert len(s.asked) <= 1 + BURST + OF_A_REQUEST_MAX
    assert s.api.destinations.known("demo") == before
    assert isinstance((await s.all("single-11000"))[0], RateLimited)
    s.api.queues.create("new")
    assert isinstance((await s.all("new", caller=ALICE))[0], Destination), "another caller is not meant"


async def test_a_rate_is_granted_again_as_time_passes() -> None:
    s = Setting()
    for n in range(BURST):
        await s.all(f"single-{n}")
    (refused,) = await s.all("one-more")
    assert isinstance(refused, RateLimited)
    await s.api.clock.advance(refused.retry_after_s)
    assert isinstance((await s.all("one-more"))[0], UnknownQueue)


async def test_what_was_missing_is_not_looked_up_again_and_costs_nothing_for_a_while() -> None:
    s = Setting()
    for _ in range(1000):
        assert isinstance((await s.all("nowhere"))[0], UnknownQueue)
    assert s.asked == ["nowhere"]
    s.api.queues.create("nowhere")
    await s.api.clock.advance(MISSING_TTL_S)
    assert isinstance((await s.all("nowhere"))[0], Destination)


async def test_a_queue_that_has_been_known_is_looked_up_again_whatever_else_is_asked() -> None:
    s = Setting()
    await s.all("demo")
    await s.api.clock.advance(300)
    for n in range(2 * BURST):
        await s.all(f"single-{n}")
    assert isinstance((await s.all("single"))[0], RateLimited)
    assert isinstance((await s.all("demo"))[0], Destination)


async def test_failures_of_sqs_are_not_held_against_the_caller() -> None:
    s = Setting()
    s.api.queues.faults.go_down(Unavailable("no response"))
    for n in range(2 * BURST):
        assert isinstance((await s.all(f"single-{n}"))[0], Unavailable)


@pytest.mark.parametrize("requests", [1, 20])
async def test_few_look_ups_are_under_way_at_once(requests: int) -> None:
    s = Setting()
    names = [made_up(20, f"request-{n}") for n in range(requests)]
    expected = min(AT_ONCE_MAX, requests * OF_A_REQUEST_MAX)
    gates = [s.api.queues.faults.hold_before_next("resolve") for _ in range(expected)]
    running = [asyncio.ensure_future(s.all(*some)) for some in names]
    for gate in gates:
        await gate.reached.wait()
    await s.api.clock.settle()
    assert len(s.asked) <= expected
    for gate in gates:
        gate.open()
    for found in await asyncio.gather(*running):
        assert len(found) == 20
