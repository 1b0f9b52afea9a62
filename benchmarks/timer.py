"""A bare timer on the core of the process under test: the lateness that the machine itself adds.

Sleeps for 5 ms repeatedly. For each line on its standard input it writes a line: percentiles, in milliseconds, of how
much longer it slept, since the line before.
"""

from __future__ import annotations

import json
import select
import sys
import time

from benchmarks.loadgen import percentile

SLEEP_S = 0.005


def main() -> None:
    late_ms: list[float] = []
    while True:
        started = time.perf_counter()
        readable, _, _ = select.select([sys.stdin], [], [], SLEEP_S)
        if not readable:
            late_ms.append(1000 * (time.perf_counter() - started - SLEEP_S))
        elif not sys.stdin.readline():
            return
        else:
            late_ms.sort()
            print(json.dumps({"p99": percentile(late_ms, 0.99), "max": late_ms[-1] if late_ms else 0.0}), flush=True)
            late_ms = []


if __name__ == "__main__":
    main()
