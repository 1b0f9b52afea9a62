"""Over TLS, with a certificate of one's own authority."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from dynein.client import AsyncClient, Client, NotDone
from tests.unit.certificates import make_certificate
from tests.unit.client.serving import serving


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("trusted", [True, False])
async def test_a_certificate_is_checked_against_the_authority_given(
    kind: Any, *, trusted: bool, tmp_path: Path
) -> None:
    certificate = make_certificate(tmp_path / "certificate.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    context = ssl.create_default_context(cafile=str(certificate)) if trusted else None
    async with serving(ssl_context=tls) as url:
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
