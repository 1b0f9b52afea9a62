"""SQS and DynamoDB engines that run on this machine, for the contract and acceptance suites.

========= ================ =============================================================== ==========================
engine    serves           runs as                                                         installed by
========= ================ =============================================================== ==========================
roto      SQS, DynamoDB    a child process with a directory: the engine of ``dynein dev``  ``make install``
moto      SQS, DynamoDB    a thread of this process                                        ``make install``
ministack SQS, DynamoDB    a child process, in memory                                      ``make engines``
elasticmq SQS              a child process (Java), in memory                               ``make engines``
fauxqs    SQS              a child process (Node), in memory                               ``make engines``
dynalite  DynamoDB         a child process (Node), in memory                               ``make engines``
========= ================ =============================================================== ==========================

What each does otherwise than AWS: ``docs/reference/engines.md``, and beside the tests that meet it. Versions are pinned
in ``package-lock.json``, ``pom.xml`` and ``ministack.txt`` beside this file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
INSTALLED = HERE.parents[1] / ".engines"
"""Where ``make engines`` puts what pip does not install into the project's own environment."""
SQS_ENGINES = ("roto", "moto", "elasticmq", "fauxqs", "ministack")
DYNAMODB_ENGINES = ("roto", "moto", "dynalite", "ministack")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
"""Engines take any; the SDK insists on some."""
REGION = "us-east-1"

_START_PATIENCE_S = 240.0
_STOP_PATIENCE_S = 5.0


class NotInstalled(Exception):
    """The engine cannot run here; the message says how to change that."""


class _Command(NamedTuple):
    arguments: list[str]
    environment: Mapping[str, str] = {}


def running(engine: str, directory: Path) -> AbstractContextManager[str]:
    """Run ``engine`` on a port of its own; the URL, once it answers. ``directory`` is for its data and its log.

    Raises `NotInstalled` on entering.
    """
    if engine == "moto":
        from tests.engines import moto_server  # noqa: PLC0415 - importing moto takes longer than starting the rest

        return moto_server.running()
    return _child(engine, directory)


@contextlib.contextmanager
def _child(engine: str, directory: Path) -> Iterator[str]:
    port = _free_port()
    command = _COMMANDS[engine](port, directory)
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / f"{engine}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command.arguments,
            env={**os.environ, **CREDENTIALS, "AWS_REGION": REGION, **command.environment},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_it_listens(engine, port, process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(_STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_listens(engine: str, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + _START_PATIENCE_S  # noqa: TID251 - a real process
    while process.poll() is None and time.monotonic() < give_up_at:  # noqa: TID251 - a real process
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)  # noqa: TID251 - polling a real process from outside
    raise AssertionError(f"{engine} does not listen on {port}: {log.read_text(errors='replace')}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_complete(directory: str) -> bool:
    """Whether ``make engines`` came to its end there."""
    return (INSTALLED / directory / ".installed").exists()


# --- how each is called ---------------------------------------------------------------------------------------------


def _roto(port: int, directory: Path) -> _Command:
    # Beside the interpreter first: a virtual environment need not be activated.
    program = shutil.which("roto-server", path=str(Path(sys.executable).parent)) or shutil.which("roto-server")
    if program is None:
        raise NotInstalled("roto-aws has no wheel for this platform")
    return _Command([program, "--port", str(port), "--data-dir", str(directory / "data")])


def _ministack(port: int, directory: Path) -> _Command:
    program = INSTALLED / "ministack" / "bin" / "ministack"
    if not _is_complete("ministack"):
        raise NotInstalled("ministack is not installed: `make engines`")
    environment = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": "sqs,dynamodb",
        "TMPDIR": str(directory),  # for its process id, and it looks for nothing of an earlier run there
    }
    return _Command([str(program)], environment)


def _elasticmq(port: int, directory: Path) -> _Command:
    del directory
    jars = INSTALLED / "elasticmq"
    java = shutil.which("java")
    if java is None or not _is_complete("elasticmq"):
        raise NotInstalled("ElasticMQ is not installed: install Java and Maven, then `make engines`")
    settings = {
        "node-address.host": "127.0.0.1",
        "node-address.port": port,
        "rest-sqs.bind-hostname": "127.0.0.1",
        "rest-sqs.bind-port": port,
        "aws.region": REGION,
    }
    quick_start = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m"]
    definitions = [f"-D{name}={value}" for name, value in settings.items()]
    return _Command([java, *quick_start, *definitions, "-cp", f"{jars}/*", "org.elasticmq.server.Main"])


def _node(engine: str, port: int) -> _Command:
    modules = INSTALLED / "npm" / "node_modules"
    node = shutil.which("node")
    if node is None or not _is_complete("npm"):
        raise NotInstalled(f"{engine} is not installed: install Node 20 or newer and npm, then `make engines`")
    return _Command([node, str(HERE / f"{engine}.mjs"), str(modules), str(port)])


_COMMANDS: Mapping[str, Callable[[int, Path], _Command]] = {
    "roto": _roto,
    "ministack": _ministack,
    "elasticmq": _elasticmq,
    "fauxqs": lambda port, _: _node("fauxqs", port),
    "dynalite": lambda port, _: _node("dynalite", port),
}
