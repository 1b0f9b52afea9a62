"""A container of `tests.deploy.image` while it runs, seen from outside."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import aiohttp

from tests.acceptance.fleet import HANG_S, until
from tests.deploy.image import Image
from tests.deploy.rendering import Manifest


class Ended(NamedTuple):
    """How a container ended."""

    code: int
    output: str


class Running:
    """One container."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, ops_url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.ops_url = ops_url
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def status(self, path: str) -> int | None:
        """The status of one GET of a probe's path; ``None`` when there is no response."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(HANG_S)) as http,
                http.get(self.ops_url + path) as answer,
            ):
                return answer.status
        return None

    async def passes(self, probe: Manifest) -> None:
        """Ask what the kubelet asks, until it has passed; how often the kubelet asks depends on its machine."""

        async def passed() -> bool:
            assert self.process.returncode is None, self.log
            return await self.status(probe["httpGet"]["path"]) == 200

        await until(passed, f"{probe} passes")

    async def terminate(self) -> int:
        """SIGTERM, then its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        """Its exit code, once it has ended. Fails if it hangs."""
        async with asyncio.timeout(HANG_S):
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
        ops_port = environment.get("DYNEIN_OPS_PORT", port)
        yield Running(process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{ops_port}", log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run(image: Image, command: list[str], environment: dict[str, str]) -> Ended:
    """Run a whole command in the image to its end."""
    process = await asyncio.create_subprocess_exec(
        *image.command(command),
        env=image.environment(environment), cwd="/",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(HANG_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, output.decode())
