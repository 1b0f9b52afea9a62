"""Do the unit tests see a planted bug? They run in a process of their own, until the first that fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.simulation.mutation import Mutation
from tests.simulation.planting import PLANTED_BUG

_ROOT = Path(__file__).parents[2]
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_OPTIONS = (
    *("-x", "-q", "-p", "tests.simulation.planting", "-p", "no:cacheprovider"),
    *("-k", "not dynalite and not moto and not elasticmq and not fauxqs"),
)
"""Until the first failure, and on the fakes only."""
_TESTS_FAILED = 1
_TIMEOUT_S = 600


class UnitTests(NamedTuple):
    """What they showed."""

    failed: str | None
    """The first test that failed."""
    took_s: float


def tests_of(mutation: Mutation) -> list[str]:
    """Where the tests are that should fail: ``tests/unit`` mirrors the package, and contract suites run on the fakes.

    Empty for a bug that is planted in the simulation's own view of the engines.
    """
    module = getattr(mutation.owner, "__module__", None) or mutation.owner.__name__
    package, *parts = module.split(".")
    if package != "dynein":
        return []
    if parts[0] == "testing":
        return ["tests/unit/testing", "tests/contract"]
    return [f"tests/unit/{parts[0]}", *(["tests/unit/delivery"] if parts[0] == "core" else [])]


def run_unit_tests(mutation: Mutation) -> UnitTests | None:
    """``None`` if there are none for it."""
    tests = tests_of(mutation)
    if not tests:
        return None
    began = time.monotonic()  # noqa: TID251 - real time, for the report
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *_OPTIONS, *tests],
        env={**os.environ, PLANTED_BUG: mutation.name},
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    took_s = time.monotonic() - began  # noqa: TID251
    if run.returncode != _TESTS_FAILED:
        return UnitTests(None, took_s)
    found = _FAILED.search(run.stdout)
    return UnitTests(found[1] if found is not None else "a test", took_s)
