"""CPU profile of a role: `py-spy <https://github.com/benfred/py-spy>`_ over the work that the benchmarks measure.

``python -m benchmarks.profiling dispatcher`` (or ``ingester``, ``api``) prints the functions by their own time and by
the time spent in and below them. Needs py-spy (``pip install py-spy``); the rates it shows are lower than measured
ones, since every sample stops the process.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks import loadgen
from benchmarks.harness import Serve, Stub, client_setting, load_generator
from benchmarks.pipeline import FULL, MANY_QUEUES, UNTHROTTLED, Side, measure_dispatchers, measure_ingesters, settle
from benchmarks.requests import post_batch, post_single

SAMPLES_PER_S = 200
LINES = 40
_FRAMEWORK = ("typer/", "runpy", "asyncio/runners", "uvloop/__init__", "cli.py", "__main__.py")


def _dispatcher(stub: Stub, serve: Serve, *, single: bool) -> None:
    del single
    measure_dispatchers([Side(stub, serve)], FULL._replace(due=40_000, window_s=0.1), queues=MANY_QUEUES)


def _ingester(stub: Stub, serve: Serve, *, single: bool) -> None:
    del single
    measure_ingesters([Side(stub, serve)], FULL._replace(window_s=8.0))


def _api(stub: Stub, serve: Serve, *, single: bool) -> None:
    del stub
    request = post_single(serve.address, scheduled=True) if single else post_batch(serve.address, 1_000, scheduled=True)
    plan = loadgen.Plan(serve.address, [request], 64 if single else 4, 40_000 if single else 400)
    with load_generator() as generator:
        generator.tell(msgspec.json.encode(plan))


WORK: dict[str, Callable[..., None]] = {"api": _api, "dispatcher": _dispatcher, "ingester": _ingester}


def profile(role: str, client: str | None, *, single: bool) -> str:
    """Samples as py-spy writes them: stacks with their counts."""
    settings = UNTHROTTLED | (client_setting(client) if client else {})
    with Stub() as stub, tempfile.TemporaryDirectory() as directory:
        stub.bootstrap()
        with Serve(stub, [role], settings) as serve:
            settle(stub)
            path = Path(directory) / "stacks"
            command = ["py-spy", "record", "--pid", str(serve.pid), "--rate", str(SAMPLES_PER_S), "--format", "raw"]
            spy = subprocess.Popen([*command, "--output", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            WORK[role](stub, serve, single=single)
            serve.stop()  # which ends py-spy too
            _, said = spy.communicate()
        if not path.exists():
            raise SystemExit(said.decode())
        return path.read_text()


def tops(stacks: str) -> str:
    """Two tables: own time, and time in and below."""
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        own[frames[-1]] += int(count)
        below.update(dict.fromkeys(frames, int(count)))
    samples = own.total()

    def table(counts: Counter[str]) -> list[str]:
        shown = [(frame, n) for frame, n in counts.most_common() if not any(part in frame for part in _FRAMEWORK)]
        return [f"{100 * n / samples:5.1f} %  {frame}" for frame, n in shown[:LINES]]

    return "\n".join([f"{samples} samples", "", "own time", *table(own), "", "time in and below", *table(below)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=WORK)
    parser.add_argument("--client", help="AWS client; default: the service's")
    parser.add_argument("--single", action="store_true", help="api: single POSTs of 64 clients, not batches of 1,000")
    given = parser.parse_args()
    if shutil.which("py-spy") is None:
        sys.exit("py-spy is not installed: pip install py-spy")
    print(tops(profile(given.role, given.client, single=given.single)))


if __name__ == "__main__":
    main()
