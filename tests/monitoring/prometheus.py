"""Debian's Prometheus, run for real: its checker, and a server that scrapes what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import yaml  # type: ignore[import-untyped]

from tests.acceptance.fleet import HANG_S, free_port, until
from tests.deploy.rendering import ROOT, missing

UNPACKED = ROOT / ".engines" / "prometheus" / "usr" / "bin"
"""Where ``make engines`` puts it; one that is installed is taken first."""


def program(name: str) -> str:
    """The path of ``prometheus`` or ``promtool``; skips the test where there is none."""
    found = shutil.which(name) or shutil.which(name, path=str(UNPACKED))
    if found is None:
        missing(name, "`make engines` takes it from Debian's package, with apt-get; or install it yourself")
    return found


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the checker to its end."""
    command = [program("promtool"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, check=False)


class Prometheus:
    """A server that runs."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self._http = http

    async def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer of the HTTP API. Fails with Prometheus's own words when it says no."""
        async with self._http.get(f"{self.url}/api/v1/{path}", params=parameters) as answer:
            said = await answer.json()
        assert said["status"] == "success", f"{parameters}: {said}"
        return said["data"]

    async def instant(self, expr: str) -> list[dict[str, Any]]:
        """The series of a query now."""
        found: list[dict[str, Any]] = (await self.get("query", query=expr))["result"]
        return found

    async def course(self, expr: str, start: float, end: float) -> list[dict[str, Any]]:
        """The series of a query over time, second by second."""
        data = await self.get("query_range", query=expr, start=f"{start:.3f}", end=f"{end:.3f}", step="1")
        found: list[dict[str, Any]] = data["result"]
        return found

    async def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        alerts = (await self.get("alerts"))["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    async def rules(self) -> list[dict[str, Any]]:
        """All rules, with how their last evaluation went."""
        return [rule for group in (await self.get("rules"))["groups"] for rule in group["rules"]]


@contextlib.asynccontextmanager
async def prometheus(directory: Path, config: Mapping[str, Any]) -> AsyncIterator[Prometheus]:
    """A server with this configuration, ready; ended on leaving."""
    file = directory / "prometheus.yml"
    file.write_text(yaml.safe_dump(dict(config)))
    port = free_port()
    log = directory / "prometheus.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            program("prometheus"), f"--config.file={file}", f"--storage.tsdb.path={directory / 'series'}",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
            stdout=output, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as http:
            server = Prometheus(f"http://127.0.0.1:{port}", http)

            async def ready() -> bool:
                assert process.returncode is None, log.read_text()
                with contextlib.suppress(aiohttp.ClientError):
                    async with http.get(f"{server.url}/-/ready") as answer:
                        return answer.status == 200
                return False

            await until(ready, "Prometheus is ready")
            yield server
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
