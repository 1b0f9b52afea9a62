"""Decides, from the head of a request alone, whether there is room for it: a refusal must cost next to nothing.

Two bounds: a rate for each caller, if the settings give one (429), and a fair share of what this process can do while
its event loop is late (503). A caller is known by its address. Probes and metrics are always served.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import msgspec

from dynein.api.fair_share import LAG_TARGET_S, WINDOW_S, FairShare
from dynein.api.problems import PROBLEM_JSON, make
from dynein.observability.events.api import REQUESTS_SHED
from dynein.observability.telemetry import Telemetry
from dynein.runtime.rate_limits import RateLimits
from dynein.server.http_protocol import Refusal
from dynein.settings import Settings

COST_BYTES = 4_096
"""A body costs one request more for each of these."""
_GATED = b"/v1/"
_SAMPLES_A_WINDOW = 4
_SAMPLES_MIN = 2
"""So that one slow turn is never all that a window has seen."""
_IDLE_WINDOWS = 50
"""Then the event loop's lag is no longer sampled, until the next request."""

Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]


class LoadGate:
    """One process's. `admit` is asked on the event loop whose lag counts."""

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        self._trusted = tuple(map(ipaddress.ip_network, settings.trusted_proxy_networks))
        self._rates = RateLimits(settings.caller_rate_per_s, settings.caller_burst_s)
        self._shares = FairShare()
        self._lag = LoopLag(self._shares.end_window)
        self._shed_overload = telemetry.shed.labels("overload")
        self._shed_caller = telemetry.shed.labels("caller")
        self._overloaded = _refusal("overloaded", "More is asked of this process than it can do; not accepted.", 1)

    def admit(self, path: bytes, peer: str, headers: Iterable[tuple[bytes, bytes]], body_bytes: int) -> Refusal | None:
        """``None`` if the request is to be served. ``peer``: address of the other end of the connection."""
        if not path.startswith(_GATED):
            return None
        caller = caller_address(peer, headers, self._trusted) if self._trusted else peer
        cost = 1 + body_bytes / COST_BYTES
        self._lag.sample()
        wait_s = self._rates.take(caller, cost, asyncio.get_running_loop().time())
        if wait_s > 0:
            self._shed_caller.inc()
            REQUESTS_SHED.log(reason="caller", caller=caller)
            limit = f"{self._rates.rate_per_s:g} requests a second (setting caller_rate_per_s)"
            return _refusal("rate-limited", f"{caller} sends more than {limit}.", math.ceil(wait_s))
        if not self._shares.admit(caller, cost):
            self._shed_overload.inc()
            REQUESTS_SHED.log(reason="overload", caller=caller)
            return self._overloaded
        return None


class LoopLag:
    """How late the event loop runs its timers. ``end_window`` is called about every `WINDOW_S`.

    It is given the least lag of the window, and the window's length in seconds. The least, since a queue that stands
    shows in every sample, while one slow turn of the loop (a collection of garbage, a large batch) shows in one (CoDel:
    Nichols and Jacobson, 2012). Sampled only while requests come, and a little longer: an idle process sets no timers
    for it.
    """

    def __init__(self, end_window: Callable[[float, float], None]) -> None:
        self._end_window = end_window
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = self._window_began = 0.0
        self._samples: list[float] = []
        self._asked = False
        self._idle_windows = 0

    @property
    def is_sampling(self) -> bool:
        """Is a timer set?"""
        return self._timer is not None

    def sample(self) -> None:
        """A request has come: go on sampling, or begin."""
        self._asked = True
        if self._timer is None:
            self._window_began = asyncio.get_running_loop().time()
            self._schedule(self._window_began)

    def _schedule(self, now: float) -> None:
        self._timer_due = now + WINDOW_S / _SAMPLES_A_WINDOW
        self._timer = asyncio.get_running_loop().call_at(self._timer_due, self._fired)

    def _fired(self) -> None:
        now = asyncio.get_running_loop().time()
        self._samples.append(now - self._timer_due)
        length_s = now - self._window_began
        if length_s >= WINDOW_S and len(self._samples) >= _SAMPLES_MIN:
            least_s = min(self._samples)
            self._end_window(least_s, length_s)
            self._idle_windows = 0 if self._asked or least_s > LAG_TARGET_S else self._idle_windows + 1
            self._samples.clear()
            self._asked = False
            self._window_began = now
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
        if not candidate or not _is_address(candidate):
            break
        if not _is_in(candidate, tuple(trusted)):
            return candidate
    return peer


@lru_cache(maxsize=4096)
def _is_in(address: str, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    return _is_address(address) and any(ipaddress.ip_address(address) in network for network in networks)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _refusal(code: str, detail: str, retry_after_s: int) -> Refusal:
    problem = make(code, detail, msgspec.UNSET)
    body = msgspec.json.encode(problem)
    head = f"content-type: {PROBLEM_JSON}\r\ncontent-length: {len(body)}\r\nretry-after: {retry_after_s}\r\n"
    return Refusal(problem.status, head.encode(), body)
