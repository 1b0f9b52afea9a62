"""The parent of several workers, with small programs in their place; what they share; how many there should be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from dynein.errors import FatalError, InvalidSettings
from dynein.server.http_protocol import GuardedProtocol
from dynein.server.http_server import HOLD_BACK_S, SharingServer
from dynein.server.listener import listen, url_of
from dynein.server.workers.connections import Connections
from dynein.server.workers.cores import usable_cores
from dynein.server.workers.directory import WorkersDirectory
from dynein.server.workers.supervisor import SHORT_LIVES_MAX, Pace, Workers
from dynein.settings import load_settings

HANG_S = 240.0
"""Only what hangs takes so long, however busy the machine is."""

# --- how many ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return tmp_path


def limit(cgroups: Path, membership: str, **files: str) -> int:
    """Cores under these limits; a file is named by its path with ``__`` for ``/``."""
    for name, text in files.items():
        file = cgroups / name.replace("__", "/").replace("cpu_", "cpu.")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (cgroups / "membership").write_text(membership)
    return usable_cores(cgroups=cgroups, membership=cgroups / "membership")


def test_without_a_limit_it_is_the_cores_we_may_run_on(cgroups: Path) -> None:
    assert limit(cgroups, "0::/\n", cpu_max="max 100000\n") == 8
    assert usable_cores(cgroups=cgroups / "none", membership=cgroups / "none") == 8


@pytest.mark.parametrize(("quota", "cores"), [("400000", 4), ("250000", 2), ("50000", 1), ("9900000", 8)])
def test_a_containers_limit_counts_in_whole_cores(cgroups: Path, quota: str, cores: int) -> None:
    assert limit(cgroups, "0::/\n", cpu_max=f"{quota} 100000\n") == cores


def test_the_least_limit_of_all_groups_we_are_in_counts(cgroups: Path) -> None:
    assert limit(cgroups, "0::/pods/one\n", pods__cpu_max="300000 100000", pods__one__cpu_max="max 100000") == 3


def test_the_older_kind_of_cgroups_is_read_too(cgroups: Path) -> None:
    files = {"cpu__box__cpu_cfs_quota_us": "200000\n", "cpu__box__cpu_cfs_period_us": "100000\n"}
    assert limit(cgroups, "5:memory:/box\n4:cpu,cpuacct:/box\n", **files) == 2
    assert limit(cgroups, "4:cpu,cpuacct:/box\n", cpu__box__cpu_cfs_quota_us="-1\n") == 8


def test_the_setting_is_a_number_or_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().workers == 1
    assert load_settings({"workers": "auto"}).workers == 0
    monkeypatch.setenv("DYNEIN_WORKERS", "4")
    assert load_settings().workers == 4
    for wrong in ("many", "-1", "1.5", "100000"):
        with pytest.raises(InvalidSettings, match="DYNEIN_WORKERS="):
            load_settings({"workers": wrong})


# --- one port, evenly -------------------------------------------------------------------------------------------------


def test_a_taken_port_is_said_so() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(FatalError, match=f"port {port} on 127.0.0.1 is in use; choose another with --port"):
            listen("127.0.0.1", port)
        assert url_of(taken) == f"http://127.0.0.1:{port}"


def test_connection_counts_are_seen_by_all_and_those_who_do_not_accept_do_not_count(tmp_path: Path) -> None:
    parent, worker = (Connections(tmp_path / "connections", 3) for _ in range(2))
    for number in range(3):
        parent.leave(number)
    assert worker.least() == 0, "nobody accepts"
    worker.publish(1, 7)
    assert parent.least() == 7
    parent.publish(2, 3)
    assert worker.least() == 3
    parent.leave(2)
    assert worker.least() == 7


class Crowd:
    """Several servers on one listening socket, as several workers are; each answers with its number."""

    def __init__(self, directory: Path, workers: int) -> None:
        self.listener = listen("127.0.0.1", 0)
        self.connections = Connections(directory / "connections", workers)
        self.servers: list[SharingServer] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.clients: list[asyncio.StreamWriter] = []
        for number in range(workers):
            self.connections.leave(number)

    async def start(self, number: int) -> SharingServer:
        config = uvicorn.Config(
            _app(number),
            http=GuardedProtocol,
            lifespan="off",
            ws="none",
            log_config=None,
            timeout_keep_alive=3600,  # else a busy machine closes connections in the middle of a test
            timeout_graceful_shutdown=1,
        )
        server = SharingServer(config, self.listener.dup(), self.connections, number, connections_max=1000)
        self.servers.append(server)
        self.tasks.append(asyncio.create_task(server.serve()))
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)  # noqa: TID251 - a real server
        return server

    async def stop(self) -> None:
        for client in self.clients:
            client.close()
        for server in self.servers:
            server.should_exit = True
        await asyncio.gather(*self.tasks)
        self.listener.close()

    async def ask(self) -> tuple[str, asyncio.StreamWriter]:
        """Over a new connection, which stays open: who answers?"""
        reader, writer = await asyncio.open_connection(*self.listener.getsockname())
        self.clients.append(writer)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        return (await reader.readexactly(1)).decode(), writer


def _app(number: int) -> Callable[..., Any]:
    async def app(scope: object, receive: object, send: object) -> None:
        del scope, receive
        assert callable(send)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": str(number).encode()})

    return app


@contextlib.asynccontextmanager
async def crowd(directory: Path, workers: int) -> AsyncIterator[Crowd]:
    made = Crowd(directory, workers)
    try:
        yield made
    finally:
        await made.stop()


async def test_kept_alive_connections_spread_evenly(tmp_path: Path) -> None:
    async with crowd(tmp_path, 3) as servers:
        for number in range(3):
            await servers.start(number)

        async def ask_once_all_listen() -> tuple[str, asyncio.StreamWriter]:
            # Who holds back takes what waits when its moment is over, even what came later: let those moments pass.
            # They and this sleep are timers of one loop, which keeps their order however busy the machine is.
            await asyncio.sleep(2 * HOLD_BACK_S)  # noqa: TID251 - a real server
            return await servers.ask()

        answered = [await ask_once_all_listen() for _ in range(12)]
        assert sorted(number for number, _ in answered) == ["0"] * 4 + ["1"] * 4 + ["2"] * 4
        for answerer, writer in answered:
            if answerer == "1":
                writer.close()
                await writer.wait_closed()
        while servers.servers[1].server_state.connections:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)  # noqa: TID251 - a real server
        servers.servers[1].publish()  # as each worker does once a second
        more = [await ask_once_all_listen() for _ in range(4)]
        assert [number for number, _ in more] == ["1"] * 4, "who has the least is next"


async def test_a_sibling_that_is_frozen_holds_no_connection_up(tmp_path: Path) -> None:
    async with crowd(tmp_path, 2) as servers:
        await servers.start(0)
        servers.connections.publish(1, 0)  # and nobody there
        answers = await asyncio.wait_for(asyncio.gather(*(servers.ask() for _ in range(50))), timeout=HANG_S)
        assert {number for number, _ in answers} == {"0"}


async def test_one_that_stops_leaves_what_waits_to_the_others(tmp_path: Path) -> None:
    async with crowd(tmp_path, 2) as servers:
        for number in range(2):
            await servers.start(number)
        servers.servers[0].should_exit = True
        await servers.tasks[0]
        answers = [await servers.ask() for _ in range(3)]
        assert {number for number, _ in answers} == {"1"}


# --- what they share --------------------------------------------------------------------------------------------------


def test_a_directory_left_behind_is_removed_by_the_next_and_one_in_use_is_not(tmp_path: Path) -> None:
    in_use, left = WorkersDirectory(in_memory=tmp_path), WorkersDirectory(in_memory=tmp_path)
    heir = os.dup(left.lock)
    left.forget()
    (tmp_path / "dynein-workers-link").symlink_to(in_use.path)
    WorkersDirectory(in_memory=tmp_path).remove()
    assert (in_use.path.exists(), left.path.exists()) == (True, True), "a worker that lives still has the lock"
    os.close(heir)
    WorkersDirectory(in_memory=tmp_path).remove()
    assert (in_use.path.exists(), left.path.exists()) == (True, False)
    in_use.remove()
    assert [file.name for file in tmp_path.iterdir()] == ["dynein-workers-link"]


def test_where_there_are_no_memory_files_it_is_a_temporary_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = WorkersDirectory(in_memory=tmp_path / "none")
    assert made.path.parent == tmp_path
    made.remove()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "neither"))
    with pytest.raises(FatalError, match="set TMPDIR to one that can, or use --workers 1"):
        WorkersDirectory(in_memory=tmp_path / "none")


# --- the parent -------------------------------------------------------------------------------------------------------

# A worker, as far as its parent can tell. What follows it is what the worker does.
WORKER = """
import json, os, signal, socket, sys, time
notes, spec = sys.argv[1], json.loads(sys.argv[2])
number, lifeline = spec["number"], socket.socket(fileno=spec["lifeline"])
with open(os.path.join(notes, f"starts-{number}"), "a") as file:
    print(os.getpid(), file=file)
