"""The fleet's observer: measures what is nobody's own, the queues, the shards and what is to come.

It is the process whose dispatcher owns shard 0, so there is one in a fleet, and another when that one ends. Only the
observer shows these metrics: they vanish from a process that is it no more. Nothing depends on them: an observer that
may not look, or is not answered, says so in the log and goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from dynein.core.ports import Deployment
from dynein.core.queues import Queues
from dynein.core.trigger_store import TriggerStore
from dynein.errors import DyneinError
from dynein.fleet.forecast import MINUTES, SHARDS_MAX, Survey, coming_minutes
from dynein.fleet.staleness import ShardsSeen
from dynein.observability.events.process import OBSERVER_BLIND
from dynein.runtime.context import Context
from dynein.runtime.periodic import run_periodically
from dynein.settings import Settings

OBSERVERS_SHARD = 0
CHECK_S = 1.0
"""How soon it is noticed who is the observer."""

ResultT = TypeVar("ResultT")


class Fleet(Protocol):
    """What a dispatcher knows of the shards."""

    def owns(self, shard: int) -> bool:
        """Is the shard this process's now?"""

    def shards_seen(self) -> ShardsSeen:
        """As of its last look at all shard records."""


class Observer:
    """One process's part in it. `run` is its whole life."""

    def __init__(
        self,
        fleet: Fleet,
        queues: Queues,
        store: TriggerStore,
        deployment: Deployment,
        context: Context,
        settings: Settings,
    ) -> None:
        self._fleet = fleet
        self._queues = queues
        self._deployment = deployment
        self._store = store
        self._clock = context.clock
        self._telemetry = context.telemetry
        self._observe_interval_s = settings.observe_interval_s
        self._forecast_interval_ms = round(settings.forecast_interval_s * 1000)
        self._units_max = settings.forecast_read_units_max
        self._rng = context.rng
        self._width_ms = deployment.layout.bucket_width_ms
        self._look_at = float("-inf")
        self._forecast_made_in = -1
        """The number of the interval, counted from 1970, in which the last forecast was made."""
        self._said: dict[str, str] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        """Observe until ``stopping`` is set; then its metrics vanish."""
        passes = [run_periodically("observer", self.look_once, self._clock, stopping, self._rng)]
        if self._forecast_interval_ms:
            passes.append(run_periodically("forecast", self.forecast_once, self._clock, stopping, self._rng))
        try:
            await asyncio.gather(*passes)
        finally:
            self._forget()

    async def look_once(self) -> float:
        """Show queues and shards, if that is due; the seconds until the next pass."""
        if not self._observing():
            self._forget()
            self._look_at = float("-inf")
        elif self._clock.monotonic() >= self._look_at:
            self._look_at = self._clock.monotonic() + self._observe_interval_s
            await self._look()
        return CHECK_S

    async def forecast_once(self) -> float:
        """Make a forecast, if that is due; the seconds until the next pass."""
        interval = self._clock.now_ms() // self._forecast_interval_ms if self._forecast_interval_ms else 0
        if not self._observing():
            self._forecast_made_in = -1
        elif interval != self._forecast_made_in and self._fleet.shards_seen().shards:
            self._forecast_made_in = interval
            await self._guarded("the forecast", self._forecast)
        return CHECK_S

    def _observing(self) -> bool:
        return self._fleet.owns(OBSERVERS_SHARD)

    async def _look(self) -> None:
        telemetry, seen = self._telemetry, self._fleet.shards_seen()
        depth, deployment = self._queues.depth, self._deployment
        inbound = await self._guarded("the inbound queue", lambda: depth(deployment.inbound_url))
        letters = await self._guarded("the dead-letter queue", lambda: depth(deployment.dead_letter_url))
        if not self._observing():
            return
        if seen.shards:
            telemetry.shards.set(seen.shards)
            telemetry.shards_unowned.set(seen.unowned)
        telemetry.inbound_messages.show(inbound._asdict() if inbound is not None else {})
        if letters is None:
            telemetry.dead_letters.forget()
        else:
            telemetry.dead_letters.set(letters.visible)

    async def _forecast(self) -> None:
        """Count, page after page, and show the result if we are still the observer then."""
        now_ms, shard_count = self._clock.now_ms(), self._fleet.shards_seen().shards
        units_left: float = self._units_max
        estimates: dict[str, float] = {}
        for minute, span in enumerate(coming_minutes(now_ms)):
            if units_left <= 0:
                break
            survey = Survey(
                span,
                self._rng.sample(range(shard_count), min(shard_count, SHARDS_MAX)),
                shard_count,
                bucket_width_ms=self._width_ms,
                units_max=units_left / (MINUTES - minute),
            )
            while (ask := survey.next_ask()) is not None:
                found = await self._store.count_due(
                    ask.bucket, ask.shard, from_ms=ask.span.from_ms, until_ms=ask.span.until_ms, limit=ask.limit
                )
                if not self._observing():
                    return
                survey.note(found)
            units_left -= survey.units
            estimates[str(minute)] = round(survey.estimate)
        self._telemetry.forecast.show(estimates)
        self._telemetry.forecast_timestamp.set(now_ms / 1000)

    async def _guarded(self, what: str, look: Callable[[], Awaitable[ResultT]]) -> ResultT | None:
        """``None`` when there was no answer: what cannot be seen must not end the process. Each reason is said once."""
        try:
            found = await look()
        except DyneinError as error:
            if self._said.get(what) != str(error):
                self._said[what] = str(error)
                OBSERVER_BLIND.log(error, what=what)
            return None
        self._said.pop(what, None)
        return found

    def _forget(self) -> None:
        telemetry = self._telemetry
        for gauge in (
            telemetry.inbound_messages,
            telemetry.dead_letters,
            telemetry.shards,
            telemetry.shards_unowned,
            telemetry.forecast,
            telemetry.forecast_timestamp,
        ):
            gauge.forget()
