from __future__ import annotations

import asyncio
import sys

import pytest

from dynein.runtime.memory import AFTER_S, EVERY_BYTES, Trimmer, _malloc_trim


async def test_memory_is_given_back_for_each_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    trimmer = Trimmer(calls.append)
    delays: list[float] = []

    def at_once(delay: float, callback: object, *arguments: object) -> None:
        delays.append(delay)
        assert callable(callback)
        callback(*arguments)

    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", at_once)
    trimmer.released(EVERY_BYTES - 1)
    assert not calls
    trimmer.released(1)
    assert calls == [0]
    assert delays == [AFTER_S]
    for _ in range(4):
        trimmer.released(EVERY_BYTES // 2)
    assert len(calls) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="a call of glibc")
def test_the_call_exists_where_it_is_needed() -> None:
    trim = _malloc_trim()
    assert trim is not None, "on musl this test has nothing to say"
    trim(0)
