"""Shared by all benchmarks: processes pinned to cores, and CPU and request counts over an interval.

CPU seconds are the operating system's for the measured process, requests are the stub's counters: neither depends on
what else the machine is doing. Wall-clock figures are used only as ratios.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_args

from benchmarks.jobs import SECRET
from benchmarks.wall import pause
from dynein.settings import Settings

REGION = "us-east-1"
CORES = sorted(os.sched_getaffinity(0))
MEASURED_CORE = CORES[0]
"""Where the process under test runs, alone."""
OTHER_CORE = CORES[-1]
"""Where the stub and the load generator run."""
SHARDS = 16
BUCKET_WIDTH_MS = 60_000
START_PATIENCE_S = 60.0
QUICK_SETTINGS = {
    "DYNEIN_CALL_TIMEOUT_S": "3",
    "DYNEIN_TICK_S": "0.35",
    "DYNEIN_READ_AHEAD_S": "1.2",
    "DYNEIN_HOLD_WINDOW_S": "3.2",
    "DYNEIN_LEASE_TTL_S": "5",
    "DYNEIN_CLOCK_SKEW_MAX_S": "10",
    "DYNEIN_RETIRE_GRACE_S": "20",
    "DYNEIN_MEMBER_TTL_S": "4.5",
    "DYNEIN_RECEIVE_WAIT_S": "1",
    "DYNEIN_VISIBILITY_TIMEOUT_S": "7",
}
"""Settings for ``--quick``, so that everything happens sooner."""
_AWS_ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": REGION}


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system, that a process and its children have used so far.

    By the process's own clock: ``clock_getcpuclockid(3)``, which has no Python name. Exact to the nanosecond, where
    ``/proc/PID/stat`` counts hundredths of a second.
    """
    own = time.clock_gettime_ns((~pid << 3) | 2) / 1e9
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return own + sum(cpu_s(int(child)) for child in children.read_text().split()) if children.exists() else own


def environment(**settings: str) -> dict[str, str]:
    """Environment of a process under test: the caller's (with ``DYNEIN_...``), then what the benchmark needs."""
    chosen = {"DYNEIN_REGION": REGION, "DYNEIN_TOKEN_SECRETS": SECRET, **settings}
    return {**os.environ, **_AWS_ENVIRONMENT, **chosen}


def aws_clients(*, quick: bool = False) -> list[str]:
    """The AWS clients to compare: both, if the caller has chosen none. The last one is the default."""
    chosen = os.environ.get("DYNEIN_AWS_CLIENT")
    if chosen:
        return [chosen]
    field: Any = Settings.model_fields.get("aws_client")
    if field is None:
        return ["aiobotocore"]
    default = str(field.default)
    others = [name for name in get_args(field.annotation) if name != default]
    return [default] if quick else [*others, default]


def client_setting(client: str) -> dict[str, str]:
    """The environment that chooses an AWS client."""
    return {"DYNEIN_AWS_CLIENT": client} if "aws_client" in Settings.model_fields else {}


