"""What lies between a process and an engine. Every call draws its fate from the seed, as it begins."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar
from enum import Enum
from typing import Any, NamedTuple, TypeVar

from dynein.errors import DyneinError, Throttled, Unavailable
from dynein.queue import SendFailure
from dynein.testing import Call, Faults
from tests.simulation.loop import SimulationLoop
from tests.simulation.process import Process
from tests.simulation.scenario import Weather

ResultT = TypeVar("ResultT")


class Fate(Enum):
    """What becomes of a call."""

    FINE = "fine"
    THROTTLED = "throttled"
    REFUSED = "failed, without effect"
    RESET = "took effect, connection reset"
    REQUEST_LOST = "request lost"
    ANSWER_LOST = "took effect, answer lost"
    STRAGGLER = "takes effect after its caller gave up"


class Passage(NamedTuple):
    """One call on its way, as drawn."""

    fate: Fate
    there_s: float
    back_s: float


class Flight:
    """One call."""

    def __init__(self, process: str, verb: str, began_at: float, fate: Fate) -> None:
        self.process = process
        self.verb = verb
        self.began_at = began_at
        self.fate = fate
        self.answered = False
        """The caller got an answer, and it says what happened."""


FLIGHT: ContextVar[Flight | None] = ContextVar("FLIGHT", default=None)
"""At an engine: the call that is being served."""


class Network:
    """The whole fleet's. Partitions are by process and service."""

    def __init__(self, loop: SimulationLoop, rng: random.Random, weather: Weather, context: Context) -> None:
        self.loop = loop
        self.rng = rng
        self.weather = weather
        self.context = context
        """The engines' own: what runs in it goes on when a process is paused or dead."""
        self.cut: dict[tuple[str, str], Fate] = {}
        """(process, service) to what becomes of its calls."""
        self.down: dict[str, None] = {}
        """Services that answer nobody."""
        self.bad_renewals: dict[str, list[float]] = {}
        """By process: when a renewal of a lease did not go well."""
        self.on_failure: list[Callable[[Flight, float], None]] = []
        """Told of a call whose caller did not learn what happened, and when it gave up."""

    def draw(self, process: Process, service: str) -> Passage:
        """The fate of a call that begins now."""
        rng, weather = self.rng, self.weather
        there_s = weather.latency_s * (0.25 + rng.random())
        back_s = weather.latency_s * (0.25 + rng.random())
        if rng.random() < weather.slow:
            there_s += rng.random() * weather.slow_s
        if rng.random() < weather.slow:
            back_s += rng.random() * weather.slow_s
        return Passage(self._fate(process, service), there_s, back_s)

    def _fate(self, process: Process, service: str) -> Fate:
        if service in self.down:
            return self.rng.choice((Fate.REFUSED, Fate.REQUEST_LOST))
        cut = self.cut.get((process.name, service))
        if cut is not None:
            return cut
        roll = self.rng.random()
        for fate, likelihood in self.weather.fates:
            roll -= likelihood
            if roll < 0:
                return Fate(fate)
        return Fate.FINE


class Wire:
    """One process's way to the engines. A call that has no answer in time is `Unavailable`, as the SDK would say."""

    def __init__(self, network: Network, process: Process, call_timeout_s: float) -> None:
        self.network = network
        self.process = process
        self.call_timeout_s = call_timeout_s

    async def call(
        self, service: str, verb: str, do: Callable[[], Coroutine[Any, Any, ResultT]], *, patience_s: float = 0.0
    ) -> ResultT:
        """Have ``do`` done at the engine. ``patience_s`` is added to the timeout: a long poll's wait."""
        network = self.network
        loop = network.loop
        passage = network.draw(self.process, service)
        flight = Flight(self.process.name, verb, loop.time(), passage.fate)
        if verb == "renew" and passage.fate is not Fate.FINE:
            network.bad_renewals.setdefault(self.process.name, []).append(loop.time())
        answer: asyncio.Future[Any] = loop.create_future()
        context = network.context.copy()
        context.run(FLIGHT.set, flight)
        service_call = _ServiceCall(loop, network.rng, passage, do, answer, context)
        loop.call_later(passage.there_s, service_call.arrive, context=context)
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
            timer.cancel()
            if not flight.answered:
                for tell in network.on_failure:
                    tell(flight, loop.time())
        return result


class _NoAnswer(Unavailable):
    pass


class _Reset(Unavailable):
    pass


