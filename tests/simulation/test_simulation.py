"""Fresh seeds within a time budget show no violation; a seed replays exactly; planted bugs are found.

``SIMULATION_BUDGET_S`` (default 20) is the budget; ``SIMULATION_SEED`` the first seed (default: a random one).
"""

from __future__ import annotations

import inspect
import os
import random
import subprocess
import sys
import time

import pytest

from tests.simulation.mutation import Mutation, planted
from tests.simulation.mutations import MUTATIONS
from tests.simulation.run import simulate
from tests.simulation.scenario import KINDS

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


@pytest.mark.parametrize(
    ("bug", "mix"),
    [
        ("202 although the inbound queue did not respond", ("request_lost",)),
        ("report a job in doubt as not accepted", ("response_lost",)),
        ("delete the inbound message before its jobs are stored", ("crash",)),
        ("hold a job without raising the hold mark", ()),
        ("trust a lease to its end, as if a send took no time", ("partition", "slow")),
        ("release a shard while sends are under way", ("slow", "deploy")),
        ("read without raising the read mark", ()),
        ("read up to a mark that has just been raised", ()),
        ("retire buckets that may not be empty", ("slow", "crash")),
        ("match the results of a batch to the wrong entries", ("partial",)),
        ("dead-letter without an acknowledgement", ("poison", "partial")),
        ("an ingester does not verify signatures", ("forged",)),
        ("a redrive does not verify signatures", ("forged",)),
        ("send 300 ms early", ()),
        ("count a delivery at each try", ("partial",)),
        ("post again under another id", ("response_lost",)),
        ("exit without posting the last counts", ("deploy",)),
        ("take every receive for the first", ("redeliver",)),
        ("an owner counts as seen since the look before", ("pause",)),
        ("every ingester takes the rate of the fleet", ()),
        ("a move by an old token is answered with an earlier move", ()),
        ("deliver without the user's attributes", ()),
    ],
)
def test_a_planted_bug_is_found(bug: str, mix: tuple[str, ...]) -> None:
    (mutation,) = [mutation for mutation in MUTATIONS if mutation.name == bug]
    with planted(mutation):
        assert any(simulate(seed, mix).violations for seed in range(8))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_planted_bug_can_be_called_as_what_it_replaces(mutation: Mutation) -> None:
    """A bug that could not be called would be found only for that."""
    original = getattr(mutation.owner, mutation.attribute)
    with planted(mutation):
        bug = getattr(mutation.owner, mutation.attribute)
        if inspect.isfunction(original) and inspect.isfunction(bug):
            parameters = inspect.signature(original).parameters.values()
            by_name = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
            inspect.signature(bug).bind(*(p for p in parameters if p.name not in by_name), **by_name)


def test_no_two_planted_bugs_have_one_name() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)


def test_a_mix_of_faults_is_kept_to() -> None:
    outcome = simulate(3, ("crash", "partial"))
    assert outcome.kinds == ("partial", "crash")
    assert {kind for kind in KINDS if outcome.met[kind]} == {"partial", "crash"}


def test_two_seeds_are_two_runs() -> None:
    assert simulate(5).digest != simulate(6).digest
