"""How many connections each of several worker processes has, where all of them see it."""

from __future__ import annotations

import mmap
from pathlib import Path

_NOT_ACCEPTING = -1


class Connections:
    """How many connections each worker has, in memory that all of them see: a file of one 32-bit number a worker.

    Each number has one writer at a time, is written whole, and only hints at who should accept: no lock.
    """

    def __init__(self, file: Path, workers: int) -> None:
        with file.open("a+b") as opened:
            opened.truncate(4 * workers)
            self._map = mmap.mmap(opened.fileno(), 4 * workers)
        self._numbers = memoryview(self._map).cast("i")

    def publish(self, worker: int, connections: int) -> None:
        """``worker`` accepts, and has so many."""
        self._numbers[worker] = connections

    def leave(self, worker: int) -> None:
        """``worker`` does not accept: nobody holds back for it."""
        self._numbers[worker] = _NOT_ACCEPTING

    def least(self) -> int:
        """The least that anyone has who accepts; 0 when nobody does."""
        return min((number for number in self._numbers if number != _NOT_ACCEPTING), default=0)
