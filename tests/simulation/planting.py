"""A pytest plugin: runs tests with a planted bug in place. ``-p tests.simulation.planting``, and the bug's name in
``DYNEIN_PLANTED_BUG``.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

import pytest

from tests.simulation.mutation import planted
from tests.simulation.mutations import mutation_of

PLANTED_BUG = "DYNEIN_PLANTED_BUG"


def pytest_configure(config: pytest.Config) -> None:
    """Plant it, before any test is collected."""
    stack = ExitStack()
    stack.enter_context(planted(mutation_of(os.environ[PLANTED_BUG])))
    config.add_cleanup(stack.close)