class Child:
    """A process on one core, with its output in a file; ended on leaving."""

    def __init__(
        self, name: str, arguments: Sequence[str], core: int | None, env: dict[str, str], checkout: Path | None = None
    ) -> None:
        self.name = name
        self._log = tempfile.NamedTemporaryFile(prefix=f"bench-{name}-", suffix=".log")  # noqa: SIM115 - lives as long
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            env=env,
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        if core is not None:
            os.sched_setaffinity(self.process.pid, {core})  # before it starts threads, which inherit it

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu_s(self) -> float:
        return cpu_s(self.pid)

    def said(self) -> str:
        """Its standard error so far."""
        return Path(self._log.name).read_text()

    def tell(self, plan: bytes) -> bytes:
        """Send a line to its standard input; its next line of standard output."""
        assert self.process.stdin is not None
        self.process.stdin.write(plan + b"\n")
        self.process.stdin.flush()
        return self.line().encode()

    def pin(self, core: int) -> None:
        """Move its main thread, and the threads it starts from now on, to a core."""
        os.sched_setaffinity(self.pid, {core})

    def line(self) -> str:
        """The next line of its standard output."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode().strip()
        if not line:
            raise RuntimeError(f"{self.name} ended: {self.said()}")
        return line

    def stop(self, number: int = signal.SIGTERM, within_s: float = 40.0) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop(signal.SIGKILL)
        self._log.close()


def load_generator(module: str = "loadgen") -> Child:
    """`benchmarks.loadgen` or `benchmarks.openload`, on the core where the stub runs; `Child.tell` it a plan."""
    return Child(module, ["-m", f"benchmarks.{module}", str(OTHER_CORE)], OTHER_CORE, environment())


class Stub(Child):
    """The stub endpoint, with queues and table made. ``checkout``: of the package there, whose formats it then has."""

    def __init__(self, core: int = OTHER_CORE, checkout: Path | None = None) -> None:
        super().__init__("stub", ["-m", "benchmarks.stub", "--core", str(core)], core, {**os.environ}, checkout)
        self._checkout = checkout
        self.url = self.line()
        self.address = self.url.removeprefix("http://")
        self._http = http.client.HTTPConnection(self.address, timeout=600)

    def ask(self, name: str, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - see benchmarks.stub.control
        """See `benchmarks.stub.control.Control`."""
        self._http.request("POST", f"/stub/{name}", json.dumps(request))
        response = self._http.getresponse()
        said: dict[str, Any] = json.loads(response.read())
        if response.status != http.client.OK:
            raise RuntimeError(f"the stub cannot {name}: {said}")
        return said

    def bootstrap(self, shards: int = SHARDS) -> None:
        """``dynein bootstrap``."""
        env = environment(DYNEIN_ENDPOINT_URL=self.url, DYNEIN_SHARD_COUNT=str(shards))
        command = [sys.executable, "-m", "dynein", "bootstrap"]
        done = subprocess.run(command, env=env, cwd=self._checkout, check=False, capture_output=True)
        if done.returncode:
            raise RuntimeError(f"dynein bootstrap: {done.stderr.decode()} {self.said()}")


class Serve(Child):
    """One ``dynein serve``, ready. ``checkout``: of the package in that directory, if not of this one."""

    def __init__(
        self,
        stub: Stub,
        roles: Sequence[str],
        settings: Mapping[str, str] | None = None,
        core: int = MEASURED_CORE,
        checkout: Path | None = None,
    ) -> None:
        self.port = free_port()
        env = environment(
            DYNEIN_ENDPOINT_URL=stub.url, DYNEIN_PORT=str(self.port), DYNEIN_LOG_LEVEL="WARNING", **(settings or {})
        )
        command = ["-m", "dynein", "serve", *(f"--role={role}" for role in roles)]
        super().__init__("-".join(roles), command, core, env, checkout)
        self.address = f"127.0.0.1:{self.port}"
        deadline = time.perf_counter() + START_PATIENCE_S
        while not self._ready():
            if self.process.poll() is not None or time.perf_counter() > deadline:
                self.stop(signal.SIGKILL)
                raise RuntimeError(f"{self.name} did not start: {self.said()}")
            pause(0.05)

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection(self.address, timeout=10)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False
        finally:
            connection.close()


class Spent:
    """What an interval of work took: CPU by process, and the stub's counts by kind and operation."""

    def __init__(self) -> None:
        self.wall_s = 0.0
        self.cpu_s: dict[str, float] = {}
        self.counts: dict[str, defaultdict[str, float]] = {}

    def total(self, counted: str) -> float:
        """Over all operations."""
        return sum(n for name, n in self.counts[counted].items() if "(" not in name)

    def share(self, name: str) -> float:
        """CPU in per cent of one core."""
        return 100 * self.cpu_s[name] / self.wall_s if self.wall_s else 0.0

    def less(self, idle: Spent) -> Spent:
        """The same without what an idle process would have spent in that time.

        A hundredth of the CPU stays at least: on a busy machine a short run may have cost less than the idle interval.
        """
        scale = self.wall_s / idle.wall_s
        rest = Spent()
        rest.wall_s = self.wall_s
        rest.cpu_s = {name: max(cpu / 100, cpu - scale * idle.cpu_s[name]) for name, cpu in self.cpu_s.items()}
        rest.counts = {
            counted: defaultdict(
                float, {name: max(0.0, n - scale * idle.counts[counted][name]) for name, n in names.items()}
            )
            for counted, names in self.counts.items()
        }
        return rest


@contextlib.contextmanager
def spending(stub: Stub, **processes: Child) -> Iterator[Spent]:
    """Measure the block: CPU of the processes named and of the stub, and the stub's requests."""
    spent = Spent()
    watched: dict[str, Child] = {**processes, "stub": stub}
    counts_before = stub.ask("counts")
    cpu_before = {name: process.cpu_s() for name, process in watched.items()}
    started = time.perf_counter()
    yield spent
    spent.wall_s = time.perf_counter() - started
    spent.cpu_s = {name: process.cpu_s() - cpu_before[name] for name, process in watched.items()}
    for name, after in stub.ask("counts").items():
        if isinstance(after, dict):
            before = counts_before[name]
            spent.counts[name] = defaultdict(float, {key: float(n - before.get(key, 0)) for key, n in after.items()})


def free_port() -> int:
    """A port that no process listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
