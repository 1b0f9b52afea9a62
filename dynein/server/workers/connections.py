"""The number of connections of each worker process, in memory that all workers share."""

from __future__ import annotations

import mmap
from pathlib import Path

_NOT_ACCEPTING = -1


class Connections:
    """The number of connections of each worker, in shared memory: a file of one 32-bit number a worker.

    No lock is needed: each number has one writer at a time, is written atomically, and is only a hint which worker
    should accept.
    """

    def __init__(self, file: Path, workers: int) -> None:
        with file.open("a+b") as opened:
            opened.truncate(4 * workers)
            self._map = mmap.mmap(opened.fileno(), 4 * workers)
        self._numbers = memoryview(self._map).cast("i")

    def publish(self, worker: int, connections: int) -> None:
        """``worker`` accepts connections, and has this many."""
        self._numbers[worker] = connections

    def leave(self, worker: int) -> None:
        """``worker`` does not accept connections: the others do not wait for it."""
        self._numbers[worker] = _NOT_ACCEPTING

    def least(self) -> int:
        """The least number of any worker that accepts; 0 when none does."""
        return min((number for number in self._numbers if number != _NOT_ACCEPTING), default=0)
