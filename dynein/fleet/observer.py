"""The fleet's observer: measures what belongs to no single process: the queues, the shards, and what is due soon.

It is the process whose dispatcher owns shard 0, so there is one in a fleet, and another when that one ends. Only the
observer shows these metrics: they vanish from a process that no longer is it. Nothing depends on them: an observer that
lacks a permission, or gets no response, logs that and goes on.
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
"""How soon a process notices that it is the observer, or no longer."""

ResultT = TypeVar("ResultT")


class Fleet(Protocol):
    """What a dispatcher knows of the shards."""

    def owns(self, shard: int) -> bool:
        """Is the shard this process's now?"""

    def shards_seen(self) -> ShardsSeen:
        """As of its last poll of all shard records."""


class Observer:
    """One process's part in it. `run` is its whole life: `dynein.runtime.tasks.Agent`."""

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
        self._store = store
        self._deployment = deployment
        self._context = context
        self._settings = settings
        self._observe_at_s = float("-inf")
        self._forecast_made_in = -1
        """The number of the interval, counted from 1970, in which the last forecast was made."""
        self._reported: dict[str, str] = {}
        """By what could not be measured: the reason logged last."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Observe until ``stopping`` is set; then its metrics vanish."""
        clock, rng, _, _ = self._context
        passes = [run_periodically("observer", self.observe_once, clock, stopping, rng)]
        if self._settings.forecast_interval_s:
            passes.append(run_periodically("forecast", self.forecast_once, clock, stopping, rng))
        try:
            await asyncio.gather(*passes)
        finally:
            self._forget()

    async def observe_once(self) -> float:
        """Measure queues and shards, if that is due; the seconds until the next pass."""
        now = self._context.clock.monotonic()
        if not self._observing():
            self._forget()
            self._observe_at_s = float("-inf")
        elif now >= self._observe_at_s:
            self._observe_at_s = now + self._settings.observe_interval_s
            await self._observe()
        return CHECK_S

    async def forecast_once(self) -> float:
        """Make a forecast, if that is due; the seconds until the next pass."""
        interval_ms = round(self._settings.forecast_interval_s * 1000)
        interval = self._context.clock.now_ms() // interval_ms if interval_ms else 0
        if not self._observing():
            self._forecast_made_in = -1
        elif interval != self._forecast_made_in and self._fleet.shards_seen().shards:
            self._forecast_made_in = interval
            await self._guarded("the forecast", self._forecast)
        return CHECK_S

    def _observing(self) -> bool:
        return self._fleet.owns(OBSERVERS_SHARD)

    async def _observe(self) -> None:
        telemetry, seen = self._context.telemetry, self._fleet.shards_seen()
        depth, deployment = self._queues.depth, self._deployment
        inbound = await self._guarded("the inbound queue", lambda: depth(deployment.inbound_url))
        dead_letters = await self._guarded("the dead-letter queue", lambda: depth(deployment.dead_letter_url))
        if not self._observing():
            return
        if seen.shards:
            telemetry.shards.set(seen.shards)
            telemetry.shards_unowned.set(seen.unowned)
        telemetry.inbound_messages.show(inbound._asdict() if inbound is not None else {})
        if dead_letters is None:
            telemetry.dead_letters.forget()
        else:
            telemetry.dead_letters.set(dead_letters.visible)

    async def _forecast(self) -> None:
        """Count, page after page, and show the result if we are still the observer then."""
        clock, rng, telemetry, _ = self._context
        now_ms, shard_count = clock.now_ms(), self._fleet.shards_seen().shards
        units_left: float = self._settings.forecast_read_units_max
        estimates: dict[str, float] = {}
        for minute, span in enumerate(coming_minutes(now_ms)):
            if units_left <= 0:
                break
            survey = Survey(
                span,
                rng.sample(range(shard_count), min(shard_count, SHARDS_MAX)),
                shard_count,
                bucket_width_ms=self._deployment.layout.bucket_width_ms,
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
        telemetry.forecast.show(estimates)
        telemetry.forecast_timestamp.set(now_ms / 1000)

    async def _guarded(self, what: str, measure: Callable[[], Awaitable[ResultT]]) -> ResultT | None:
        """``None`` if it failed: what cannot be measured must not end the process. Each reason is logged once."""
        try:
            found = await measure()
        except DyneinError as error:
            if self._reported.get(what) != str(error):
                self._reported[what] = str(error)
                OBSERVER_BLIND.log(error, what=what)
            return None
        self._reported.pop(what, None)
        return found

    def _forget(self) -> None:
        telemetry = self._context.telemetry
        for gauge in (
            telemetry.inbound_messages,
            telemetry.dead_letters,
            telemetry.shards,
            telemetry.shards_unowned,
            telemetry.forecast,
            telemetry.forecast_timestamp,
        ):
            gauge.forget()
