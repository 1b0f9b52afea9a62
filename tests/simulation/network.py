"""The network between processes and engines. Every call draws its outcome from the seed when it begins."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar

from dynein.errors import DyneinError, NotSent, Throttled, Unavailable
from dynein.server.assembly import INGESTER
from tests.simulation.flight import Fate, Flight, UnexpectedError
from tests.simulation.loop import SimulationLoop
from tests.simulation.process import Process
from tests.simulation.scenario import FaultIntensity

ResultT = TypeVar("ResultT")
_UNFORESEEN = ("add", "claim", "find", "tombstones", "raise_hold_mark", "report_late", "get")
"""Calls that may meet an error of no known kind: an ingester must leave the message, and act on it again rightly."""
LEASE_WRITES = ("renew", "take", "release")


class Network:
    """The whole fleet's. Partitions are by process and service."""

    def __init__(
        self, loop: SimulationLoop, rng: random.Random, intensity: FaultIntensity, context: Context, met: Counter[str]
    ) -> None:
        self.loop = loop
        self.met = met
        self.on_trouble: Callable[[Flight], None] = lambda _: None
        """Called with each call that will fail, or take longer than `slow_s`."""
        self.slow_s = math.inf
        self.rng = rng
        self.intensity = intensity
        self.context = context
        """The engines' own: what runs in it goes on when a process is paused or has died."""
        self.partitions: dict[tuple[str, str], Fate] = {}
        """(process, service) to the outcome of its calls."""
        self.no_renewals: dict[str, Fate] = {}
        """Process to the outcome of its writes to shard records."""
        self.outages: dict[str, None] = {}
        """Services that respond to no one."""
        self.serving: Flight | None = None
        """The call that an engine is serving at this instant."""
        self.under_way: dict[Flight, None] = {}
        """Calls that may still take effect."""

    def draw(self, process: Process, role: str, service: str, verb: str, target: str) -> Flight:
        """A call that begins now, and its outcome."""
        rng, intensity = self.rng, self.intensity
        there_s = intensity.latency_s * (0.25 + rng.random())
        back_s = intensity.latency_s * (0.25 + rng.random())
        if intensity.slow:
            if rng.random() < intensity.slow:
                there_s += rng.random() * intensity.slow_s
                self.met["slow"] += 1
            if rng.random() < intensity.slow:
                back_s += rng.random() * intensity.slow_s
                self.met["slow"] += 1
        fate = self._fate(process, role, service, verb)
        flight = Flight(process.name, role, verb, target, self.loop.time(), fate, there_s, back_s)
        if fate is not Fate.FINE or self.slow_s < there_s + back_s:
            self.on_trouble(flight)
        return flight

    def _fate(self, process: Process, role: str, service: str, verb: str) -> Fate:
        if service in self.outages:
            return self.rng.choice((Fate.REFUSED, Fate.REQUEST_LOST))
        partitions = self.partitions.get((process.name, service))
        if partitions is not None:
            return partitions
        if verb in LEASE_WRITES and process.name in self.no_renewals:
            return self.no_renewals[process.name]
        if self.intensity.fates:
            roll = self.rng.random()
            for kind, likelihood in self.intensity.fates:
                roll -= likelihood
                if roll < 0:
                    if kind == Fate.UNEXPECTED.value and (role, verb in _UNFORESEEN) != (INGESTER, True):
                        break
                    self.met[kind] += 1
                    return Fate(kind)
        return Fate.FINE


class Wire:
    """One process's connection to the engines. A call not answered in time raises `Unavailable`, as the SDK does."""

    def __init__(self, network: Network, process: Process, role: str, call_timeout_s: float) -> None:
        self.network = network
        self.process = process
        self.role = role
        self.call_timeout_s = call_timeout_s

    def draw(self, service: str, verb: str, target: str = "") -> Flight:
        """A call about to begin, for callers that record it; pass it to `call`."""
        return self.network.draw(self.process, self.role, service, verb, target)

    def delay_page(self, flight: Flight) -> None:
        """Its response is a page of triggers, and may take longer for that, but still arrives in time."""
        rng, intensity = self.network.rng, self.network.intensity
        if intensity.long_pages and rng.random() < intensity.long_pages:
            spare_s = 0.9 * self.call_timeout_s - flight.there_s - flight.back_s
            flight.back_s += max(0.0, min(rng.random() * intensity.long_page_s, spare_s))

    async def call(
        self,
        service: str,
        verb: str,
        do: Callable[[], Coroutine[Any, Any, ResultT]],
        *,
        flight: Flight | None = None,
        patience_s: float = 0.0,
    ) -> ResultT:
        """Have ``do`` done at the engine. ``patience_s`` is added to the timeout: a long poll's wait."""
        network = self.network
        loop = network.loop
        if flight is None:
            flight = self.draw(service, verb)
        network.under_way[flight] = None
        answer: asyncio.Future[Any] = loop.create_future()
        service_call = _ServiceCall(network, flight, do, answer)
        loop.call_later(flight.there_s, service_call.arrive, context=network.context)
        timer = None
        if not flight.answered_within(self.call_timeout_s):
            timer = loop.call_later(self.call_timeout_s + patience_s, _give_up, answer, verb)
        try:
            result: ResultT = await answer
            flight.answered = True
        except (_NoAnswer, _Reset):
            raise
        except DyneinError:
            flight.answered = True
            raise
        finally:
            if timer is not None:
                timer.cancel()
            flight.ended = True
        return result


