"""An embedded SQS and DynamoDB, as a child process: for ``dynein dev`` and for tests. Nothing else depends on it.

Two engines: *roto* keeps its data in a directory, so that a restart keeps everything; *moto* keeps nothing, and serves
where roto has no binary.

The child is in a process group of its own, since a Ctrl-C at the terminal goes to the whole foreground group and must
not end the engine before the service has drained. We have to end it ourselves then: on leaving the context, at exit
of the interpreter, and on Linux through the kernel if we are killed.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import errno
import fcntl
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self

from dynein.errors import FatalError
from dynein.runtime.clock import Clock, SystemClock
from dynein.server.listener import Address, address_of, in_url

REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "dynein", "AWS_SECRET_ACCESS_KEY": "dynein"}
"""Neither engine checks them; the SDK requires some."""
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
TAKEOVER_TIMEOUT_S = 3.0
"""How long the engine of a killed ``dynein dev`` may take to unlock its data directory."""
_POLL_S = 0.02
_LOG_LINES = 5

EngineName = Literal["roto", "moto", "auto"]

# Runs first, on Linux: asks the kernel for SIGTERM at its parent's death, then becomes the engine. In a process of
# its own, because code between fork and exec (`preexec_fn`) may deadlock when the parent has threads.
_TIE_TO_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent died first")
os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedEngine:
    """Runs an engine while its context is open.

    ``engine``: ``auto`` takes roto if it is installed, else moto. ``port`` 0 takes a free one. ``data_dir`` is created
    if needed; it holds the engine's log too. Entering raises `FatalError` when the port or the directory is in use,
    when the engine is not installed, or when it does not start.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        engine: str = "auto",
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self._data_dir = data_dir
        self._wanted = engine
        self._address = address_of(host)
        self._port = port
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._child: subprocess.Popen[bytes] | None = None
        self._lock: IO[bytes] | None = None
        self.name = ""
        """``roto`` or ``moto``, once entered."""

    @property
    def port(self) -> int:
        """The port in use; the one asked for until entered."""
        return self._port

    @property
    def endpoint_url(self) -> str:
        """Where both services are reached."""
        return self._address.url(self._port)

    @property
    def keeps_data(self) -> bool:
        """Whether what is stored survives a restart."""
        return self.name == "roto"

    @property
    def description(self) -> str:
        """One line of text: engine, address, and where the data is kept."""
        data = f"data in {self._data_dir}" if self.keeps_data else "nothing is kept after a restart"
        package = {"roto": "roto-aws"}.get(self.name, self.name)
        try:
            named = f"{self.name} {version(package)}"
        except PackageNotFoundError:
            named = self.name
        return f"embedded SQS and DynamoDB: {named} at {self.endpoint_url}, {data}"

    async def __aenter__(self) -> Self:
        self.name, command = _command(self._wanted)
        make_directory(self._data_dir)
        try:
            self._lock = await self._take_data_dir()
            self._port = _free_port(self._address, self._port)
            self._start(command)
            await self._until_it_responds()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    def kill(self) -> None:
        """End the engine at once, as a crash would (SIGKILL); leaving the context afterwards is fine."""
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait()

    # ----------------------------------------------------------------------------------------------------------------

    @property
    def _log_file(self) -> Path:
        return self._data_dir / "engine.log"

    async def _take_data_dir(self) -> IO[bytes]:
        """An exclusive lock that the child inherits: it lasts until both processes have ended."""
        lock = (self._data_dir / "lock").open("ab")
        deadline = self._clock.monotonic() + TAKEOVER_TIMEOUT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if self._clock.monotonic() >= deadline:
                    lock.close()
                    raise FatalError(
                        f"{self._data_dir} is in use by another engine; stop it, or choose another with --data"
                    ) from None
                await self._clock.sleep(_POLL_S)
            else:
                return lock

    def _start(self, command: Sequence[str]) -> None:
        assert self._lock is not None
        full = [*command, *_options(self.name, self._address.ip, self._port, self._data_dir)]
        if sys.platform == "linux":
            full = [sys.executable, "-I", "-S", "-c", _TIE_TO_PARENT, str(os.getpid()), *full]
        with self._log_file.open("wb") as log:
            self._child = subprocess.Popen(  # noqa: S603 - our own command line
                full,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                pass_fds=(self._lock.fileno(),),
            )
        atexit.register(self.kill)

    async def _until_it_responds(self) -> None:
        assert self._child is not None
        deadline = self._clock.monotonic() + START_TIMEOUT_S
        while self._clock.monotonic() < deadline:
            status = self._child.poll()
            if status is not None:
                raise FatalError(f"{self.name} ended at once (exit status {status}). {self._log_tail()}")
            if await _responds(self._address.reached_at, self._port):
                return
            await self._clock.sleep(_POLL_S)
        raise FatalError(f"{self.name} did not respond within {START_TIMEOUT_S:.0f} s. {self._log_tail()}")

    def _log_tail(self) -> str:
        lines = self._log_file.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return "\n".join([f"From {self._log_file}:", *lines])

    async def _stop(self) -> None:
        child = self._child
        try:
            if child is not None and child.poll() is None:
                child.send_signal(signal.SIGTERM)
                deadline = self._clock.monotonic() + STOP_TIMEOUT_S
                while child.poll() is None and self._clock.monotonic() < deadline:
                    await self._clock.sleep(_POLL_S)
        finally:
            self.kill()  # if it has not ended, or our own wait was cancelled
            atexit.unregister(self.kill)
            self._child = None
            if self._lock is not None:
                self._lock.close()
                self._lock = None


