"""What every `Roster` must do."""

from __future__ import annotations

import asyncio

from dynein.core.shard_records import Roster
from tests.contract.subjects import TABLES, over

pytestmark = over(TABLES)


async def test_empty(roster: Roster) -> None:
    assert await roster.members("ingester") == {}


async def test_the_last_beat_of_each_member(roster: Roster) -> None:
    await roster.heartbeat("ingester", "one", 1)
    await roster.heartbeat("ingester", "two", 7)
    await roster.heartbeat("ingester", "one", 2)
    assert await roster.members("ingester") == {"one": 2, "two": 7}


async def test_when_each_member_was_last_seen(roster: Roster) -> None:
    assert await roster.last_seen("ingester") == {}
    await roster.heartbeat("ingester", "one", 1)
    await roster.heartbeat("ingester", "two", 1)
    before = await roster.last_seen("ingester")
    await roster.heartbeat("ingester", "one", 2)
    after = await roster.last_seen("ingester")
    assert list(before) == list(after) == ["one", "two"]
    assert after["two"] == before["two"]
    assert after["one"] >= before["one"]
    assert all(seen_ms % 1000 == 0 for seen_ms in after.values())
    await roster.leave("ingester", "one")
    assert list(await roster.last_seen("ingester")) == ["two"]


async def test_roles_are_apart(roster: Roster) -> None:
    await roster.heartbeat("ingester", "one", 1)
    await roster.heartbeat("dispatcher", "one", 5)
    await roster.leave("ingester", "one")
    assert await roster.members("ingester") == {}
    assert await roster.members("dispatcher") == {"one": 5}


async def test_leaving_is_at_once_and_may_be_repeated(roster: Roster) -> None:
    await roster.heartbeat("ingester", "one", 1)
    await roster.heartbeat("ingester", "two", 1)
    for _ in range(2):
        await roster.leave("ingester", "one")
        assert await roster.members("ingester") == {"two": 1}


async def test_a_member_may_come_back(roster: Roster) -> None:
    await roster.heartbeat("ingester", "one", 9)
    await roster.leave("ingester", "one")
    await roster.heartbeat("ingester", "one", 1)
    assert await roster.members("ingester") == {"one": 1}


async def test_many_members_with_names_of_any_kind(roster: Roster) -> None:
    names = [f"pod-{i}/größe/{i * 'x'}" for i in range(40)]
    await asyncio.gather(*(roster.heartbeat("dispatcher", name, i) for i, name in enumerate(names)))
    assert await roster.members("dispatcher") == {name: i for i, name in enumerate(names)}