class _ServiceCall:
    """The engine's side of a call. Callbacks, not a task: there are very many, and nearly all end at once."""

    def __init__(
        self,
        loop: SimulationLoop,
        rng: random.Random,
        passage: Passage,
        do: Callable[[], Coroutine[Any, Any, Any]],
        answer: asyncio.Future[Any],
        context: Context,
    ) -> None:
        self.loop = loop
        self.rng = rng
        self.passage = passage
        self.do = do
        self.answer = answer
        self.context = context

    def arrive(self) -> None:
        fate = self.passage.fate
        if fate is Fate.REQUEST_LOST:
            return
        if fate is Fate.STRAGGLER:
            self.loop.call_later(1.0 + self.rng.random() * 20.0, self.take_effect, context=self.context)
        elif fate is Fate.THROTTLED:
            self.reply(None, Throttled("simulated: slow down"))
        elif fate is Fate.REFUSED:
            self.reply(None, Unavailable("simulated: 500"))
        else:
            self.take_effect()

    def take_effect(self) -> None:
        serving = self.do()
        try:
            waits_for = serving.send(None)
        except StopIteration as ended:
            self.reply(ended.value, None)
        except DyneinError as error:
            self.reply(None, error)
        else:
            # It waits, as a long poll does: from here on it is a task.
            self.loop.create_task(self._go_on(serving, waits_for), context=self.context)

    async def _go_on(self, serving: Coroutine[Any, Any, Any], waits_for: asyncio.Future[Any]) -> None:
        try:
            result = await _Resumed(serving, waits_for)
        except DyneinError as error:
            self.reply(None, error)
        else:
            self.reply(result, None)

    def reply(self, result: Any, error: DyneinError | None) -> None:
        fate = self.passage.fate
        if fate in (Fate.ANSWER_LOST, Fate.STRAGGLER):
            return
        if fate is Fate.RESET:
            error = _Reset("simulated: connection reset")
        self.loop.call_later(self.passage.back_s, _answer, self.answer, result, error, context=self.context)


class _Resumed:
    """Awaits the rest of a coroutine that has been begun by hand."""

    def __init__(self, serving: Coroutine[Any, Any, Any], waits_for: asyncio.Future[Any]) -> None:
        self._serving = serving
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        waits_for = self._waits_for
        while True:
            # The future was yielded to nobody: give it to the task, then let the coroutine see its result.
            waits_for._asyncio_future_blocking = True
            yield waits_for
            try:
                waits_for = self._serving.send(None)
            except StopIteration as ended:
                return ended.value


def _answer(answer: asyncio.Future[Any], result: Any, error: DyneinError | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)


def _give_up(answer: asyncio.Future[Any], verb: str) -> None:
    if not answer.done():
        answer.set_exception(_NoAnswer(f"simulated: no answer to {verb} in time"))


class EngineFaults(Faults):
    """How the engines themselves misbehave: partial failures, duplicates, disorder."""

    def __init__(self, rng: random.Random, weather: Weather) -> None:
        super().__init__()
        self._rng = rng
        self._weather = weather
        self.down_queues: dict[str, tuple[str, bool]] = {}
        """Destination queues that refuse every entry: error code, and whether for good."""
        self.on_quirk: list[Callable[[str, str], None]] = []
        """Told of (what, message id)."""

    async def before(self, call: Call) -> None:
        pass

    async def after(self, call: Call) -> None:
        pass

    def failed_entries(self, call: Call) -> dict[int, SendFailure]:
        refused = self.down_queues.get(call.target) if call.verb == "send" else None
        if refused is not None:
            code, permanent = refused
            return dict.fromkeys(range(call.entries), SendFailure(code, "simulated", permanent))
        if self._rng.random() >= self._weather.partial:
            return {}
        failure = SendFailure("InternalError", "simulated", permanent=False)
        return {i: failure for i in range(call.entries) if self._rng.random() < 0.5}

    def duplicates(self, call: Call, message_id: str) -> bool:  # noqa: ARG002
        return self._quirk("received and still visible", message_id)

    def ignores_delete(self, call: Call, message_id: str) -> bool:  # noqa: ARG002
        return self._quirk("delete forgotten", message_id)

    def reorder(self, call: Call, candidates: list[Any]) -> None:  # noqa: ARG002
        if self._weather.reorder:
            self._rng.shuffle(candidates)

    def _quirk(self, what: str, message_id: str) -> bool:
        happens = self._rng.random() < self._weather.duplicate
        if happens:
            for tell in self.on_quirk:
                tell(what, message_id)
        return happens