def starts(of):
    try:
        return len(open(os.path.join(notes, f"starts-{of}")).readlines())
    except FileNotFoundError:
        return 0
def work(until=lambda: False):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    lifeline.send(b"r")
    while not until():
        time.sleep(0.02)
        lifeline.send(b".")
def end_all():
    # Once: a second signal ends the parent at once, and the parent is the test itself.
    try:
        open(os.path.join(notes, "ended"), "x").close()
        os.kill(os.getppid(), signal.SIGTERM)
    except FileExistsError:
        pass
    work()
"""
QUICK = Pace(
    short_life_s=HANG_S, pause_first_s=0.01, pause_max_s=0.02, heartbeat_s=0.05, hung_s=HANG_S, overtime_s=HANG_S
)
"""However busy the machine, no worker lives long, hangs or drains for too long, but in the tests of just that."""
LONG_LIFE_S = 3.0


class Parent:
    def __init__(self, notes: Path, settings: dict[str, object] | None = None) -> None:
        self.notes = notes
        self.settings = load_settings({"port": 0, "drain_s": HANG_S, **(settings or {})})

    def run(self, work: str, *, workers: int = 2, pace: Pace = QUICK) -> int:
        command = (sys.executable, "-I", "-S", "-c", WORKER + work, str(self.notes))
        return Workers(self.settings, ["api"], workers, {}, command=command, pace=pace).run()

    def starts(self, number: int) -> int:
        file = self.notes / f"starts-{number}"
        return len(self.pids(number)) if file.exists() else 0

    def until_gone(self, pid: int) -> None:
        """For an orphan: it was killed, but who inherited it may take a moment to reap it."""
        give_up_at = time.monotonic() + HANG_S  # noqa: TID251 - a real process
        while time.monotonic() < give_up_at:  # noqa: TID251 - a real process
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return
            time.sleep(0.01)  # noqa: TID251 - a real process
        raise AssertionError(f"{pid} is still there")

    def pids(self, number: int) -> Sequence[int]:
        return [int(line) for line in (self.notes / f"starts-{number}").read_text().split()]


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    made = Parent(tmp_path)
    yield made
    for file in tmp_path.glob("starts-*"):
        for pid in file.read_text().split():
            made.until_gone(int(pid))


def test_told_to_stop_it_stops_all_and_exits_0(parent: Parent) -> None:
    assert parent.run("work(lambda: starts(1) and starts(2)) if number == 0 else work(); end_all()", workers=3) == 0
    assert [parent.starts(number) for number in range(3)] == [1, 1, 1]


def test_each_worker_is_told_what_it_needs(parent: Parent) -> None:
    work = """
