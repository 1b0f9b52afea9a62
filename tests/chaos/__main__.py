"""A soak: storms and calms in turn, for as long as wanted, and then the accounts and the ledger, which close to zero.

    python -m tests.chaos --minutes 60

In a storm everything is done at random, in a calm nothing: jobs that are due in it, once all is overcome, must be on
time. Exits 1, and keeps the directory with all logs, if anything is not as promised. The seed fixes what is done and
when; how real processes take it is not repeatable.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path

from tests.acceptance.fleet import monotonic, now_ms, pause
from tests.chaos import clocks, ledger
from tests.chaos.damage import storm
from tests.chaos.ending import deaths, finish
from tests.chaos.faults import Chaos, chaos
from tests.chaos.settings import RECOVERY_MAX_MS

STORM_S = 45.0
CALM_S = RECOVERY_MAX_MS / 1000 + 15
"""Recovery, and a while in which everything has to be on time."""
PAUSE_S = 0.15
LATEST_JOBS = 3
"""Shown at the end, with the calls that they were in."""

say = partial(print, flush=True)


async def soak(directory: Path, *, minutes: float, seed: int, clients: int) -> None:
    """Fails with an `AssertionError` that says what is not as promised."""
    with_clocks = clocks.library() is not None
    say(f"{minutes:g} minutes, seed {seed}, logs in {directory}" + ("" if with_clocks else f"; {clocks.HOW_TO_GET_IT}"))
    async with chaos(directory, seed=seed, clocks=with_clocks, **ledger.SETTINGS) as disturbed:
        ends_at = monotonic() + minutes * 60
        async with disturbed.clients.running(clients, PAUSE_S):
            rounds = 0
            while monotonic() < ends_at:
                await storm(disturbed, STORM_S, seed * 1_000_000 + rounds)
                await pause(CALM_S)
                rounds += 1
                say(f"{time.strftime('%H:%M:%S')}  round {rounds}: {disturbed.accounts.progress}")
            await disturbed.clients.post_ahead(20, from_s=1, until_s=5)
        say(await finish(disturbed))
        say(disturbed.network.counts)
        say(disturbed.accounts.latest(LATEST_JOBS))
        await _close_the_ledger(disturbed)


async def _close_the_ledger(disturbed: Chaos) -> None:
    accounts = disturbed.accounts
    last_ms = max(sighting.at_ms for account in accounts.by_body.values() for sighting in account.deliveries)
    wait_s = (ledger.closed_at_ms(last_ms) - now_ms()) / 1000 + 1
    say(f"the ledger closes in {max(0.0, wait_s):.0f} s")
    await pause(max(0.0, wait_s))
    windows = await ledger.closed_windows(disturbed.fleet)
    died = deaths(disturbed)
    assert not (wrong := ledger.unexplained(windows, accounts.evidence, died)), "\n".join(wrong)
    certain, _ = ledger.counted_again(accounts.evidence.postings)
    left = [window.missing - certain[window.start_ms] for window in windows]
    say(
        f"ledger: {len(windows)} windows closed; {sum(max(0, jobs) for jobs in left)} jobs missing, of at most"
        f" {ledger.lost_counts(accounts.evidence, died).total()} whose counts processes had when they were killed;"
        f" {sum(max(0, -jobs) for jobs in left)} too many"
    )


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=4, help="that submit, cancel and move jobs at the same time")
    parser.add_argument("--directory", type=Path, help="for the engine's data and all logs; one of its own by default")
    chosen = parser.parse_args()
    directory = chosen.directory or Path(tempfile.mkdtemp(prefix="dynein-soak-"))
    directory.mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(soak(directory, minutes=chosen.minutes, seed=chosen.seed, clients=chosen.clients))
    except (AssertionError, ExceptionGroup):
        traceback.print_exc()
        say(f"FAILED; logs in {directory}")
        return 1
    say("everything is accounted for")
    return 0


if __name__ == "__main__":
    sys.exit(main())