def make_directory(path: Path) -> None:
    """Create it if it is not there. Raises `FatalError` if that fails, or nothing can be written there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FatalError(
            f"the data directory {path} cannot be made ({error.strerror}); choose another with --data"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise FatalError(f"the data directory {path} cannot be written to; choose another with --data")


def _command(wanted: str) -> tuple[str, list[str]]:
    """The engine to run and how to call it."""
    if wanted not in {"auto", "roto", "moto"}:
        raise FatalError(f"no engine is called {wanted!r}; choose roto, moto or auto with --engine")
    if wanted in {"auto", "roto"}:
        beside_us = Path(sys.executable).with_name("roto-server")
        roto = str(beside_us) if os.access(beside_us, os.X_OK) else shutil.which("roto-server")
        if roto is not None:
            return "roto", [roto]
        if wanted == "roto":
            raise FatalError("roto-server is not installed: pip install 'dynein[engine]', or use --engine moto")
    if importlib.util.find_spec("moto") is None:
        raise FatalError("no embedded engine is installed: pip install 'dynein[engine]'")
    return "moto", [sys.executable, "-m", "moto.server"]


def _options(name: str, host: str, port: int, data_dir: Path) -> list[str]:
    if name == "roto":
        return ["--host", in_url(host), "--port", str(port), "--data-dir", str(data_dir / "roto")]
    return ["-H", host, "-p", str(port)]


def _free_port(address: Address, port: int) -> int:
    """``port`` if it is free, any free one for 0. Raises `FatalError`."""
    with socket.socket(address.family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.ip, port))
            probe.listen(1)  # on Linux, two may bind with SO_REUSEADDR, but only one may listen
        except OSError as error:
            where = f"port {port} on {address.ip}"
            if error.errno == errno.EADDRINUSE:
                raise FatalError(f"{where} is in use; choose another with --engine-port") from error
            raise FatalError(
                f"{where} cannot be listened on ({error.strerror}); see --host and --engine-port"
            ) from error
        return int(probe.getsockname()[1])


async def _responds(host: str, port: int) -> bool:
    """Whether an HTTP server is there."""
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET / HTTP/1.1\r\nHost: {in_url(host)}:{port}\r\nConnection: close\r\n\r\n".encode())
                return (await reader.readline()).startswith(b"HTTP/")
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
