"""Over TLS, with a certificate of one's own authority."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from dynein.client import AsyncClient, Client, NotDone
from tests.unit.certificates import make_certificate

STATUS = {"token": "T", "due_at_ms": 5, "state": "scheduled", "policy": "SCHEDULED", "cancellable": True}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("trusted", [True, False])
async def test_a_certificate_is_checked_against_the_authority_given(
    kind: Any, *, trusted: bool, tmp_path: Path
) -> None:
    certificate = make_certificate(tmp_path / "certificate.pem")
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate)

    async def get(_: web.BaseRequest) -> web.Response:
        return web.json_response(STATUS)

    runner = web.ServerRunner(web.Server(get))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=serving).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    context = ssl.create_default_context(cafile=str(certificate)) if trusted else None
    client = kind(url, ssl_context=context, patience_s=0)

    async def state() -> str:
        found = await client.get("T") if kind is AsyncClient else await asyncio.to_thread(client.get, "T")
        return str(found.state)

    try:
        if trusted:
            assert await state() == "scheduled"
        else:
            with pytest.raises(NotDone, match="certificate"):
                await state()
    finally:
        closing = client.close()
        if closing is not None:
            await closing
        await runner.cleanup()
