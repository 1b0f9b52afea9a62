"""Who is served when more is asked than can be done. Pure.

Capacity is not configured: it is what was admitted while the process kept up. While it is overloaded, less is admitted
from one window to the next; while it is not, more (as TCP finds what a path can carry: Jacobson, 1988). What may be
admitted is shared max-min fairly among the callers: who asks for less than a fair share gets all of it, and what they
leave is shared by the rest (Bertsekas and Gallager, Data Networks, 6.5). So one caller's flood is refused, and the
others hardly notice it.
"""

from __future__ import annotations

from collections.abc import Iterable

WINDOW_S = 0.1
"""How often `FairShare.end_window` is to be called."""
CALLERS_MAX = 10_000
"""Callers told apart in one window; the rest of them are one."""
CAPACITY_MIN = 20.0
"""Requests a window that are admitted however slow everything is: without them nothing would show that it is over."""
_DECREASE = 0.9
_INCREASE = 1.04
_CROWDED = 0.5
_CALM_WINDOWS = 20
"""After so many windows in which less was asked than allowed, there is no limit any more."""
_OTHERS = ""


class FairShare:
    """Decides for one process. Costs are in requests: a large one may cost more than 1."""

    def __init__(self) -> None:
        self.capacity: float | None = None
        """What may be admitted in one window; ``None``: there is no limit, since the process keeps up."""
        self.share = float("inf")
        """What one caller may have of it."""
        self._asked: dict[str, float] = {}
        self._admitted = 0.0
        self._calm = 0

    def admit(self, caller: str, cost: float, *, crowded: bool = False) -> bool:
        """May this request be served? Either way it counts as asked for.

        ``crowded``: requests that were admitted before are waiting. Then whoever asks for most gets half, until they
        are done.
        """
        asked = self._asked.get(caller)
        if asked is None:
            if len(self._asked) >= CALLERS_MAX:
                caller = _OTHERS
            asked = self._asked.get(caller, 0.0)
        self._asked[caller] = asked + cost
        # By what was asked before it: a caller's first request of a window is always served.
        if asked >= (self.share * _CROWDED if crowded else self.share):
            return False
        self._admitted += cost
        return True

    def end_window(self, *, overloaded: bool, draining: bool = False, length_s: float = WINDOW_S) -> None:
        """Close a window. ``length_s``: how long it has been, for a busy process ends it late.

        ``draining``: what was admitted too much is being worked off already. To admit still less would leave the
        process idle in the end.
        """
        asked = sum(self._asked.values())
        if overloaded and (self.capacity is None or not draining):
            before = self._admitted * WINDOW_S / length_s if self.capacity is None else self.capacity
            self.capacity = max(CAPACITY_MIN, before * _DECREASE)
            self._calm = 0
        elif not overloaded and self.capacity is not None:
            self._calm = self._calm + 1 if asked < self.capacity else 0
            self.capacity = None if self._calm >= _CALM_WINDOWS else self.capacity * _INCREASE + 1
        self.share = float("inf") if self.capacity is None else fair_share(self._asked.values(), self.capacity)
        self._asked = {}
        self._admitted = 0.0


def fair_share(asked: Iterable[float], capacity: float) -> float:
    """The largest share such that all callers, each with what it asks for or the share, whichever is less, fit in.

    Infinite where all that is asked for fits.
    """
    left = capacity
    demands = sorted(asked)
    for place, demand in enumerate(demands):
        share = left / (len(demands) - place)
        if demand > share:
            return share
        left -= demand
    return float("inf")
