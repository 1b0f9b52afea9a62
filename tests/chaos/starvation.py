"""What a busy machine does to the fleet: a fault that no test makes, measured and not guessed.

Linux says of each thread how long it was ready to run and had no processor (``/proc/PID/task/TID/schedstat``).
Elsewhere only what this process itself misses is seen, and held to be so for all.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.acceptance.fleet import now_ms, pause
from tests.chaos.excuses import STARVED, Fault

LOOK_S = 0.25
SHARE = 0.5
"""Of the time since the last look, without a processor: with less a process gets on, if slowly."""
STALL_MS = 400
"""A stall of this process of less than this no call notices."""
NEEDED_BY_ALL = frozenset({"engine", "proxies"})


def waited_ms(pid: int) -> dict[str, float]:
    """How long each thread of a process has waited for a processor since it began; nothing if that is not to be had."""
    waited = {}
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, IndexError):  # it has ended
            waited[path.parent.name] = int(path.read_text().split()[1]) / 1e6
    return waited


class Starvation:
    """Who got no processor, and when. ``pids``: of the processes to watch, by name; `NEEDED_BY_ALL` among them."""

    def __init__(self, pids: Callable[[], Mapping[str, int]]) -> None:
        self._pids = pids
        self._spans: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)

    @property
    def faults(self) -> list[Fault]:
        """What was seen so far. Nothing is lost by waiting, and nothing repeated, but for what others get meanwhile."""
        return [
            Fault(STARVED, None if name in NEEDED_BY_ALL else frozenset({name}), *span, repeats=False, lost=False)
            for name, spans in self._spans.items()
            for span in spans
        ]

    async def watch(self) -> None:
        """For ever."""
        waited: dict[tuple[int, str], float] = {}
        while True:
            from_ms = now_ms()
            await pause(LOOK_S)
            until_ms = now_ms()
            before, waited = waited, {}
            for name, pid in self._pids().items():
                threads = {(pid, thread): ms for thread, ms in waited_ms(pid).items()}
                starved_ms = max((ms - before.get(thread, ms) for thread, ms in threads.items()), default=0.0)
                waited |= threads
                if starved_ms >= SHARE * (until_ms - from_ms):
                    self._note(name, from_ms, until_ms)
            if until_ms - from_ms >= LOOK_S * 1000 + STALL_MS:
                self._note("proxies", from_ms, until_ms)

    def _note(self, name: str, from_ms: int, until_ms: int) -> None:
        """As one with the last, where nothing lies between them."""
        spans = self._spans[name]
        if spans and from_ms - spans[-1][1] <= LOOK_S * 1000:
            from_ms = spans.pop()[0]
        spans.append((from_ms, until_ms))
