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
_ALSO = {"core": ("tests/unit/delivery", "tests/unit/api"), "runtime": ("tests/unit/scheduler",)}
"""Where else what a package promises is tested."""


class UnitTests(NamedTuple):
    """What they showed."""

    failed: str | None
    """The first test that failed."""
    took_s: float


def tests_of(mutation: Mutation) -> list[str]:
    """Where the tests are that should fail, the likeliest first.

    ``tests/unit`` mirrors the package, and contract suites run on the fakes. Empty for a bug that is planted in the
    simulation's own view of the engines.
    """
    module = getattr(mutation.owner, "__module__", None) or mutation.owner.__name__
    package, *parts = module.split(".")
    if package != "dynein":
        return []
    if parts[0] == "testing":
        return ["tests/contract", "tests/unit/testing"]
    own = f"tests/unit/{parts[0]}/test_{parts[-1]}.py"
    return [*([own] if (_ROOT / own).exists() else []), f"tests/unit/{parts[0]}", *_ALSO.get(parts[0], ())]


def run_unit_tests(mutation: Mutation) -> UnitTests | None:
    """``None`` if there are none for it."""
    took_s = 0.0
    places = tests_of(mutation)
    for place in places:
        failed, place_took_s = _run(mutation, place)
        took_s += place_took_s
        if failed is not None:
            return UnitTests(failed, took_s)
    return UnitTests(None, took_s) if places else None


def _run(mutation: Mutation, place: str) -> UnitTests:
    began = time.monotonic()  # noqa: TID251 - real time, for the report
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *_OPTIONS, place],
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
