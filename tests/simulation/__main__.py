"""``python -m tests.simulation``: replay one seed, run many, or search for planted bugs."""

from __future__ import annotations

# ruff: noqa: T201 - a command line prints
import argparse
import os
import signal
import sys
import time
from collections import Counter

from tests.simulation.many import Totals, run_seeds, search_all
from tests.simulation.mutations import MUTATIONS
from tests.simulation.run import Outcome, simulate
from tests.simulation.scenario import KINDS

_FAILING_MAX = 10
_PROGRESS_EVERY_S = 10.0
_INTERRUPTED = 130


def main() -> int:
    """Exit code 1 if there was any violation, or a planted bug was not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="replay one run")
    which.add_argument("--seeds", metavar="A:B", type=_range, help="run seeds A to B-1")
    which.add_argument("--mutations", metavar="N", type=int, help="plant each known bug and find it within N seeds")
    which.add_argument("--list-faults", action="store_true", help="list the kinds of faults")
    parser.add_argument(
        "--faults", metavar="KIND,...", type=_mix, help="these kinds of faults, not those that each seed chooses"
    )
    parser.add_argument("--jobs", metavar="N", type=int, default=os.cpu_count() or 1, help="processes (default: cores)")
    parser.add_argument("--only", metavar="TEXT", default="", help="plant only bugs whose name contains TEXT")
    parser.add_argument("--no-unit-tests", action="store_true", help="with --mutations: the simulation only")
    parser.add_argument("--trace", action="store_true", help="print everything that happened")
    parser.add_argument("--grep", metavar="TEXT", help="print only the lines of the trace that contain TEXT")
    parser.add_argument("--keep-going", action="store_true", help=f"do not stop after {_FAILING_MAX} failing seeds")
    arguments = parser.parse_args()
    if arguments.list_faults:
        for kind, what in KINDS.items():
            print(f"{kind:13} {what}")
        return 0
    if arguments.seed is not None:
        trace = arguments.trace or bool(arguments.grep)
        return _replay(arguments.seed, arguments.faults, trace=trace, grep=arguments.grep)
    if arguments.mutations is not None:
        unit_tests = not arguments.no_unit_tests
        return _search(arguments.mutations, arguments.only, arguments.faults, arguments.jobs, unit_tests=unit_tests)
    return _run(arguments.seeds, arguments.faults, arguments.jobs, keep_going=arguments.keep_going)


def _range(text: str) -> range:
    first, _, end = text.partition(":")
    return range(int(first), int(end))


def _mix(text: str) -> tuple[str, ...]:
    kinds = tuple(kind.strip() for kind in text.split(",") if kind.strip())
    for kind in kinds:
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"{kind!r} is not a kind of fault; --list-faults lists them")
    return kinds


def _replay(seed: int, mix: tuple[str, ...] | None, *, trace: bool, grep: str | None) -> int:
    outcome = simulate(seed, mix, keep_trace=trace)
    for line in outcome.trace:
        if grep is None or grep in line:
            print(line)
    print(_describe(outcome, mix))
    return 1 if outcome.violations else 0


def _run(seeds: range, mix: tuple[str, ...] | None, jobs: int, *, keep_going: bool) -> int:
    began = reported_at = time.monotonic()  # noqa: TID251 - real time, for the progress line
    totals = Totals()
    interrupted = False
    try:
        for run in run_seeds(seeds, mix, jobs):
            totals.add(run)
            if run.outcome.violations:
                print(_describe(run.outcome, mix), flush=True)
                if len(totals.failed) >= _FAILING_MAX and not keep_going:
                    break
            now = time.monotonic()  # noqa: TID251
            if now - reported_at > _PROGRESS_EVERY_S:
                reported_at = now
                rate = totals.seeds / (now - began)
                print(f"... {totals.seeds} of {len(seeds)} seeds, {len(totals.failed)} failed, {rate:.1f} a second")
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted; totals of the seeds that were run:")
    print(_summary(totals, time.monotonic() - began))  # noqa: TID251
    if totals.failed:
        return 1
    return _INTERRUPTED if interrupted else 0


def _search(seeds_max: int, only: str, mix: tuple[str, ...] | None, jobs: int, *, unit_tests: bool) -> int:
    names = [mutation.name for mutation in MUTATIONS if only in mutation.name]
    found, cpu_s = 0, 0.0
    for result in search_all(names, range(seeds_max), mix, jobs, with_unit_tests=unit_tests):
        cpu_s += result.cpu_s
        if result.found_at is None:
            print(f"NOT FOUND in {seeds_max} seeds ({result.cpu_s:.1f} CPU s): {result.bug}", flush=True)
        else:
            found += 1
            print(f"found at seed {result.found_at:3} ({result.cpu_s:.1f} CPU s): {result.bug}", flush=True)
            print(f"    {result.violation}", flush=True)
        if result.unit_tests is not None:
            failed, took_s = result.unit_tests
            how = f"found by {failed}" if failed is not None else "NOT FOUND by the unit tests of its package"
            print(f"    {how} in {took_s:.1f} s", flush=True)
    print(f"{found} of {len(names)} planted bugs found, in {cpu_s:.0f} CPU s")
    return 0 if found == len(names) else 1


def _describe(outcome: Outcome, mix: tuple[str, ...] | None) -> str:
    result = "FAILED" if outcome.violations else "ok"
    lines = [
        f"seed {outcome.seed}: {result}; faults: {', '.join(outcome.kinds) or 'none'}",
        f"  {outcome.virtual_s:.0f} s, {outcome.steps} steps, digest {outcome.digest}",
        f"  at most {outcome.lateness_ms_max:.0f} ms late in the calm phase; {_list(outcome.counts)}",
    ]
    lines += [f"  - {violation}" for violation in outcome.violations[:20]]
    if len(outcome.violations) > 20:
        lines.append(f"  - and {len(outcome.violations) - 20} more")
    if outcome.violations:
        faults = "" if mix is None else f" --faults '{','.join(mix)}'"
        lines.append(f"  replay: python -m tests.simulation --seed {outcome.seed}{faults} --trace")
    return "\n".join(lines)


def _summary(totals: Totals, took_s: float) -> str:
    counts = totals.counts
    failed = f" at {', '.join(map(str, totals.failed))}" if totals.failed else ""
    lines = [
        (
            f"{totals.seeds} seeds, {totals.violations} violations{failed}; "
            f"{totals.virtual_s / 3600:.1f} hours simulated in {took_s:.0f} s ({totals.cpu_s:.0f} CPU s)"
        ),
        (
            f"jobs: {counts['accepted']} accepted, {counts['delivered']} delivered, {counts['cancelled']} cancelled, "
            f"{counts['moved']} moved, {counts['dead-lettered']} dead-lettered; "
            f"{counts['duplicates']} duplicates, each explained"
        ),
        (
            f"ledger: {counts['missing in the ledger']} jobs missing, {counts['too many in the ledger']} too many, "
            "each explained"
        ),
        f"faults: {_list(totals.met)}",
    ]
    return "\n".join(lines)


def _list(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items()) if count)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` is no error
    sys.exit(main())
