"""``python -m tests.simulation``: replay one seed, run many, or hunt for bugs planted on purpose."""

from __future__ import annotations

# ruff: noqa: T201 - it talks to a person at a terminal
import argparse
import sys
import time
from collections import Counter

from tests.simulation.mutations import MUTATIONS, planted
from tests.simulation.run import Outcome, simulate


def main() -> int:
    """Exit code 1 if there was any violation."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="replay one run")
    which.add_argument("--seeds", metavar="A:B", help="run seeds A to B-1")
    which.add_argument("--mutations", metavar="N", type=int, help="plant each known bug; find it within N seeds")
    parser.add_argument("--only", metavar="TEXT", default="", help="of the known bugs, those whose name contains TEXT")
    parser.add_argument("--trace", action="store_true", help="print everything that happened")
    parser.add_argument("--grep", metavar="TEXT", help="print only the lines of the trace that contain TEXT")
    parser.add_argument("--keep-going", action="store_true", help="do not stop after ten failing seeds")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return _replay(arguments.seed, trace=arguments.trace or bool(arguments.grep), grep=arguments.grep)
    if arguments.mutations is not None:
        return _hunt(arguments.mutations, arguments.only)
    first, _, end = arguments.seeds.partition(":")
    return _run(range(int(first), int(end)), keep_going=arguments.keep_going)


def _replay(seed: int, *, trace: bool, grep: str | None) -> int:
    outcome = simulate(seed, keep_trace=trace)
    for line in outcome.trace:
        if grep is None or grep in line:
            print(line)
    print(_describe(outcome))
    return 1 if outcome.violations else 0


def _run(seeds: range, *, keep_going: bool) -> int:
    began = time.monotonic()  # noqa: TID251 - how long the person at the terminal waits
    told = began
    failed: list[int] = []
    totals: Counter[str] = Counter()
    virtual_s = 0.0
    done = 0
    for seed in seeds:
        outcome = simulate(seed)
        done += 1
        totals.update(outcome.counts)
        virtual_s += outcome.virtual_s
        if outcome.violations:
            failed.append(seed)
            print(_describe(outcome), flush=True)
            if len(failed) >= 10 and not keep_going:
                break
        now = time.monotonic()  # noqa: TID251
        if now - told > 10:
            told = now
            print(
                f"... {done} of {len(seeds)} seeds, {len(failed)} failed, {done / (now - began):.1f} a second",
                flush=True,
            )
    took_s = time.monotonic() - began  # noqa: TID251
    print(
        f"{done} seeds, {len(failed)} failed{': ' + ', '.join(map(str, failed)) if failed else ''}; "
        f"{virtual_s / 3600:.1f} hours simulated in {took_s:.0f} s; "
        f"{totals['accepted']} jobs accepted, {totals['delivered']} delivered, "
        f"{totals['duplicates']} explained duplicates, {totals['cancelled']} cancelled, {totals['moved']} moved, "
        f"{totals['dead-lettered']} dead-lettered"
    )
    return 1 if failed else 0


def _hunt(seeds_max: int, only: str) -> int:
    missed = 0
    for mutation in MUTATIONS:
        if only not in mutation.name:
            continue
        with planted(mutation):
            for seed in range(seeds_max):
                outcome = simulate(seed)
                if outcome.violations:
                    print(f"found at seed {seed:3}: {mutation.name}\n    {outcome.violations[0]}", flush=True)
                    break
            else:
                missed += 1
                print(f"NOT FOUND in {seeds_max} seeds: {mutation.name}", flush=True)
    return 1 if missed else 0


def _describe(outcome: Outcome) -> str:
    scenario = outcome.scenario
    counts = ", ".join(f"{count} {what}" for what, count in sorted(outcome.counts.items()))
    verdict = "FAILED" if outcome.violations else "ok"
    lines = [
        f"seed {scenario.seed}: {verdict}; faults: {', '.join(scenario.kinds) or 'none'}",
        f"  {outcome.virtual_s:.0f} s, {outcome.steps} steps, digest {outcome.digest}",
        f"  at most {outcome.lateness_ms_max:.0f} ms late in good weather; {counts}",
    ]
    lines += [f"  - {violation}" for violation in outcome.violations[:20]]
    if len(outcome.violations) > 20:
        lines.append(f"  - and {len(outcome.violations) - 20} more")
    if outcome.violations:
        lines.append(f"  replay: python -m tests.simulation --seed {scenario.seed} --trace")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
