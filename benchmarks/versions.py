"""Two versions of Dynein side by side: jobs a core-second of a dispatcher and an ingester, this one's over the other's.

``python -m benchmarks.versions DIRECTORY``: the other version is the package in that checkout (``git worktree add``).

As in `benchmarks.pipeline`, the processes that are compared do the same work at the same moment on the same core, each
with a stub and a table of its own: whatever the machine does meanwhile, it does to both. Each stub is of its process's
version, since formats of records and messages change. Which version starts first alternates.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path

from benchmarks.harness import Serve
from benchmarks.pipeline import FULL, MEASURES, QUICK, UNTHROTTLED, Side, Sizes, settle, stored_stub
from benchmarks.results import Table, spread, text_table

STARTS = 3
"""Pairs of processes of each role: two that were started once may differ by more than two versions do."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="directory of the other checkout")
    parser.add_argument("--repeats", type=int, default=5, help="how often each pair is measured")
    parser.add_argument("--quick", action="store_true", help="seconds, not minutes: to see that it works")
    given = parser.parse_args()
    sizes, starts = (QUICK, 1) if given.quick else (FULL, STARTS)
    table = Table("versions", f"Jobs a core-second, this version over {given.other}", "Median (least-greatest).")
    for role, rows in reversed(MEASURES.items()):
        ratios: dict[str, list[float]] = {row: [] for row in rows}
        for start in range(starts):
            ours = start % 2
            checkouts = [given.other.resolve() if place != ours else None for place in range(2)]
            with _started(role, checkouts, sizes) as sides:
                for (row, measure), _ in product(rows.items(), range(given.repeats)):
                    measured = measure(sides, sizes)
                    ratios[row].append(measured[ours].rate / measured[1 - ours].rate)
        for row, found in ratios.items():
            table.add(role=row, ratio=spread(found))
    print(text_table(table.as_dict()))


@contextmanager
def _started(role: str, checkouts: list[Path | None], sizes: Sizes) -> Iterator[list[Side]]:
    with ExitStack() as stack:
        sides: list[Side] = []
        for checkout in checkouts:
            stub = stack.enter_context(stored_stub(sizes.stored[0], checkout))
            sides.append(Side(stub, stack.enter_context(Serve(stub, [role], UNTHROTTLED, checkout=checkout))))
        for side in sides:
            settle(side.stub)
        yield sides
        for side in sides:
            side.process.stop()


if __name__ == "__main__":
    main()