listener = socket.socket(fileno=spec["listener"])
own_group = os.getpgid(0) == os.getpid()
lock = os.path.join(spec["directory"], "lock")
files = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
has_lock = any(os.path.samefile(file, lock) for file in files if os.path.exists(file))
facts = [spec["workers"], spec["roles"], listener.getsockname()[0], own_group, has_lock]
json.dump(facts, open(os.path.join(notes, "facts"), "w"))
json.dump(spec["directory"], open(os.path.join(notes, "directory"), "w"))
end_all()
"""
    assert parent.run(work, workers=1) == 0
    assert json.loads((parent.notes / "facts").read_text()) == [1, ["api"], "127.0.0.1", True, True]
    assert not Path(json.loads((parent.notes / "directory").read_text())).exists(), "left nothing behind"


def test_a_first_worker_that_cannot_start_is_the_only_one_and_its_code_is_ours(parent: Parent) -> None:
    assert parent.run("sys.exit(3)") == 3
    assert (parent.starts(0), parent.starts(1)) == (1, 0)


@pytest.mark.parametrize(("work", "code"), [("sys.exit(75)", 1), ("sys.exit(0)", 1), ("os.kill(os.getpid(), 9)", 137)])
def test_an_end_before_ready_is_never_success(parent: Parent, work: str, code: int) -> None:
    assert parent.run(work) == code


def test_a_worker_that_ends_is_replaced(parent: Parent) -> None:
    work = """
if number == 1 and starts(1) == 1:
    work(lambda: starts(0)); os.kill(os.getpid(), 9)
