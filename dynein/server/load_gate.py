"""Decides, from the head of a request alone, whether there is room for it: a refusal must cost next to nothing.

Two bounds: a rate for each caller, if the settings give one (429), and a fair share of what this process can do while
it is overloaded (503). A caller is known by its address. Probes and metrics are always served.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from dynein.api.fair_share import WINDOW_S, FairShare
from dynein.core.loopback import is_address
from dynein.observability.events.api import REQUESTS_SHED
from dynein.observability.telemetry import Telemetry
from dynein.runtime.rate_limits import RateLimits
from dynein.server.http_protocol import Refusal, problem_refusal
from dynein.settings import Settings

COST_BYTES = 4_096
"""A body costs one request more for each of these."""
_GATED = b"/v1/"
_LOOKS_A_WINDOW = 4
IN_PROGRESS_MIN = 80
"""So many requests under way keep a process busy that does nothing else; they are no overload."""
CROWD = 120
"""So many wait for each other, if the process is busy."""
BUSY = 0.93
"""The event loop's share of a core from which on it has no time left."""
LATE_S = 0.05
"""Nor has it if its timers are always so late: other programs may take the core."""
_IDLE_WINDOWS = 50
"""Then nobody watches any more, until the next request."""

Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]


class LoadGate:
    """One process's. `admit` is asked on the thread of the event loop; ``cpu_s``: CPU seconds of that thread."""

    def __init__(
        self, settings: Settings, telemetry: Telemetry, *, cpu_s: Callable[[], float] = time.thread_time
    ) -> None:
        self._trusted = tuple(map(ipaddress.ip_network, settings.trusted_proxy_networks))
        self._rates = RateLimits(settings.caller_rate_per_s, settings.caller_burst_s)
        self._shares = FairShare()
        self._overload = Overload(self._shares, cpu_s)
        self._shed_overload = telemetry.shed.labels("overload")
        self._shed_caller = telemetry.shed.labels("caller")
        self._overloaded = _refusal("overloaded", "More is asked of this process than it can do; not accepted.", 1)

    def admit(
        self, path: bytes, peer: str, headers: Iterable[tuple[bytes, bytes]], body_bytes: int, in_progress: int
    ) -> Refusal | None:
        """``None`` if the request is to be served.

        ``peer``: address of the other end of the connection; ``in_progress``: requests that are being served.
        """
        if not path.startswith(_GATED):
            return None
        caller = caller_address(peer, headers, self._trusted) if self._trusted else peer
        cost = 1 + body_bytes / COST_BYTES
        self._overload.note(in_progress)
        wait_s = self._rates.take(caller, cost, asyncio.get_running_loop().time())
        if wait_s > 0:
            self._shed_caller.inc()
            REQUESTS_SHED.log(reason="caller", caller=caller)
            limit = f"{self._rates.rate_per_s:g} requests a second (setting caller_rate_per_s)"
            return _refusal("rate-limited", f"{caller} sends more than {limit}.", math.ceil(wait_s))
        if not self._shares.admit(caller, cost, crowded=in_progress > CROWD):
            self._shed_overload.inc()
            REQUESTS_SHED.log(reason="overload", caller=caller)
            return self._overloaded
        return None


class Overload:
    """Is there more to do than can be done? ``shares`` is told about every `WINDOW_S`.

    A process is overloaded if its event loop has no time left and, all the same, more requests are under way all the
    time than keep it busy: a queue that stands (CoDel: Nichols and Jacobson, 2012). Slow calls to AWS make requests
    wait too, but leave the event loop idle; a collection of garbage or a large batch takes it for a moment only.
    Looked at only while requests come, and a little longer: an idle process sets no timers for it.
    """

    def __init__(self, shares: FairShare, cpu_s: Callable[[], float]) -> None:
        self._shares = shares
        self._cpu_s = cpu_s
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = self._window_began = self._cpu_began = 0.0
        self._least_late_s = math.inf
        self._looks = 0
        self._in_progress: int | None = None
        """The least of this window."""
        self._in_progress_before = 0
        self._idle_windows = 0

    @property
    def is_watching(self) -> bool:
        """Is a timer set?"""
        return self._timer is not None

    def note(self, in_progress: int) -> None:
        """A request has come, while so many are being served: go on watching, or begin."""
        if self._in_progress is None or in_progress < self._in_progress:
            self._in_progress = in_progress
        if self._timer is None:
            self._begin_window(asyncio.get_running_loop().time())
            self._schedule(self._window_began)

    def _begin_window(self, now: float) -> None:
        self._window_began = now
        self._cpu_began = self._cpu_s()
        self._least_late_s, self._looks = math.inf, 0

    def _schedule(self, now: float) -> None:
        self._timer_due = now + WINDOW_S / _LOOKS_A_WINDOW
        self._timer = asyncio.get_running_loop().call_at(self._timer_due, self._look)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        self._looks += 1
        self._least_late_s = min(self._least_late_s, now - self._timer_due)
        length_s = now - self._window_began
        # One slow turn of the event loop must not be all that a window has seen.
        if length_s >= WINDOW_S and self._looks > 1:
            busy = (self._cpu_s() - self._cpu_began) / length_s > BUSY or self._least_late_s > LATE_S
            in_progress = self._in_progress or 0
            self._shares.end_window(
                overloaded=busy and in_progress > IN_PROGRESS_MIN,
                draining=in_progress < self._in_progress_before,
                length_s=length_s,
            )
            self._in_progress_before = in_progress
            self._idle_windows = 0 if busy or self._in_progress is not None else self._idle_windows + 1
            self._in_progress = None
            self._begin_window(now)
        if self._idle_windows > _IDLE_WINDOWS:
            self._timer, self._idle_windows = None, 0
        else:
            self._schedule(now)


def caller_address(peer: str, headers: Iterable[tuple[bytes, bytes]], trusted: Networks) -> str:
    """Whose request it is: ``peer``'s, or, if that is a trusted proxy, whom ``x-forwarded-for`` names.

    Read from its right end, where the proxies nearest to us have written: the first address that is none of theirs.
    What stands left of it anybody may have made up.
    """
    if not _is_in(peer, tuple(trusted)):
        return peer
    values = [value for name, value in headers if name == b"x-forwarded-for"]
    for address in reversed(b",".join(values).decode("latin-1").split(",")):
        candidate = address.strip()
        if not candidate or not is_address(candidate):
            break
        if not _is_in(candidate, tuple(trusted)):
            return candidate
    return peer


@lru_cache(maxsize=4096)
def _is_in(address: str, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    return is_address(address) and any(ipaddress.ip_address(address) in network for network in networks)


def _refusal(code: str, detail: str, retry_after_s: int) -> Refusal:
    refusal = problem_refusal(code, detail)
    return refusal._replace(head=refusal.head + b"retry-after: %d\r\n" % retry_after_s)