class _NoAnswer(Unavailable):
    pass


class _Reset(Unavailable):
    pass


class _ServiceCall:
    """The engine's side of a call. Callbacks, not a task: there are very many, and nearly all end at once."""

    __slots__ = ("answer", "do", "flight", "network")

    def __init__(
        self, network: Network, flight: Flight, do: Callable[[], Coroutine[Any, Any, Any]], answer: asyncio.Future[Any]
    ) -> None:
        self.network = network
        self.flight = flight
        self.do = do
        self.answer = answer

    def arrive(self) -> None:
        fate = self.flight.fate
        if fate is Fate.FINE:
            self.take_effect()
        elif fate is Fate.REQUEST_LOST:
            del self.network.under_way[self.flight]
        elif fate is Fate.STRAGGLER:
            network = self.network
            network.loop.call_later(1.0 + network.rng.random() * 20.0, self.take_effect, context=network.context)
        elif fate is Fate.THROTTLED:
            self.reply(None, Throttled("simulated: slow down"))
        elif fate is Fate.UNEXPECTED:
            self.reply(None, UnexpectedError("simulated"))
        elif fate is Fate.REFUSED:
            # Half of them never reach the engine. Drawn from the flight's own time: a die more would change the seeds.
            unsent = int(self.flight.there_s * 1_000_000) % 2
            self.reply(None, NotSent("simulated: no connection") if unsent else Unavailable("simulated: 500"))
        else:
            self.take_effect()

    def take_effect(self) -> None:
        network = self.network
        network.serving = self.flight
        serving = self.do()
        try:
            waits_for = serving.send(None)
        except StopIteration as ended:
            self.reply(ended.value, None)
        except DyneinError as error:
            self.reply(None, error)
        else:
            # It waits, as a long poll does: from here on it runs as a task.
            network.loop.create_task(self._go_on(serving, waits_for), context=network.context)
        finally:
            network.serving = None

    async def _go_on(self, serving: Coroutine[Any, Any, Any], waits_for: asyncio.Future[Any]) -> None:
        try:
            result = await _Resumed(serving, waits_for)
        except DyneinError as error:
            self.reply(None, error)
        else:
            intensity = self.network.intensity
            if not intensity.slow:  # it may have been when this call began
                self.flight.back_s = min(self.flight.back_s, 1.25 * intensity.latency_s)
            self.reply(result, None)

    def reply(self, result: Any, error: Exception | None) -> None:
        network, flight = self.network, self.flight
        del network.under_way[flight]
        if flight.fate in (Fate.RESPONSE_LOST, Fate.STRAGGLER):
            return
        if flight.fate is Fate.RESET:
            error = _Reset("simulated: connection reset")
        network.loop.call_later(flight.back_s, _answer, self.answer, result, error, context=network.context)


class _Resumed:
    """Awaits the rest of a coroutine whose first step was run by hand."""

    def __init__(self, serving: Coroutine[Any, Any, Any], waits_for: asyncio.Future[Any]) -> None:
        self._serving = serving
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        waits_for = self._waits_for
        while True:
            # No task has awaited this future yet: hand it to ours, then let the coroutine have its result.
            waits_for._asyncio_future_blocking = True
            yield waits_for
            try:
                waits_for = self._serving.send(None)
            except StopIteration as ended:
                return ended.value


def _answer(answer: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)


def _give_up(answer: asyncio.Future[Any], verb: str) -> None:
    if not answer.done():
        answer.set_exception(_NoAnswer(f"simulated: no response to {verb} in time"))
