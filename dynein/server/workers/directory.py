"""The directory that worker processes share: metrics and connection counts, a few hundred kilobytes of files.

It is in memory (``/dev/shm``) where possible, which works even in a container with a read-only root. The parent removes
it, or else the last worker. If all of them were killed, the next parent does: a lock that parent and workers hold shows
that a directory is in use.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

from dynein.errors import FatalError

IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of our own is made in it
_PREFIX = "dynein-workers-"
_LOCK = "lock"


class WorkersDirectory:
    """A new, empty directory at ``path``. Raises `FatalError` when no location is writable.

    ``lock``, a file descriptor, is inherited by each worker.
    """

    def __init__(self, *, in_memory: Path = IN_MEMORY) -> None:
        for place in (in_memory, None):
            try:
                unlocked = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=place))
                break
            except OSError:
                continue
        else:
            raise FatalError(
                f"several workers share their metrics in files, and neither {in_memory} nor a temporary directory can "
                "be written; set TMPDIR to one that can, or use --workers 1"
            )
        self._lock = _locked(unlocked)
        assert self._lock is not None, "no other process knows this directory yet"
        # Renamed only now, so that under the name that others search for, it is always locked.
        self.path = unlocked.rename(unlocked.with_name(unlocked.name.removeprefix(".")))
        for other in self.path.parent.glob(f"{_PREFIX}*"):
            _remove_if_left_behind(other)

    @property
    def lock(self) -> int:
        """File descriptor: as long as any process has it open, the directory is in use."""
        assert self._lock is not None
        return self._lock.fileno()

    def remove(self) -> None:
        """Delete the directory with its files."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.forget()

    def forget(self) -> None:
        """Leave its removal to the other holders of the lock, or to the next parent."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _locked(directory: Path) -> IO[bytes] | None:
    """Its lock, or None if another process holds it."""
    lock = (directory / _LOCK).open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock


def _remove_if_left_behind(directory: Path) -> None:
    with contextlib.suppress(OSError):  # another user's, or removed by now
        if directory.is_symlink() or directory.stat().st_uid != os.getuid():
            return
        lock = _locked(directory)
        if lock is not None:
            shutil.rmtree(directory, ignore_errors=True)
            lock.close()
