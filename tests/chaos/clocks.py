"""Wrong clocks of single processes, by libfaketime: the wall clock, which alone may be so (`dynein.runtime.clock`).

``make engines`` unpacks it from Debian's package. A process started with `environment` reads its offset from a file, so
that its clock can be set while it runs.
"""

from __future__ import annotations

from pathlib import Path

from tests.engines import INSTALLED

HOW_TO_GET_IT = "libfaketime is not installed: `make engines` (it is taken from Debian's package)"
NOTICED_S = 1
"""How old the offset may be that a process goes by: the least that libfaketime knows."""


def library() -> Path | None:
    """libfaketime for programs with threads, if it is here."""
    found = sorted((INSTALLED / "libfaketime").glob("usr/lib/*/faketime/libfaketimeMT.so.1"))
    return found[0] if found else None


class Clock:
    """The wall clock of one process."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)

    def set(self, ahead_ms: int) -> None:
        """Set it forward by so much from the machine's, or back; within `NOTICED_S`, the process goes by it."""
        replacement = self._file.with_suffix(".new")
        replacement.write_text(f"{ahead_ms / 1000:+.3f}\n")
        replacement.rename(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """For a process that goes by this clock."""
        path = library()
        assert path is not None, HOW_TO_GET_IT
        return {
            "LD_PRELOAD": str(path),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": str(NOTICED_S),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
