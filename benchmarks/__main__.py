"""Run all benchmarks, one after the other, and print the targets: ``python -m benchmarks [--quick]``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.report import BENCHMARKS
from benchmarks.results import options, text_table
from benchmarks.targets import targets_table


def main() -> None:
    given = options(__doc__)
    for benchmark in BENCHMARKS:
        # Each in its own process, so that none inherits another's heap.
        subprocess.run([sys.executable, "-m", f"benchmarks.{benchmark}", *sys.argv[1:]], check=True)
    print(text_table(targets_table(Path(given.results)).as_dict()))


if __name__ == "__main__":
    main()
