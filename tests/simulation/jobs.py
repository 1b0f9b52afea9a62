"""The jobs that users submit: every policy, due now, soon, and later than that; some large, some for FIFO queues."""

from __future__ import annotations

import random
from typing import Any

from dynein.api.schemas import JobRequest
from dynein.core.job import Policy
from tests.simulation.world import World

_BODY_BYTES = (0,) * 12 + (300,) * 3 + (9_000,)


class JobMaker:
    """Makes requests, no two alike. ``horizon_s``: how far ahead they are due."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._serial = 0
        self.horizon_s = 60.0

    def make(self, **given: Any) -> JobRequest:
        """A request. Fields in ``given`` have that value, and are left out where it is ``None``."""
        rng = self._rng
        self._serial += 1
        queue = given.pop("queue", None) or rng.choice(self._world.scenario.destinations)
        fifo = queue.endswith(".fifo")
        fields: dict[str, Any] = {
            "queue": queue,
            "body": f"job {self._serial} " + "x" * rng.choice(_BODY_BYTES),
            "message_group_id": rng.choice("ab") if fifo else None,
            "deduplication_id": f"own-{self._serial}" if fifo and rng.random() < 0.2 else None,
        }
        policy = rng.choice((Policy.SCHEDULED, Policy.SCHEDULED, Policy.SCHEDULED, None, Policy.SQS_DELAYED))
        settings = self._world.settings
        delay = rng.choice(
            (
                0.0,
                rng.random() * settings.hold_window_s,
                settings.hold_window_s + rng.random() * 6.0,
                rng.random() * 15.0,
                rng.random() * self.horizon_s,
            )
        )
        if "policy" in given:
            policy = given["policy"]
        if fifo and policy is Policy.SQS_DELAYED:
            policy = None
        fields["policy"] = policy
        if rng.random() < 0.7:
            fields["delay"] = delay
        else:
            fields["run_at"] = self._world.now_ms() + int(delay * 1000) - rng.choice((0, 0, 3_000))
        if policy is None and rng.random() < 0.3:
            fields["cancellable"] = True
        if "run_at" in given or "delay" in given:
            fields.pop("run_at", None)
            fields.pop("delay", None)
        fields.update({name: value for name, value in given.items() if value is not None})
        return JobRequest(**fields)
