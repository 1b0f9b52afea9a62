"""A container of `tests.deploy.image` while it runs, seen from outside."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import aiohttp

from tests.acceptance.fleet import monotonic, pause
from tests.deploy.image import Image
from tests.deploy.rendering import Manifest


class Ended(NamedTuple):
    """How a container ended."""

    code: int
    output: str


class Running:
    """One container."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def status(self, path: str, timeout_s: float) -> int | None:
        """The status of one GET; ``None`` when there is no answer."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(timeout_s)) as http,
                http.get(self.url + path) as answer,
            ):
                return answer.status
        return None

    async def passes(self, probe: Manifest) -> None:
        """Ask as the kubelet does; fail when it would give up."""
        for _ in range(probe["failureThreshold"]):
            asked_at = monotonic()
            if await self.status(probe["httpGet"]["path"], probe["timeoutSeconds"]) == 200:
                return
            assert self.process.returncode is None, self.log
            await pause(max(0.0, probe["periodSeconds"] - (monotonic() - asked_at)))
        raise AssertionError(f"{probe} failed: {self.log}")

    async def terminate(self, within_s: float) -> int:
        """SIGTERM, then its exit code."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(within_s):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def container_of(
    image: Image, arguments: list[str], environment: dict[str, str], log: Path, port: int
) -> AsyncIterator[Running]:
    """Start the image with these arguments; killed on leaving, if it still runs."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *image.command([*image.stage.entrypoint, *arguments]),
            env=image.environment(environment), cwd="/",
            stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield Running(process, f"http://127.0.0.1:{port}", log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run(image: Image, command: list[str], environment: dict[str, str], within_s: float = 60.0) -> Ended:
    """Run a whole command in the image to its end."""
    process = await asyncio.create_subprocess_exec(
        *image.command(command),
        env=image.environment(environment), cwd="/",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(within_s):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, output.decode())
