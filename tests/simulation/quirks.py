"""Faults of the engines themselves, as the real ones may have: partial failures, duplicates, reordering."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from dynein.core.keys import TriggerKey, bucket_of
from dynein.core.queues import SendFailure
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import Page
from dynein.errors import Remedy, Throttled
from dynein.runtime.clock import Clock
from dynein.testing import Call, Faults
from tests.simulation.loop import SimulationLoop
from tests.simulation.process import pause
from tests.simulation.scenario import FaultIntensity, Scenario


class Torn:
    """Torn reads: a cancel or a move takes a moment, and a read in that moment may show what was there before.

    DynamoDB isolates a Query from a transaction item by item only ("read-committed"; Developer Guide, "DynamoDB
    transactions: how it works"): while a cancel is being committed, a read may find the trigger, and no tombstone. It
    is acknowledged when all of it has been committed, and a consistent read begun after that shows it. That is
    documented behaviour and no fault, so every run has it.
    """

    def __init__(self, rng: random.Random, torn_s: float, met: Counter[str]) -> None:
        self._rng = rng
        self._torn_s = torn_s
        self._met = met
        self._removed: dict[TriggerKey, tuple[float, Trigger | None]] = {}
        """When it will have been committed, and what was there."""
        self._added: dict[TriggerKey, float] = {}
        """The same for the key that a job is moved to."""

    def begin(self, key: TriggerKey, was_there: Trigger | None, now: float, to: TriggerKey | None) -> float:
        """A cancel or a move is decided at ``now``. Returns after how many seconds all of it is visible."""
        commit_s = self._rng.random() * self._torn_s
        self._removed[key] = (now + commit_s, was_there)
        if to is not None:
            self._added[to] = now + commit_s
        return commit_s

    def show(self, page: Page, now: float) -> Page:
        """What a read shows at ``now``."""
        absent = [t.key for t in page.triggers if now < self._added.get(t.key, 0.0) and self._rng.random() < 0.7]
        if absent:
            self._met["torn read"] += len(absent)
            page = page._replace(triggers=[trigger for trigger in page.triggers if trigger.key not in absent])
        again = [t.key for t in page.tombstones if t.key in self._removed and now < self._removed[t.key][0]]
        again = [key for key in again if self._rng.random() < 0.7]
        if not again:
            return page
        self._met["torn read"] += len(again)
        was_there = [self._removed[key][1] for key in again]
        triggers = [*page.triggers, *(trigger for trigger in was_there if trigger is not None)]
        return page._replace(
            triggers=sorted(triggers, key=lambda trigger: trigger.key),
            tombstones=[tombstone for tombstone in page.tombstones if tombstone.key not in again],
        )

    def shows_tombstone(self, key: TriggerKey, now: float) -> bool:
        """Does a read of that one item show its tombstone at ``now``?"""
        if key not in self._removed or now >= self._removed[key][0] or self._rng.random() >= 0.7:
            return True
        self._met["torn read"] += 1
        return False


class Hot:
    """Partitions of the table that take no writes, as DynamoDB's do when more is written to them than they can take.

    Writes there come back unprocessed until shortly before the bucket may be retired. The writer tries again every few
    seconds, so the write races with the retirement.
    """

    def __init__(
        self, rng: random.Random, intensity: FaultIntensity, scenario: Scenario, clock: Clock, met: Counter[str]
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._intensity = intensity
        self._scenario = scenario
        self._met = met
        self._until_ms: dict[tuple[int, int], int] = {}

    def refuses(self, key: TriggerKey) -> bool:
        """Does a write of ``key`` come back unprocessed?"""
        if not self._intensity.hot:
            return False
        width_ms, settings = self._scenario.bucket_width_s * 1000, self._scenario.settings
        place = bucket_of(key.due_at_ms, width_ms), key.shard
        if place not in self._until_ms:
            hot = self._rng.random() < self._intensity.hot
            self._met["hot"] += hot
            open_s = settings.retire_grace_s - 3.0 * self._rng.random()
            self._until_ms[place] = (place[0] + 1) * width_ms + int(open_s * 1000) if hot else 0
        return self._clock.now_ms() < self._until_ms[place]

    def until(self, bucket: int, shard: int) -> float | None:
        """Until when a partition took no writes, in seconds of the run; ``None`` if it always took them."""
        until_ms = self._until_ms.get((bucket, shard), 0)
        return self._clock.monotonic() + (until_ms - self._clock.now_ms()) / 1000 if until_ms else None


class Conflicts:
    """Writes and transactions that meet on one shard record.

    DynamoDB refuses a transaction while another write to one of its items, a checked one too, is being processed, and a
    write to an item of a transaction under way (Developer Guide, "Transaction conflict handling"). `dynein.aws`
    repeats such a call a few times, with pauses; what is left after that is `Throttled`. So the more writes meet on a
    record, the more are refused.
    """

    TRIES = 6

    def __init__(self, rng: random.Random, intensity: FaultIntensity, loop: SimulationLoop, met: Counter[str]) -> None:
        self._rng = rng
        self._intensity = intensity
        self._loop = loop
        self._met = met
        self._busy: dict[int, list[tuple[float, bool]]] = {}
        """By shard: until when a write to its record is being processed, and whether it is a transaction."""

    async def meet(self, shard: int, *, transaction: bool) -> None:
        """A write to the record of ``shard`` begins. Raises `Throttled` if it keeps meeting others."""
        if not self._intensity.conflict_s:
            return
        for tries in range(self.TRIES):
            now = self._loop.time()
            busy = [(until, other) for until, other in self._busy.get(shard, []) if until > now]
            self._busy[shard] = busy
            if not any(transaction or other for _, other in busy):
                busy.append((now + self._rng.random() * self._intensity.conflict_s, transaction))
                return
            self._met["conflict"] += 1
            await pause(self._loop, self._rng.random() * 0.02 * 2**tries)
        raise Throttled("simulated: transactions on this record keep getting in the way")


class EngineFaults(Faults):
    """The hooks of the fakes, by fault intensity."""

    def __init__(
        self,
        rng: random.Random,
        intensity: FaultIntensity,
        scenario: Scenario,
        clock: Clock,
        loop: SimulationLoop,
        met: Counter[str],
    ) -> None:
        super().__init__()
        self._met = met
        self._rng = rng
        self._intensity = intensity
        self.torn = Torn(rng, 0.4 * scenario.settings.tick_s, met)
        self.hot = Hot(rng, intensity, scenario, clock, met)
        self.conflicts = Conflicts(random.Random(f"conflicts {scenario.seed}"), intensity, loop, met)
        self.failing_queues: dict[str, tuple[str, bool, float]] = {}
        """Destination queues that refuse entries: error code, whether for good, and which share of them."""
        self.quirks: dict[str, list[tuple[float, str]]] = {}
        """By message id: which duplicates and forgotten deletes struck it, and when."""
        self._clock = clock

    async def before(self, call: Call) -> None:
        pass

    async def after(self, call: Call) -> None:
        pass

    def failed_entries(self, call: Call) -> dict[int, SendFailure]:
        refused = self.failing_queues.get(call.target) if call.verb == "send" else None
        if refused is not None:
            code, permanent, share = refused
            self._met["bad_queue"] += 1
            failure = SendFailure(code, "simulated", Remedy.REJECT if permanent else Remedy.RETRY)
            return {i: failure for i in range(call.entries) if share == 1.0 or self._rng.random() < share}
        if self._rng.random() >= self._intensity.partial:
            return {}
        self._met["partial"] += 1
        failure = SendFailure("InternalError", "simulated", Remedy.RETRY)
        return {i: failure for i in range(call.entries) if self._rng.random() < 0.5}

    def duplicates(self, call: Call, message_id: str) -> bool:  # noqa: ARG002
        return self._quirk("received and still visible", message_id)

    def ignores_delete(self, call: Call, message_id: str) -> bool:  # noqa: ARG002
        return self._quirk("delete forgotten", message_id)

    def reorder(self, call: Call, candidates: list[Any]) -> None:  # noqa: ARG002
        if self._intensity.reorder and len(candidates) > 1:
            self._met["reorder"] += 1
            self._rng.shuffle(candidates)

    def _quirk(self, what: str, message_id: str) -> bool:
        happens = self._rng.random() < self._intensity.duplicate
        if happens:
            self._met["duplicate"] += 1
            self.quirks.setdefault(message_id, []).append((self._clock.monotonic(), what))
        return happens
