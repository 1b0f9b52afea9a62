"""Gives memory that is free back to the operating system.

glibc keeps what was freed in the middle of its heap for later use: after a dozen large requests at once a process kept
half a gigabyte for ever. `malloc_trim` gives it back; it takes about 0.3 ms for each MiB, so it is called now and then,
before there is much. Other C libraries do so by themselves, or have no such call.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from typing import Any

EVERY_BYTES = 16 * 1024 * 1024
AFTER_S = 0.5
"""By then, whatever was made of what was released is gone too."""


def _malloc_trim() -> Callable[[int], Any] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None


class Trimmer:
    """Call `released` with how many bytes are not needed any more."""

    def __init__(self, trim: Callable[[int], Any] | None = None) -> None:
        self._trim = trim or _malloc_trim()
        self._released = 0

    def released(self, size: int) -> None:
        """At each `EVERY_BYTES` of them, memory is given back `AFTER_S` later."""
        self._released += size
        if self._released >= EVERY_BYTES and self._trim is not None:
            self._released = 0
            asyncio.get_running_loop().call_later(AFTER_S, self._trim, 0)
