"""A time budget of fresh seeds, and the promise that a seed replays exactly.

``SIMULATION_BUDGET_S`` (default 20) says for how long; ``SIMULATION_SEED`` where to begin (default: somewhere new).
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

from tests.simulation.run import simulate

BUDGET_S = float(os.environ.get("SIMULATION_BUDGET_S", "20"))
FIRST_SEED = int(os.environ.get("SIMULATION_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 40)


def test_fresh_seeds_show_no_violation() -> None:
    until = time.monotonic() + BUDGET_S  # noqa: TID251 - the budget is real time
    seed = FIRST_SEED
    while True:
        outcome = simulate(seed)
        assert not outcome.violations, (
            f"seed {seed} violates an invariant; replay it with: python -m tests.simulation --seed {seed} --trace"
        )
        assert outcome.counts["accepted"] > 0
        seed += 1
        if time.monotonic() >= until:  # noqa: TID251
            break


def test_a_seed_replays_exactly_whatever_the_hash_seed() -> None:
    seed = 2  # nearly all kinds of faults
    program = f"from tests.simulation.run import simulate; print(simulate({seed}).digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(digests) == 1
    assert digests == {simulate(seed).digest + "\n"}


def test_two_seeds_are_two_runs() -> None:
    assert simulate(5).digest != simulate(6).digest
