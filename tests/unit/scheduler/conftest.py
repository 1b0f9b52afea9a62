from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import settings

from tests.unit.scheduler.world import World

settings.register_profile("no deadline", deadline=None)  # time passes unevenly on a busy machine
settings.load_profile("no deadline")


@pytest.fixture
async def make_world() -> AsyncIterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(**settings: Any) -> World:
        worlds.append(World(**settings))
        return worlds[-1]

    yield make
    for world in worlds:
        await world.close()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()