work(lambda: starts(1) == 2)
end_all()
"""
    assert parent.run(work) == 0
    assert (parent.starts(0), parent.starts(1)) == (1, 2)


def test_a_worker_that_ends_at_once_again_and_again_ends_all_with_its_code(parent: Parent) -> None:
    assert parent.run("sys.exit(4) if number == 1 else work()") == 4
    assert (parent.starts(0), parent.starts(1)) == (1, SHORT_LIVES_MAX)


def test_one_that_was_ready_each_time_but_not_for_long_is_no_better(parent: Parent) -> None:
    assert parent.run("work(lambda: number == 1); os.kill(os.getpid(), 9)") == 137
    assert parent.starts(1) == SHORT_LIVES_MAX


def test_one_that_aws_does_not_answer_goes_on_trying(parent: Parent) -> None:
    tries = SHORT_LIVES_MAX + 3
    assert parent.run(f"if number == 1:\n  sys.exit(75) if starts(1) < {tries} else end_all()\nwork()") == 0
    assert (parent.starts(0), parent.starts(1)) == (1, tries)


def test_long_lives_in_between_are_a_new_beginning(parent: Parent) -> None:
    lives = 2 * SHORT_LIVES_MAX
    work = f"""
if number == 0:
    work()
if starts(1) == {lives}:
    end_all()
if starts(1) == {SHORT_LIVES_MAX - 1}:
    end = time.monotonic() + {LONG_LIFE_S + 0.2}
    work(lambda: time.monotonic() > end)
sys.exit(4)
"""
    assert parent.run(work, pace=QUICK._replace(short_life_s=LONG_LIFE_S)) == 4
    assert parent.starts(1) == 2 * SHORT_LIVES_MAX - 1


def test_a_worker_that_is_frozen_is_killed_and_replaced(parent: Parent) -> None:
    work = """
if number == 1 and starts(1) == 1:
    lifeline.send(b"r"); os.kill(os.getpid(), signal.SIGSTOP)
work(lambda: starts(1) == 2)
end_all()
"""
    assert parent.run(work, pace=QUICK._replace(hung_s=2.0)) == 0
    assert (parent.starts(0), parent.starts(1)) == (1, 2)


def test_one_that_does_not_drain_in_time_is_killed_and_that_is_no_success(tmp_path: Path) -> None:
    parent = Parent(tmp_path, {"drain_s": 0.2})
    work = """
if number == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN); lifeline.send(b"r")
    while True: time.sleep(0.05); lifeline.send(b".")
end_all()
"""
    assert parent.run(work, pace=QUICK._replace(overtime_s=0.3)) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(parent.pids(0)[0], 0)


def test_the_port_refuses_who_comes_after_all_have_closed_it(parent: Parent) -> None:
    work = """
listener = socket.socket(fileno=spec["listener"])
address = listener.getsockname()
def stop(*_):
    listener.close()
    with open(os.path.join(notes, "after"), "w") as file:
        file.write(str(socket.socket().connect_ex(address) != 0))
    sys.exit(0)
socket.create_connection(address).close()
lifeline.send(b"r")
signal.signal(signal.SIGTERM, stop)
os.kill(os.getppid(), signal.SIGTERM)
while True:
    time.sleep(1)
"""
    assert parent.run(work, workers=1) == 0
    assert (parent.notes / "after").read_text() == "True", "it does not wait for an answer that will never come"


def test_a_second_signal_ends_all_at_once(parent: Parent) -> None:
    work = """
signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getppid(), signal.SIGTERM))
if number == 0:
    with open(os.path.join(notes, "directory"), "w") as note:
        json.dump(spec["directory"], note)
lifeline.send(b"r")
while starts(0) + starts(1) < 2:
    time.sleep(0.02)
if number == 0:
    os.kill(os.getppid(), signal.SIGTERM)
while True:
    time.sleep(1)
"""
    command = (sys.executable, "-I", "-S", "-c", WORKER + work, str(parent.notes))
    program = f"""
from dynein.settings import load_settings
from dynein.server.workers.supervisor import Workers
Workers(load_settings({{"port": 0}}), ["api"], 2, {{}}, command={command!r}).run()
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=HANG_S, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, ""), ended.stderr
    for number in range(2):
        parent.until_gone(parent.pids(number)[0])
    assert not Path(json.loads((parent.notes / "directory").read_text())).exists()


def test_a_taken_port_is_said_before_any_worker_starts(parent: Parent) -> None:
    with listen("127.0.0.1", 0) as taken:
        busy = Parent(parent.notes, {"port": taken.getsockname()[1]})
        with pytest.raises(FatalError, match="is in use"):
            busy.run("work()")
    assert busy.starts(0) == 0


def test_the_port_is_free_once_all_have_ended(parent: Parent) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    again = Parent(parent.notes, {"port": port})
    assert again.run("end_all()", workers=1) == 0
    listen("127.0.0.1", port).close()
