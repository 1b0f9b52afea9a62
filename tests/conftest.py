"""Tests hold on a machine that has much else to do: what runs real processes is given time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# The examples of a property test take as long as they take: time passes unevenly on a busy machine.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

HERE = Path(__file__).parent
REAL_PROCESSES = {"acceptance", "benchmarks", "chaos", "deploy", "monitoring"}
REAL_PROCESSES_TIMEOUT_S = 1200
"""Several waits, each of which fails by itself, and says for what, when it takes as long as only a hang does."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give tests that run real processes longer than ``timeout`` in pyproject.toml, unless the command line says."""
    if config.getoption("timeout") is not None:
        return
    for item in items:
        if item.path.relative_to(HERE).parts[0] in REAL_PROCESSES and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(REAL_PROCESSES_TIMEOUT_S))


@pytest.fixture(scope="session", autouse=True)
def engines_may_take_their_time() -> Iterator[None]:
    """To start. A user of ``dynein dev`` is told sooner."""
    from dynein.cli import engine  # noqa: PLC0415 - not for a test that ends in collection
    from tests.acceptance.fleet import HANG_S  # noqa: PLC0415

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "START_TIMEOUT_S", HANG_S)
        yield
