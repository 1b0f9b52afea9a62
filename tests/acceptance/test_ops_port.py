"""Probes and metrics on a port of their own: what each port shows, to the end of the process and at its limits."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from tests.acceptance.fleet import QUICK, Fleet, Process, fleet, free_port, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPS = ("/healthz", "/readyz", "/metrics")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path_factory.mktemp("ops")) as made:
        made.environment |= QUICK
        yield made


async def start(running: Fleet, *roles: str, **settings: str) -> Process:
    return await running.start(*roles, DYNEIN_OPS_PORT=str(free_port()), **settings)


async def status(running: Fleet, url: str) -> int:
    async with running.http.get(url) as response:
        await response.read()
        return response.status


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_each_port_shows_only_its_own(running: Fleet, workers: str) -> None:
    process = await start(running, "api", DYNEIN_WORKERS=workers)
    for path in OPS:
        assert await status(running, process.ops_url + path) == 200
        assert await status(running, process.url + path) == 404
    for path in ("/docs", "/openapi.json"):
        assert await status(running, process.url + path) == 200
        assert await status(running, process.ops_url + path) == 404
    async with running.http.get(f"{process.url}/openapi.json") as response:
        assert not set(OPS) & (await response.json())["paths"].keys()
    for url, expected in ((process.url, 200), (process.ops_url, 404)):
        async with running.http.post(f"{url}/v1/tokens", json={"delay": 60}) as response:
            assert response.status == expected
    assert await process.terminate() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_without_the_api_there_is_no_port_for_it(running: Fleet, workers: str) -> None:
    process = await start(running, "dispatcher", DYNEIN_WORKERS=workers)
    with pytest.raises(aiohttp.ClientConnectionError):
        await running.http.get(process.url)
    for path in OPS:
        assert await status(running, process.ops_url + path) == 200
    assert await process.terminate() == 0


async def test_callers_of_the_api_cannot_take_the_probes_connections(running: Fleet) -> None:
    process = await start(running, "api", DYNEIN_HTTP_CONNECTIONS_MAX="4")
    async with contextlib.AsyncExitStack() as opened:

        async def full() -> list[str]:
            """One more in the middle of a request: those that are idle are closed for others."""
            _, writer = await asyncio.open_connection("127.0.0.1", process.port)
            opened.callback(writer.close)
            writer.write(b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\n")
            return process.logged("connections.full")

        await until(full, "the API has no connection left")
        for path in OPS:
            assert await status(running, process.ops_url + path) == 200
    assert await process.terminate() == 0


async def test_a_process_that_stops_says_so_to_the_end(running: Fleet) -> None:
    process = await start(running, "api", DYNEIN_LINGER_S="1")
    process.signal(signal.SIGTERM)

    async def not_ready() -> bool:
        return await status(running, f"{process.ops_url}/readyz") == 503

    await until(not_ready, "it is not ready any more")
    assert await status(running, f"{process.ops_url}/healthz") == 200

    async def api_closed() -> bool:
        try:
            await status(running, f"{process.url}/v1/jobs")
        except aiohttp.ClientConnectionError:
            return True
        return False

    await until(api_closed, "the API's port is closed")
    assert await process.ended() == 0


async def test_a_taken_port_is_reported_by_its_setting(running: Fleet) -> None:
    process = await start(running, "api")
    taken = process.ops_url.rsplit(":", 1)[1]
    result = await running.run("serve", "--port", str(free_port()), "--ops-port", taken)
    assert result.code == 1
    assert f"port {taken} on 127.0.0.1 is in use; choose another with --ops-port or DYNEIN_OPS_PORT" in result.err
    assert await process.terminate() == 0
