"""Many seeds, on several cores. A seed's outcome does not depend on how it is run."""

from __future__ import annotations

import gc
import multiprocessing
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

from tests.simulation.mutation import planted
from tests.simulation.mutations import mutation_of
from tests.simulation.run import Outcome, simulate
from tests.simulation.unit_tests import UnitTests, run_unit_tests

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")


class Timed(NamedTuple):
    """A run, and the CPU time it took."""

    outcome: Outcome
    cpu_s: float


class Search(NamedTuple):
    """The search for one planted bug."""

    bug: str
    found_at: int | None
    """Seed."""
    violation: str
    cpu_s: float
    unit_tests: UnitTests | None
    """What the unit tests showed, if there are any for it and they were run."""


class Totals:
    """Sums over many runs."""

    def __init__(self) -> None:
        self.seeds = 0
        self.failed: list[int] = []
        self.counts: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self.violations = 0
        self.virtual_s = 0.0
        self.cpu_s = 0.0

    def add(self, run: Timed) -> None:
        """Count one more run."""
        outcome = run.outcome
        self.seeds += 1
        self.counts.update(outcome.counts)
        self.met.update(outcome.met)
        self.violations += len(outcome.violations)
        self.virtual_s += outcome.virtual_s
        self.cpu_s += run.cpu_s
        if outcome.violations:
            self.failed.append(outcome.seed)


def run_seeds(seeds: range, mix: tuple[str, ...] | None, jobs: int) -> Iterator[Timed]:
    """Run each seed; results come in order. ``mix``: kinds of faults, in place of those that a seed would choose."""
    with _pool_map(jobs) as pool_map:
        yield from pool_map(partial(_run_one, mix=mix), seeds)


def search_all(
    names: Iterable[str], seeds: range, mix: tuple[str, ...] | None, jobs: int, *, with_unit_tests: bool
) -> Iterator[Search]:
    """Plant each bug in turn and search for a seed that finds it; perhaps for a unit test, too."""
    with _pool_map(jobs) as pool_map:
        yield from pool_map(partial(_search_one, seeds=seeds, mix=mix, with_unit_tests=with_unit_tests), names)


def _run_one(seed: int, mix: tuple[str, ...] | None) -> Timed:
    began = time.process_time()
    try:
        outcome = simulate(seed, mix)
    except Exception as error:
        raise RuntimeError(f"the simulation of seed {seed} failed itself") from error
    return Timed(outcome, time.process_time() - began)


def _search_one(name: str, seeds: range, mix: tuple[str, ...] | None, *, with_unit_tests: bool = False) -> Search:
    mutation = mutation_of(name)
    unit_tests = run_unit_tests(mutation) if with_unit_tests else None
    began = time.process_time()
    with planted(mutation):
        for seed in seeds:
            violations = simulate(seed, mix).violations
            if violations:
                return Search(name, seed, violations[0], time.process_time() - began, unit_tests)
    return Search(name, None, "", time.process_time() - began, unit_tests)


@contextmanager
def _pool_map(jobs: int) -> Iterator[Callable[[Callable[[TaskT], ResultT], Iterable[TaskT]], Iterator[ResultT]]]:
    """A `map` over ``jobs`` processes."""
    if jobs == 1:
        _prepare()
        yield map
        return
    pool = multiprocessing.get_context("spawn").Pool(jobs, _prepare_worker)
    try:
        yield pool.imap
    finally:
        pool.terminate()
        pool.join()


def _prepare_worker() -> None:
    # Ctrl-C is handled by the process that owns the pool.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _prepare()


def _prepare() -> None:
    # The collector runs after each seed. Objects made before the first stay for good: it need not examine them.
    gc.collect()
    gc.freeze()
